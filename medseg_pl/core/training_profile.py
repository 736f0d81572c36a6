"""Profile of training images: the ranges that the facts of an image and of its mask may have.

An exported model ships this file: it imports numpy and its neighbors alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medseg_pl.core.image_facts import ImageFacts, standardize

MOST_FALSE_ALARMS = 0.02
"""Of the validation cases, this share may lie outside the limits."""

_TOLERANCES = {
    "offset": 0.1,
    "flat": 0.1,
    "constant": 0.03,
    "step": 0.2,
    "filled": 0.1,
    "grain": 0.05,
    "continuity": 0.08,
    "span": 0.1,
    "shape": 0.05,
    "at_low": 0.5,
    "at_high": 0.5,
    "noise": 0.15,
    "sharpness": 0.06,
    "color": 0.2,
    "blank": 0.5,
    "spacing": 0.04,
    "size": 0.2,
    "extent": 0.2,
    "pattern": 0.1,
    "turn": 0.05,
    "volume": 0.15,
    "share": 0.15,
    "center": 0.05,
    "label_extent": 0.08,
    "present": 0.0,
}
"""How far outside the training cases a fact may be at least, in its own unit."""

_OPEN_ABOVE = ("pattern", "turn", "present")
"""More of these is always better."""

_LABEL_FACTS = ("volume", "share", "present", "center", "extent")
_FEWEST_CASES = 3
_MOST_UNRELIABLE = 0.3
_SPREADS, _SPREADS_OF_FEW = 2.0, 8.0
_TOLERANCES_OF_FEW = 6.0
_OVERSHOOT = 1.5
_TAIL = 0.0025
_MOST_WORDS = 8


class Limits(NamedTuple):
    """Limits of one fact.

    Attributes:
        low: The least value that raises no finding.
        high: The largest.
        least: The least value among the training cases.
        most: The largest.
    """

    low: float
    high: float
    least: float
    most: float

    def measure_excess(self, value: float) -> float:
        """Measure how far a value lies outside, in ranges of the training cases; 0 inside.

        >>> Limits(0.0, 2.0, 0.5, 1.5).measure_excess(3.0)
        1.0
        """
        outside = max(self.low - value, value - self.high, 0.0)
        return outside / max(self.most - self.least, 1e-9)


@dataclass(frozen=True)
class TrainingProfile:
    """What the training cases of a model were like, in a few kilobytes without anything of a single case.

    Args:
        cases: How many training cases it was made of.
        limits: Of each fact; those of labels by names such as `label.liver.volume`.
        words: The words that training cases had, most common first, such as `{"orientation": ["SAR"]}`.
        template: `(C, d, h, w)` mean pattern.
        spread: Its standard deviations over the training cases.
    """

    cases: int
    limits: Mapping[str, Limits]
    words: Mapping[str, Sequence[str]]
    template: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 1, 1, 1), np.float32))
    spread: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 1, 1, 1), np.float32))

    @property
    def orientation(self) -> str | None:
        """Axis codes of most training slices, where they were known."""
        return next(iter(self.words.get("orientation", ())), None)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data, rounded to five digits."""
        return {
            "cases": self.cases,
            "limits": {name: [_round(value) for value in limits] for name, limits in self.limits.items()},
            "words": {name: list(words) for name, words in self.words.items()},
            "template": _pack(self.template),
            "spread": _pack(self.spread),
        }

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> TrainingProfile:
        """Read what `as_dict` gave.

        Raises:
            ValueError: It is something else.
        """
        try:
            limits = {
                str(name): Limits(*(float(value) for value in values)) for name, values in plain["limits"].items()
            }
            words = {str(name): [str(word) for word in listed] for name, listed in plain["words"].items()}
            return cls(int(plain["cases"]), limits, words, _unpack(plain["template"]), _unpack(plain["spread"]))
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"no profile of training images: {error}") from error


