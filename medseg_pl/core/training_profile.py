"""Profile of training images: the ranges that the facts of an image and of its mask may have.

An exported model ships this file: it imports numpy and its neighbors alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medseg_pl.core.fact_limits import MOST_FALSE_ALARMS, Limits, belongs_to, calibrate_label, make_limits
from medseg_pl.core.image_facts import ImageFacts, standardize

_FEWEST_CASES = 3
_MOST_WORDS = 8


@dataclass(frozen=True)
class TrainingProfile:
    """Summary of a model's training cases, without data of any single case.

    It takes a few kilobytes.

    Args:
        cases: How many training cases it was made of.
        limits: Limits of each fact; those of labels have names such as `label.liver.volume`.
        words: The words that training cases had, most common first, such as `{"orientation": ["SAR"]}`.
        template: `(C, d, h, w)` mean pattern.
        spread: Its standard deviations over the training cases.
    """

    cases: int
    limits: Mapping[str, Limits]
    words: Mapping[str, Sequence[str]]
    template: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 1, 1, 1), np.float32))
    spread: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 1, 1, 1), np.float32))

    @cached_property
    def mean_pattern(self) -> Template:
        """The template, made ready once for all images that are compared."""
        return Template(self.template, self.spread)

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
        """Read what `as_dict` returned.

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
    mean = Template(template, spread)
    rows = [
        # Without the case itself, or a few training cases would look more alike than any other does.
        {**facts.numbers, **Template(total - facts.pattern, spread).compare(facts.pattern)}
        if facts.pattern.shape == shape
        else facts.numbers
        for facts in training
    ]
    held_out = [{**facts.numbers, **mean.compare(facts.pattern)} for facts in validation]
    images = make_limits(rows, held_out)
    labels = make_limits([_name_label_facts(mask) for mask in masks])
    words = {
        name: [word for word, _ in Counter(words).most_common(_MOST_WORDS)]
        for name, words in _collect_words([*training, *validation]).items()
    }
    return TrainingProfile(len(training), {**images, **labels}, words, template, spread)


def calibrate_predictions(profile: TrainingProfile, predictions: Sequence[Mapping[str, float]]) -> TrainingProfile:
    """Widen the limits of labels so that validation predictions keep them.

    A label that the model hardly finds in validation says nothing about an image: its limits are dropped. Without
    predictions, the limits of all labels are dropped.

    Args:
        profile: Of the training cases.
        predictions: Facts of the predicted masks of validation cases, and `<label>.dice` where references have it.
    """
    rows = [_name_label_facts(mask) for mask in predictions]
    limits = {name: known for name, known in profile.limits.items() if not name.startswith("label.")}
    labels = sorted({name.removesuffix(".present") for name in profile.limits if name.endswith(".present")})
    for label in labels:
        own = {name: known for name, known in profile.limits.items() if belongs_to(name, label)}
        facts = [{name: value for name, value in row.items() if belongs_to(name, label)} for row in rows]
        # A case is marked for any of its labels, so each of them may do so in a part of the cases alone.
        limits |= calibrate_label(own, [row for row in facts if row], MOST_FALSE_ALARMS / len(labels))
    return replace(profile, limits=limits)


def _name_label_facts(mask: Mapping[str, float]) -> dict[str, float]:
    """Name facts of a mask as the profile does."""
    return {f"label.{name}": value for name, value in mask.items()}


class Template:
    """A mean pattern of training images, made ready for comparing many images with it.

    Args:
        pattern: `(C, d, h, w)`, of any scale.
        spread: How much each cell varies: those that vary little count more.

    >>> image = np.zeros((1, 1, 2, 2)); image[0, 0, 0] = 1
    >>> Template(image).compare(standardize(image[..., ::-1, :]))["turn.flip_height"]
    -1.0
    """

    def __init__(self, pattern: NDArray[Any], spread: NDArray[Any] | None = None) -> None:
        self.shape = pattern.shape
        self.mean = standardize(pattern) if pattern.size else pattern
        self.turns = list(self._weigh_turns(spread)) if pattern.size else []

    def compare(self, pattern: NDArray[Any]) -> dict[str, float]:
        """Correlate a pattern with the training images' mean pattern.

        Args:
            pattern: `(C, d, h, w)`, standardized; nothing is compared where its shape differs.

        Returns:
            `pattern[c]` of each channel, and `turn.<name>` of each mirroring or exchange of axes: the correlation of
            the parts that it changes, 1 for an image like the training images and -1 for one that was turned.
        """
        if pattern.shape != self.shape or not self.mean.size:
            return {}
        channels = (pattern * self.mean).reshape(len(self.mean), -1).sum(axis=1)
        numbers = {f"pattern[{channel}]": float(value) for channel, value in enumerate(channels)}
        for turn in self.turns:
            odd = turn.weights * (pattern - _turn(pattern, turn.name, turn.axes))
            length = float(np.linalg.norm(odd) * turn.length)
            if length > 1e-6:
                numbers[f"turn.{turn.name}"] = round(float((odd * turn.odd).sum()) / length, 5)
        return numbers

    def _weigh_turns(self, spread: NDArray[Any] | None) -> Iterator[_Turn]:
        spread = np.ones_like(self.mean) if spread is None else spread
        # At least half the median, or a single cell that hardly varies would decide alone.
        trust = 1 / np.maximum(spread, max(float(np.median(spread)) / 2, 1e-4))
        for name, axes in _list_turns(self.shape):
            weights = np.minimum(trust, _turn(trust, name, axes))
            odd = weights * (self.mean - _turn(self.mean, name, axes))
            yield _Turn(name, axes, weights, odd, np.linalg.norm(odd))


class _Turn(NamedTuple):
    """A mirroring or exchange of axes, with what it changes in the mean pattern."""

    name: str
    axes: tuple[int, ...]
    weights: NDArray[Any]
    odd: NDArray[Any]
    length: np.floating[Any]


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


def _pack(pattern: NDArray[Any]) -> dict[str, Any]:
    return {"shape": list(pattern.shape), "values": [round(float(value), 4) for value in pattern.ravel()]}


def _unpack(plain: Mapping[str, Any]) -> NDArray[np.float32]:
    return np.asarray(plain["values"], np.float32).reshape(plain["shape"])


def _round(value: float) -> float:
    return float(f"{value:.5g}")
