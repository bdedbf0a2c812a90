"""Numbers that are not finite are within all bounds of a comparison, and are refused by name."""

import pytest
from pydantic import ValidationError

from model.checkpoint import InputFormat
from model.recipe import Loss, Optimizer
from tests.model.evaluation_factories import RunModel


@pytest.mark.parametrize("number", ["nan", "inf"])
@pytest.mark.parametrize(
    "arguments",
    [
        ("evaluate", "--features", "f.npz", "--alpha"),
        ("export", "--checkpoint", "c.safetensors", "--out", "c.onnx", "--precision", "int8", "--cosine"),
    ],
)
def test_an_option_takes_finite_numbers(run: RunModel, arguments: tuple[str, ...], number: str) -> None:
    ended = run(*arguments, number)
    assert ended.code == 2
    assert f"Invalid value for '{arguments[-1]}'" in ended.err


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_recipe_and_a_checkpoint_hold_finite_numbers(number: float) -> None:
    for kind, name in ((Loss, "margin"), (Optimizer, "learning_rate")):
        with pytest.raises(ValidationError, match=f"{name}\n  Input should be a finite number"):
            kind.model_validate({name: number})
    with pytest.raises(ValidationError, match="finite number"):
        InputFormat(height=64, width=32, mean=(number, 0, 0))


def test_pixels_are_not_divided_by_zero() -> None:
    with pytest.raises(ValidationError, match="greater than 0"):
        InputFormat(height=64, width=32, std=(0.2, 0, 0.2))