def describe_training(
    training: Sequence[ImageFacts],
    masks: Sequence[Mapping[str, float]],
    validation: Sequence[ImageFacts] = (),
) -> TrainingProfile | None:
    """Describe the training cases, with limits that the validation cases keep.

    Args:
        training: Facts of the training images.
        masks: Facts of their references, see `measure_mask`.
        validation: Facts of the validation images.

    Returns:
        Limits of the predictions' facts are those of the references until `calibrate_predictions` widens them. `None`
        where the training cases are too few to say what others may be like.
    """
    if len(training) < _FEWEST_CASES:
        return None
    # Pictures and volumes, or cases of other channels, have patterns that cannot be averaged.
    shapes = Counter(facts.pattern.shape for facts in training)
    shape = shapes.most_common(1)[0][0]
    patterns = np.stack([facts.pattern for facts in training if facts.pattern.shape == shape]).astype(np.float64)
    total = patterns.sum(axis=0)
    template, spread = standardize(total), patterns.std(axis=0).astype(np.float32)
    rows = [
        # Without the case itself, or a few training cases would look more alike than any other does.
        {**facts.numbers, **compare_pattern(facts.pattern, total - facts.pattern, spread)}
        if facts.pattern.shape == shape
        else facts.numbers
        for facts in training
    ]
    held_out = [{**facts.numbers, **compare_pattern(facts.pattern, template, spread)} for facts in validation]
    images = _make_limits(rows, held_out)
    labels = _make_limits([{f"label.{name}": value for name, value in mask.items()} for mask in masks], [])
    words = {
        name: [word for word, _ in Counter(words).most_common(_MOST_WORDS)]
        for name, words in _collect_words([*training, *validation]).items()
    }
    return TrainingProfile(len(training), {**images, **labels}, words, template, spread)


def calibrate_predictions(profile: TrainingProfile, predictions: Sequence[Mapping[str, float]]) -> TrainingProfile:
    """Widen the limits of labels so that predictions of validation cases keep them.

    A label that the model hardly finds there says nothing about an image: its limits are dropped, and without
    predictions those of all labels are.

    Args:
        profile: Of the training cases.
        predictions: Facts of the predicted masks of validation cases.
    """
    rows = [{f"label.{name}": value for name, value in mask.items()} for mask in predictions]
    limits = {name: known for name, known in profile.limits.items() if not name.startswith("label.")}
    labels = sorted({name.removesuffix(".present") for name in profile.limits if name.endswith(".present")})
    for label in labels:
        own = {name: known for name, known in profile.limits.items() if _belongs_to(name, label)}
        outside = [any(known.measure_excess(row.get(name, known.least)) for name, known in own.items()) for row in rows]
        if not rows or np.mean(outside) > _MOST_UNRELIABLE:
            continue  # limits as wide as such predictions would catch nothing
        for name, known in own.items():
            values = np.array([row[name] for row in rows if name in row])
            limits[name] = _widen(known, values, (known.most - known.least) / 4)
    return replace(profile, limits=limits)


def _belongs_to(name: str, label: str) -> bool:
    """Tell whether a fact is of a label, which may be the beginning of another one's name."""
    return name.startswith(f"{label}.") and name.removeprefix(f"{label}.").split(".")[0] in _LABEL_FACTS


def compare_pattern(
    pattern: NDArray[Any], template: NDArray[Any], spread: NDArray[Any] | None = None
) -> dict[str, float]:
    """Correlate a pattern with the training images' mean, as it is and in what a turn changes.

    Args:
        pattern: `(C, d, h, w)`, standardized.
        template: Of the same shape; otherwise nothing is compared.
        spread: How much each cell varies: those that vary little count more.

    Returns:
        `pattern[c]` of each channel, and `turn.<name>` of each mirroring or exchange of axes: the correlation of the
        parts that it changes, 1 for an image like the training images and -1 for one that was turned.

    >>> image = np.zeros((1, 1, 2, 2)); image[0, 0, 0] = 1
    >>> compare_pattern(standardize(image[..., ::-1, :]), image)["turn.flip_height"]
    -1.0
    """
    if pattern.shape != template.shape or not template.size:
        return {}
    mean = standardize(template)
    channels = (pattern * mean).reshape(len(mean), -1).sum(axis=1)
    numbers = {f"pattern[{channel}]": float(value) for channel, value in enumerate(channels)}
    spread = np.ones_like(mean) if spread is None else spread
    # At least half the median, or a single cell that hardly varies would decide alone.
    trust = 1 / np.maximum(spread, max(float(np.median(spread)) / 2, 1e-4))
    for name, axes in _list_turns(template.shape):
        weights = np.minimum(trust, _turn(trust, name, axes))
        odd, odd_mean = weights * (pattern - _turn(pattern, name, axes)), weights * (mean - _turn(mean, name, axes))
        length = float(np.linalg.norm(odd) * np.linalg.norm(odd_mean))
        if length > 1e-6:
            numbers[f"turn.{name}"] = round(float((odd * odd_mean).sum()) / length, 5)
    return numbers


