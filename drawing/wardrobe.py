"""The drawn persons: body, hair and clothes, chosen to be distinguishable."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from drawing.fabrics import Colour

Pattern = Literal["plain", "striped", "pinstriped", "checked", "dotted", "flowered", "logo", "two-tone"]
Cut = Literal["t-shirt", "tank", "shirt", "polo", "sweater", "hoodie", "jacket", "open", "coat", "dress"]
Lower = Literal["trousers", "jeans", "leggings", "shorts", "skirt", "long-skirt"]
Hair = Literal["short", "bob", "long", "ponytail", "bun", "bald"]
Bag = Literal["none", "backpack", "messenger", "shoulder", "tote", "briefcase"]
Hat = Literal["none", "cap", "beanie", "sunhat"]

_Option = TypeVar("_Option")
_Features = NDArray[np.float64]

# Fair to dark.
_SKINS: tuple[Colour, ...] = (
    (0.91, 0.76, 0.67),
    (0.86, 0.69, 0.57),
    (0.78, 0.60, 0.47),
    (0.66, 0.47, 0.35),
    (0.52, 0.36, 0.27),
    (0.38, 0.26, 0.20),
)
_HAIR_COLOURS: dict[Colour, float] = {
    (0.09, 0.08, 0.08): 0.32,
    (0.13, 0.09, 0.07): 0.24,
    (0.25, 0.16, 0.10): 0.18,
    (0.42, 0.27, 0.15): 0.10,
    (0.72, 0.56, 0.34): 0.07,
    (0.60, 0.60, 0.60): 0.06,
    (0.45, 0.18, 0.10): 0.03,
}
_UPPERS: tuple[Colour, ...] = (
    (0.93, 0.93, 0.92),
    (0.68, 0.69, 0.70),
    (0.28, 0.29, 0.31),
    (0.10, 0.10, 0.11),
    (0.12, 0.16, 0.34),
    (0.15, 0.32, 0.68),
    (0.50, 0.72, 0.88),
    (0.78, 0.12, 0.14),
    (0.42, 0.10, 0.16),
    (0.90, 0.55, 0.64),
    (0.91, 0.46, 0.12),
    (0.93, 0.80, 0.24),
    (0.42, 0.44, 0.22),
    (0.15, 0.48, 0.28),
    (0.62, 0.78, 0.32),
    (0.13, 0.52, 0.55),
    (0.43, 0.24, 0.56),
    (0.44, 0.30, 0.20),
    (0.80, 0.70, 0.55),
    (0.70, 0.62, 0.82),
)
_NEUTRALS = _UPPERS[:5]
_LOWERS: tuple[Colour, ...] = (
    (0.10, 0.10, 0.11),
    (0.27, 0.28, 0.30),
    (0.58, 0.59, 0.60),
    (0.13, 0.16, 0.29),
    (0.22, 0.31, 0.47),
    (0.46, 0.57, 0.70),
    (0.75, 0.66, 0.51),
    (0.41, 0.42, 0.26),
    (0.38, 0.27, 0.20),
    (0.89, 0.88, 0.85),
    (0.45, 0.13, 0.17),
)
_DENIMS: tuple[Colour, ...] = ((0.17, 0.22, 0.36), (0.27, 0.37, 0.53), (0.45, 0.56, 0.70), (0.15, 0.15, 0.18))
_SHOES: dict[Colour, float] = {
    (0.10, 0.09, 0.09): 0.36,
    (0.90, 0.90, 0.89): 0.28,
    (0.36, 0.22, 0.14): 0.16,
    (0.45, 0.45, 0.47): 0.10,
    (0.75, 0.14, 0.15): 0.05,
    (0.16, 0.28, 0.55): 0.05,
}
_BAGS: tuple[Colour, ...] = (
    (0.11, 0.11, 0.12),
    (0.30, 0.30, 0.33),
    (0.45, 0.29, 0.17),
    (0.72, 0.16, 0.18),
    (0.16, 0.26, 0.50),
    (0.80, 0.72, 0.55),
    (0.20, 0.42, 0.30),
    (0.88, 0.50, 0.18),
)

_HAIRS_OF_WOMEN: dict[Hair, float] = {"long": 0.35, "ponytail": 0.25, "bob": 0.2, "bun": 0.1, "short": 0.1}
_HAIRS_OF_MEN: dict[Hair, float] = {"short": 0.9, "bald": 0.1}
_CUTS_OF_WOMEN: dict[Cut, float] = {
    "t-shirt": 0.24,
    "tank": 0.08,
    "shirt": 0.08,
    "polo": 0.02,
    "sweater": 0.12,
    "hoodie": 0.08,
    "jacket": 0.08,
    "open": 0.10,
    "coat": 0.06,
    "dress": 0.14,
}
_CUTS_OF_MEN: dict[Cut, float] = {
    "t-shirt": 0.28,
    "tank": 0.03,
    "shirt": 0.14,
    "polo": 0.10,
    "sweater": 0.10,
    "hoodie": 0.12,
    "jacket": 0.10,
    "open": 0.09,
    "coat": 0.04,
}
_LOWERS_OF_WOMEN: dict[Lower, float] = {
    "trousers": 0.2,
    "jeans": 0.26,
    "leggings": 0.14,
    "shorts": 0.14,
    "skirt": 0.18,
    "long-skirt": 0.08,
}
_LOWERS_OF_MEN: dict[Lower, float] = {"trousers": 0.42, "jeans": 0.34, "shorts": 0.24}
_BAGS_OF_WOMEN: dict[Bag, float] = {
    "none": 0.34,
    "backpack": 0.2,
    "shoulder": 0.2,
    "tote": 0.14,
    "messenger": 0.12,
}
_BAGS_OF_MEN: dict[Bag, float] = {
    "none": 0.4,
    "backpack": 0.26,
    "messenger": 0.14,
    "briefcase": 0.12,
    "tote": 0.08,
}
_HATS: dict[Hat, float] = {"none": 0.8, "cap": 0.11, "beanie": 0.06, "sunhat": 0.03}

_PATTERNS: dict[Cut, dict[Pattern, float]] = {
    "jacket": {"plain": 0.75, "two-tone": 0.25},
    "coat": {"plain": 0.75, "two-tone": 0.25},
    "open": {"plain": 1.0},
    "shirt": {"plain": 0.4, "checked": 0.35, "pinstriped": 0.15, "flowered": 0.1},
    "dress": {"plain": 0.35, "striped": 0.15, "checked": 0.15, "dotted": 0.15, "flowered": 0.2},
}
_DEFAULT_PATTERNS: dict[Pattern, float] = {
    "plain": 0.36,
    "logo": 0.22,
    "striped": 0.2,
    "two-tone": 0.12,
    "dotted": 0.05,
    "checked": 0.05,
}
_SKIRT_PATTERNS: dict[Pattern, float] = {"plain": 0.7, "checked": 0.1, "dotted": 0.1, "flowered": 0.1}

_CANDIDATES = 20
"""The number of random candidates for each person, of which the least similar to the others is chosen."""

_LOOK_ALIKE_PERIOD = 8
"""Every eighth person wears nearly the same clothes as another one."""

_WARM: tuple[Cut, ...] = ("sweater", "hoodie", "jacket", "open", "coat")
"""Garments that always have long sleeves."""

_WHOLE_BODY: tuple[Cut, ...] = ("dress", "coat")
"""Garments that hide too much of what distinguishes look-alikes."""


@dataclass(frozen=True)
class Outfit:
    """A person's clothes and bag. second: the colour of the upper garment's pattern or inner shirt."""

    cut: Cut
    pattern: Pattern
    upper: Colour
    second: Colour
    long_sleeves: bool
    lower_kind: Lower
    lower: Colour
    lower_pattern: Pattern
    shoes: Colour
    bag: Bag
    bag_colour: Colour
    hat: Hat
    hat_colour: Colour


@dataclass(frozen=True)
class Person:
    """A drawn person. height: metres. girth, shoulders: widths of body and shoulders; 1 is average."""

    height: float
    girth: float
    shoulders: float
    skin: Colour
    hair: Hair
    hair_colour: Colour
    glasses: bool
    beard: bool
    outfit: Outfit


def dress_people(count: int, rng: np.random.Generator) -> tuple[Person, ...]:
    """`count` persons in different clothes; every _LOOK_ALIKE_PERIOD-th looks nearly like another one."""
    people: list[Person] = []
    known: list[_Features] = []
    for number in range(count):
        if number % _LOOK_ALIKE_PERIOD == _LOOK_ALIKE_PERIOD - 1:
            models = [person for person in people if person.outfit.cut not in _WHOLE_BODY] or people
            candidates = [_look_alike(_choose(rng, models), rng) for _ in range(_CANDIDATES)]
        else:
            candidates = [_person(rng) for _ in range(_CANDIDATES)]
        differences = [_difference(_features(person), known) for person in candidates]
        people.append(candidates[int(np.argmax(differences))])
        known.append(_features(people[-1]))
    return tuple(people)


def _person(rng: np.random.Generator) -> Person:
    woman = bool(rng.random() < 0.5)
    return Person(
        height=float(np.clip(rng.normal(1.64 if woman else 1.76, 0.06), 1.5, 1.95)),
        girth=float(np.clip(rng.normal(0.99 if woman else 1.06, 0.1), 0.85, 1.28)),
        shoulders=float(rng.normal(0.92 if woman else 1.05, 0.03)),
        skin=_choose(rng, _SKINS),
        hair=_sample(rng, _HAIRS_OF_WOMEN if woman else _HAIRS_OF_MEN),
        hair_colour=_sample(rng, _HAIR_COLOURS),
        glasses=bool(rng.random() < 0.2),
        beard=not woman and bool(rng.random() < 0.2),
        outfit=_outfit(woman, rng),
    )


def _outfit(woman: bool, rng: np.random.Generator) -> Outfit:
    cut = _sample(rng, _CUTS_OF_WOMEN if woman else _CUTS_OF_MEN)
    upper = _choose(rng, _UPPERS)
    lower_kind = _sample(rng, _LOWERS_OF_WOMEN if woman else _LOWERS_OF_MEN)
    lowers = {"jeans": _DENIMS, "skirt": _UPPERS}.get(lower_kind, _LOWERS)
    return Outfit(
        cut=cut,
        pattern=_sample(rng, _PATTERNS.get(cut, _DEFAULT_PATTERNS)),
        upper=upper,
        second=_second(cut, upper, rng),
        long_sleeves=cut in _WARM or (cut != "tank" and bool(rng.random() < 0.25)),
        lower_kind=lower_kind,
        lower=_choose(rng, lowers),
        lower_pattern=_sample(rng, _SKIRT_PATTERNS) if lower_kind in ("skirt", "long-skirt", "shorts") else "plain",
        shoes=_sample(rng, _SHOES),
        bag=_sample(rng, _BAGS_OF_WOMEN if woman else _BAGS_OF_MEN),
        bag_colour=_choose(rng, _BAGS),
        hat=_sample(rng, _HATS),
        hat_colour=_choose(rng, _UPPERS),
    )


def _second(cut: Cut, upper: Colour, rng: np.random.Generator) -> Colour:
    """A colour in contrast to the upper garment's; a neutral one under an open jacket."""
    colours, contrast = (_NEUTRALS, 0.6) if cut == "open" else (_UPPERS, 0.75)
    return _choose(rng, [colour for colour in colours if _contrast(colour, upper) > contrast])