def _list_turns(shape: Sequence[int]) -> list[tuple[str, tuple[int, ...]]]:
    turns = [("flip_height", (2,)), ("flip_width", (3,)), ("transpose", (2, 3))]
    if shape[1] > 1:
        turns += [("flip_depth", (1,)), ("exchange_depth_height", (1, 2)), ("exchange_depth_width", (1, 3))]
    return turns


def _turn(pattern: NDArray[Any], name: str, axes: tuple[int, ...]) -> NDArray[Any]:
    return np.flip(pattern, axes) if name.startswith("flip") else pattern.swapaxes(*axes)


def _collect_words(facts: Iterable[ImageFacts]) -> dict[str, list[str]]:
    collected: dict[str, list[str]] = {}
    for each in facts:
        for name, word in each.words.items():
            collected.setdefault(name, []).append(word)
    return collected


def _make_limits(rows: Sequence[Mapping[str, float]], held_out: Sequence[Mapping[str, float]]) -> dict[str, Limits]:
    limits = {}
    for name in sorted({name for row in rows for name in row}):
        values = np.array([row[name] for row in rows if name in row])
        # The fewer cases there are, the less their range says of the next one.
        tolerance = (1 + _TOLERANCES_OF_FEW / len(values)) * _TOLERANCES[_find_kind(name)]
        slack = tolerance + (_SPREADS + _SPREADS_OF_FEW / len(values)) * _measure_spread(values)
        if name.endswith(".present"):
            # Absent in a single training case is enough: the label may be absent.
            limits[name] = Limits(0.5 if values.min() > 0 else -1.0, 2.0, float(values.min()), float(values.max()))
            continue
        least, most = (float(end) for end in np.quantile(values, (_TAIL, 1 - _TAIL)))
        high = 1e9 if _find_kind(name) in _OPEN_ABOVE else most + slack
        # Below 0 an image is more like the turned training images than like the others.
        low = min(0.0, least - slack) if _find_kind(name) == "turn" else least - slack
        base = Limits(low, high, least, most)
        limits[name] = _widen(base, np.array([row[name] for row in held_out if name in row]), slack / 2)
    return limits


def _measure_spread(values: NDArray[np.float64]) -> float:
    """Measure half of what the middle two thirds span: a standard deviation that outliers leave alone."""
    low, high = np.quantile(values, (1 / 6, 5 / 6))
    return float(high - low) / 2


def _widen(limits: Limits, values: NDArray[np.float64], slack: float) -> Limits:
    """Widen limits so that all but a few validation cases keep them with something to spare."""
    if not len(values):
        return limits
    low, high = np.quantile(values, (MOST_FALSE_ALARMS / 2, 1 - MOST_FALSE_ALARMS / 2))
    below, above = max(0.0, limits.least - low), max(0.0, high - limits.most)
    if limits.low == 0.5 and low < 0.5:  # a label that validation's predictions miss, too
        return limits._replace(low=-1.0)
    return limits._replace(
        low=min(limits.low, limits.least - _OVERSHOOT * below - slack * (below > 0)),
        high=max(limits.high, limits.most + _OVERSHOOT * above + slack * (above > 0)),
    )


def _find_kind(name: str) -> str:
    """Find the kind of a fact in its name.

    >>> [_find_kind(name) for name in ("shape10[0]", "turn.flip_width", "label.left lung.extent.depth")]
    ['shape', 'turn', 'label_extent']
    """
    if name.startswith("label."):
        parts = name.removeprefix("label.").split(".")
        # A label's name may hold dots: the fact is the last word that is one.
        last = next(part for part in reversed(parts) if part in _LABEL_FACTS)
        return "label_extent" if last == "extent" else last
    return name.split("[", maxsplit=1)[0].split(".", maxsplit=1)[0].rstrip("0123456789")


def _pack(pattern: NDArray[Any]) -> dict[str, Any]:
    return {"shape": list(pattern.shape), "values": [round(float(value), 4) for value in pattern.ravel()]}


def _unpack(plain: Mapping[str, Any]) -> NDArray[np.float32]:
    return np.asarray(plain["values"], np.float32).reshape(plain["shape"])


def _round(value: float) -> float:
    return float(f"{value:.5g}")