def _look_alike(person: Person, rng: np.random.Generator) -> Person:
    """Another person with the same body and upper garment, but another lower one: a deliberately hard case."""
    stranger, worn = _person(rng), person.outfit
    lower = _choose(rng, [colour for colour in _LOWERS if _contrast(colour, worn.lower) > 0.5])
    lower_kind: Lower = "shorts" if worn.lower_kind in ("trousers", "jeans", "leggings") else "trousers"
    return replace(
        stranger,
        height=person.height,
        girth=person.girth,
        shoulders=person.shoulders,
        outfit=replace(
            stranger.outfit,
            cut=worn.cut,
            pattern=worn.pattern,
            upper=worn.upper,
            second=worn.second,
            long_sleeves=worn.long_sleeves,
            lower_kind=lower_kind,
            lower=lower,
        ),
    )


def _difference(features: _Features, others: Sequence[_Features]) -> float:
    """A person's distance to the most similar other person."""
    return float(np.linalg.norm(np.array(others) - features, axis=1).min()) if others else 0.0


def _features(person: Person) -> _Features:
    """Features whose distances are roughly the differences in looks from far away."""
    worn = person.outfit
    dress = worn.cut in ("dress", "coat")
    pattern = 0.0 if worn.pattern == "plain" else 0.2
    return np.array(
        [
            *worn.upper,
            *(np.array(worn.second) * (0.35 if worn.pattern != "plain" or worn.cut == "open" else 0)),
            *(np.array(worn.upper if worn.cut == "dress" else worn.lower) * 0.9),
            pattern,
            0.4 * (worn.lower_kind in ("shorts", "skirt")),
            0.3 * (worn.lower_kind in ("skirt", "long-skirt")),
            0.3 * dress,
            0.25 * worn.long_sleeves,
            0.2 * (worn.bag == "backpack"),
            0.2 * (person.hair in ("long", "bob", "ponytail")),
        ]
    )


def _contrast(first: Colour, second: Colour) -> float:
    return float(np.abs(np.subtract(first, second)).sum())


def _choose(rng: np.random.Generator, options: Sequence[_Option]) -> _Option:
    return options[int(rng.integers(len(options)))]


def _sample(rng: np.random.Generator, weights: Mapping[_Option, float]) -> _Option:
    """A random key; the values are its relative frequencies."""
    shares = np.array(list(weights.values()))
    return list(weights)[int(rng.choice(len(weights), p=shares / shares.sum()))]
