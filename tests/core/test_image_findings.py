"""Images unlike those of a profile are found, each by its code, and those like them raise nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from medseg_pl.core.fact_limits import Limits, make_limits
from medseg_pl.core.image_facts import measure_image, measure_mask
from medseg_pl.core.image_findings import (
    CODES,
    ImageFinding,
    compare_image,
    compare_mask,
    has_warning,
    merge_findings,
)
from medseg_pl.core.training_profile import TrainingProfile, calibrate_predictions, describe_training

Image = NDArray[Any]
NAMES = ("left", "right")
NOTHING = np.zeros((0, 1, 1, 1), np.float32)


def draw_image(seed: int, channels: int = 1) -> Image:
    """Draw a body with a bright organ on one side, whose size and brightness vary."""
    rng = np.random.default_rng(seed)
    z, y, x = np.meshgrid(np.arange(12), np.arange(48), np.arange(40), indexing="ij")
    body = ((y - 24) / 20) ** 2 + ((x - 20) / 16) ** 2 < rng.uniform(0.9, 1.0)
    organ = ((y - 14) / 6) ** 2 + ((x - 12) / 5) ** 2 + ((z - 3) / 3) ** 2 < rng.uniform(0.9, 1.1)
    image = 20 + 300 * body * rng.uniform(0.9, 1.1) + 500 * organ + rng.normal(0, 15, body.shape)
    return np.stack([image * (1 + 2 * channel) for channel in range(channels)]).clip(0).astype(np.float32)


def draw_mask(seed: int) -> list[Image]:
    rng = np.random.default_rng(seed)
    planes = [np.zeros((12, 48, 40), bool) for _ in NAMES]
    for plane, start in zip(planes, (4, 24), strict=True):
        top = 10 + rng.integers(3)
        plane[3:9, top : top + 16 + rng.integers(3), start : start + 10] = True
    return planes


def find(facts: dict[str, float], dice: float = 0.9) -> dict[str, float]:
    """Say of each label in a mask how well it overlaps with the reference."""
    return facts | {f"{name}.dice": dice * facts[f"{name}.present"] for name in NAMES}


def make_profile(channels: int = 1, cases: int = 20, orientation: str | None = "SAR") -> TrainingProfile:
    spacing = (3.0, 1.0, 1.0)
    training = [measure_image(draw_image(seed, channels), spacing, orientation) for seed in range(cases)]
    validation = [measure_image(draw_image(100 + seed, channels), spacing, orientation) for seed in range(5)]
    masks = [measure_mask(draw_mask(seed), NAMES, spacing) for seed in range(cases)]
    predictions = [find(measure_mask(draw_mask(100 + seed), NAMES, spacing)) for seed in range(5)]
    profile = describe_training(training, masks, validation)
    assert profile is not None
    return calibrate_predictions(profile, predictions)


PROFILE, COLORED = make_profile(), make_profile(channels=3)


def find_codes(
    image: Image,
    profile: TrainingProfile = PROFILE,
    spacing: tuple[float, float, float] | None = (3.0, 1.0, 1.0),
    orientation: str | None = "SAR",
    **words: str,
) -> set[str]:
    findings = compare_image(measure_image(image, spacing, orientation, **words), profile)
    return {finding.code for finding in findings if finding.level == "warning"}


@pytest.mark.parametrize("profile", [PROFILE, COLORED], ids=["gray", "color"])
def test_images_of_the_same_kind_raise_nothing(profile: TrainingProfile) -> None:
    channels = len(profile.template)
    assert [seed for seed in range(200, 260) if find_codes(draw_image(seed, channels), profile)] == []


@pytest.mark.parametrize(
    ("code", "change"),
    [
        ("F101", lambda image: 10 * image),
        ("F101", lambda image: image / 10),
        ("F101", lambda image: image + 1000),
        ("F101", np.sqrt),
        ("F103", lambda image: image[..., ::-1]),
        ("F103", lambda image: image[..., ::-1, :]),
        ("F103", lambda image: image[:, ::-1]),
        ("F105", lambda image: image.max() - image),
        ("F105", lambda image: -image),
        ("F108", np.zeros_like),
        ("F109", lambda image: image.clip(None, 200)),
        ("F110", lambda image: image + np.random.default_rng(0).normal(0, 200, image.shape)),
        ("F111", lambda image: image.repeat(3, -1).repeat(3, -2)[..., ::1, ::1]),
        ("F112", lambda image: image[..., :24, :20]),
        ("F112", lambda image: np.pad(image, ((0, 0), (0, 0), (24, 24), (20, 20)))),
        ("F113", lambda image: np.random.default_rng(0).uniform(0, 800, image.shape)),
    ],
)
def test_a_changed_image_is_found_by_its_code(code: str, change: Callable[[Image], Image]) -> None:
    assert code in find_codes(change(draw_image(300)).astype(np.float32))


class TestSentences:
    """What was measured, what is here, and what training had."""

    def describe(self, name: str, value: float, least: float, most: float, channels: int = 1) -> str:
        facts = measure_image(draw_image(300, channels), (3.0, 1.0, 1.0))
        others = {f"{name.split('[', maxsplit=1)[0]}[{channel}]": Limits(-9, 9, -9, 9) for channel in range(channels)}
        known = replace(PROFILE, limits={**others, name: Limits(least, most, least, most)}, template=NOTHING, words={})
        (finding,) = compare_image(replace(facts, numbers={name: value}), known)
        return finding.message

    @pytest.mark.parametrize(
        ("name", "value", "least", "most", "sentence"),
        [
            ("repeated[0]", 0.0576, 0.0, 0.0, "The share of columns that equal the column beside them is 5.76 %"),
            ("shape50[0]", 0.8, 0.2, 0.4, "The value below which 50 % of the pixels lie, as a share of the range of "),
            ("sharpness4[0]", 0.9, 0.2, 0.4, "The mean difference between pixels 4 apart, divided by that between "),
            ("at_low[0]", -3.0, -1.0, -0.5, "The share of pixels with the darkest value is 0 %; training had 9.9 to "),
            ("offset[0]", -1.0, 0.0, 0.1, "The darkest value, divided by the range of values, is -1; training had 0 "),
            ("size.width", 12.0, 8.0, 9.0, "The size along the width is 4096 pixels; training had 256 to 512 pixels."),
            ("spacing.width", 1.0, 0.0, 0.0, "The spacing along the width is 10 mm; training had 1 mm."),
        ],
    )
    def test_of_an_image(self, name: str, value: float, least: float, most: float, sentence: str) -> None:
        assert self.describe(name, value, least, most).startswith(sentence)

    def test_of_one_channel(self) -> None:
        message = self.describe("noise[1]", -1.0, -3.0, -2.0, channels=3)
        assert message.startswith("In channel 1 the noise, as a share of the range of values, is 10 %; training had")
        message = self.describe("color[1]", -1.0, -3.0, -2.0, channels=3)
        assert message.startswith("The mean difference between channels 1 and 2, as a share of the range of values, is")

    def test_every_fact_has_a_short_one(self) -> None:
        facts = measure_image(draw_image(300, 2), (3.0, 1.0, 1.0)).numbers
        for name in facts.keys() - {"blank[0]", "blank[1]"}:
            message = self.describe(name, facts[name], facts[name] + 1, facts[name] + 2)
            assert re.fullmatch(r"(The|In channel \d the) [^{}]* is [-0-9.e]+[^;]*; training had [^{}]*\.", message)
            assert len(message) <= 180, message
        assert self.describe("blank[1]", 1.0, -1.0, 0.5, channels=2) == "Channel 1 has one value almost everywhere."

    @pytest.mark.parametrize(
        ("shape", "spacing", "sentence"),
        [
            ((1, 40, 50), None, "left: its area is 2000 pixels; training had 1 to 10 pixels."),
            ((2, 40, 50), None, "left: its volume is 4000 voxels; training had 1 to 10 voxels."),
            ((1, 40, 50), (1.0, 1.0, 1.0), "left: its volume is 2 ml; training had 10 to 100 ml."),
        ],
    )
    def test_of_a_size(self, shape: tuple[int, ...], spacing: tuple[float, float, float] | None, sentence: str) -> None:
        facts = measure_mask([np.ones(shape)], ["left"], spacing)
        known = Limits(1, 2, 1, 2) if spacing else Limits(0, 1, 0, 1)
        limits = {"label.left.volume": known, **({"spacing.width": Limits(0, 1, 0, 1)} if spacing else {})}
        (finding,) = compare_mask(facts, replace(PROFILE, limits=limits), ["left"], spaced=spacing is not None)
        assert (finding.code, finding.message) == ("F202", sentence)

    def test_of_a_place(self) -> None:
        plane = np.zeros((1, 50, 50))
        plane[0, :10] = 1
        facts = measure_mask([plane], ["left"])
        known = replace(PROFILE, limits={"label.left.center.height": Limits(0.4, 0.6, 0.4, 0.6)})
        (finding,) = compare_mask(facts, known, ["left"])
        assert finding.message == (
            "left: its middle, as a share of the image's height, is 10 %; training had 40 to 60 %."
        )


class TestHeaders:
    def test_another_spacing(self) -> None:
        assert find_codes(draw_image(300), spacing=(3.0, 2.0, 2.0)) >= {"F102"}

    def test_another_orientation(self) -> None:
        assert find_codes(draw_image(300), orientation="SPR") == {"F103"}

    def test_another_modality(self) -> None:
        known = replace(PROFILE, words={**PROFILE.words, "modality": ["MR"]})
        assert find_codes(draw_image(300), known, modality="CT") == {"F106"}
        assert find_codes(draw_image(300), known, modality="MR") == set()

    def test_bytes_have_no_room_for_the_range_of_training(self) -> None:
        image = draw_image(300)
        spread = [Limits(each.low - 3, each.high, each.least, each.most) for each in PROFILE.limits.values()]
        faint = replace(PROFILE, limits=dict(zip(PROFILE.limits, spread, strict=True)))
        exported = (255 * image / image.max()).astype(np.uint8)
        messages = [str(each) for each in compare_image(measure_image(exported, (3.0, 1.0, 1.0), "SAR"), faint)]
        told = "F101 The pixels are of type uint8; training had float32 with a range of at least"
        assert any(told in message for message in messages)
        assert "F101" not in find_codes((image / 2).astype(np.float32), faint)

    def test_what_is_not_known_is_a_note(self) -> None:
        findings = compare_image(measure_image(draw_image(300)), PROFILE)
        assert [(finding.code, finding.level) for finding in findings] == [("F102", "note"), ("F103", "note")]
        assert not has_warning(findings)


class TestColors:
    @pytest.mark.parametrize("order", [(2, 1, 0), (1, 2, 0), (1, 0, 2)])
    def test_exchanged_channels(self, order: Sequence[int]) -> None:
        assert "F104" in find_codes(draw_image(300, 3)[list(order)], COLORED)

    def test_gray_stored_as_color(self) -> None:
        assert "F107" in find_codes(draw_image(300, 3)[[1, 1, 1]], COLORED)


class TestMasks:
    def find_codes(self, planes: Sequence[Image], profile: TrainingProfile = PROFILE) -> list[str]:
        facts = measure_mask(planes, NAMES, (3.0, 1.0, 1.0))
        return [
            f"{each.code} {each.message.split(':')[0]}" for each in compare_mask(facts, profile, NAMES, spaced=True)
        ]

    def test_masks_of_the_same_kind_raise_nothing(self) -> None:
        assert [seed for seed in range(200, 300) if self.find_codes(draw_mask(seed))] == []

    def test_a_label_that_is_never_absent(self) -> None:
        left, right = draw_mask(300)
        assert self.find_codes([left, np.zeros_like(right)]) == ["F201 right"]

    def test_a_label_that_may_be_absent(self) -> None:
        training = [measure_image(draw_image(seed)) for seed in range(5)]
        masks = [
            measure_mask([left, right & (seed > 0)], NAMES) for seed in range(5) for left, right in [draw_mask(seed)]
        ]
        profile = describe_training(training, masks)
        assert profile is not None
        profile = calibrate_predictions(profile, [find(mask) for mask in masks])
        facts = measure_mask([draw_mask(300)[0], np.zeros((12, 48, 40))], NAMES)
        assert compare_mask(facts, profile, NAMES) == []

    def test_both_labels_on_the_other_side(self) -> None:
        assert {"F203 left", "F203 right"} <= set(self.find_codes(draw_mask(300)[::-1]))

    def test_ten_times_the_volume(self) -> None:
        left, right = draw_mask(300)
        assert "F202 left" in self.find_codes([np.ones_like(left), right])

    def test_a_label_that_validation_does_not_find_is_not_judged(self) -> None:
        training = [measure_image(draw_image(seed)) for seed in range(5)]
        profile = describe_training(training, [measure_mask(draw_mask(seed), NAMES) for seed in range(5)])
        assert profile is not None
        nothing = np.zeros((12, 48, 40))
        found = [find(measure_mask([draw_mask(seed)[0], nothing], NAMES)) for seed in range(100, 105)]
        limits = calibrate_predictions(profile, found).limits
        assert "label.left.volume" in limits
        assert not [name for name in limits if name.startswith("label.right")]

    @pytest.mark.parametrize(("dice", "judged"), [(0.2, set()), (0.9, {"left", "right"})])
    def test_labels_in_the_wrong_place_are_not_judged(self, dice: float, judged: set[str]) -> None:
        found = [find(measure_mask(draw_mask(seed), NAMES, (3.0, 1.0, 1.0)), dice) for seed in range(100, 105)]
        limits = calibrate_predictions(PROFILE, found).limits
        assert {name.split(".")[1] for name in limits if name.startswith("label.")} == judged

    def test_few_predictions_judge_presence_and_no_shape(self) -> None:
        found = [find(measure_mask(draw_mask(100), NAMES, (3.0, 1.0, 1.0)))]
        limits = calibrate_predictions(PROFILE, found).limits
        assert {name for name in limits if name.startswith("label.")} == {f"label.{name}.present" for name in NAMES}

    def test_a_label_nearly_missed_may_be_absent(self) -> None:
        found = [find(measure_mask(draw_mask(seed), NAMES, (3.0, 1.0, 1.0))) for seed in range(100, 120)]
        tiny = np.zeros((12, 48, 40))
        tiny[4, 12, 30] = 1
        found[0] = find(measure_mask([draw_mask(100)[0], tiny], NAMES, (3.0, 1.0, 1.0)))
        limits = calibrate_predictions(PROFILE, found).limits
        assert "label.left.present" in limits and "label.right.present" not in limits

    def test_a_case_in_fifty_may_lie_outside_whatever_the_fact(self) -> None:
        """Predictions vary more than references: of 1000 new ones, few of those that validation was like are marked."""
        rng = np.random.default_rng(0)

        def predict() -> list[Image]:
            return [np.roll(plane, rng.integers(-2, 3, 3), axis=(0, 1, 2)) for plane in draw_mask(rng.integers(10**6))]

        for few in (4, 10, 40):
            found = [find(measure_mask(predict(), NAMES, (3.0, 1.0, 1.0))) for _ in range(few)]
            profile = calibrate_predictions(PROFILE, found)
            assert sum(bool(self.find_codes(predict(), profile)) for _ in range(200)) <= 4

    def test_without_predictions_no_label_is_judged(self) -> None:
        limits = calibrate_predictions(PROFILE, []).limits
        assert limits and not [name for name in limits if name.startswith("label.")]


class TestProfile:
    def test_it_is_small_and_comes_back_from_json(self) -> None:
        text = json.dumps(PROFILE.as_dict())
        assert len(text) < 12_000
        again = TrainingProfile.from_dict(json.loads(text))
        assert again.as_dict() == PROFILE.as_dict()
        assert again.orientation == "SAR"

    def test_a_few_cases_make_none(self) -> None:
        assert describe_training([measure_image(draw_image(0))] * 2, []) is None

    @pytest.mark.parametrize("plain", [{}, {"limits": 3}, {"cases": 1, "limits": {"a": ["x"]}, "words": {}}])
    def test_damage_is_a_value_error(self, plain: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=r"profile|argument|convert"):
            TrainingProfile.from_dict(plain)

    def test_each_code_has_a_meaning_and_a_remedy(self) -> None:
        assert all(code.meaning and code.remedy.endswith(".") for code in CODES.values())
        assert list(CODES) == sorted(CODES)


@pytest.mark.parametrize(
    ("validation", "factor"),
    # 0.02 ** (-1 / (n + 1)) - 1 for n cases within the training range; at least 1, and at most 2.
    [(0, 1.0), (1, 2.0), (4, 1.1867), (40, 1.0)],
)
def test_few_validation_cases_widen_the_limits(validation: int, factor: float) -> None:
    limits = make_limits([{"noise[0]": 1.0}] * 4, [{"noise[0]": 1.0}] * validation)["noise[0]"]
    # Four equal values: no spread, and a tolerance of 0.15 that is (1 + 6 / 4) times as wide.
    assert limits == pytest.approx((1 - factor * 0.375, 1 + factor * 0.375, 1.0, 1.0), abs=1e-3)


def test_a_validation_case_near_the_limit_widens_all_limits() -> None:
    rows = [{"noise[0]": 1.0, "sharpness1[0]": 0.5}] * 4
    # It reaches 0.225 of 0.375: (1 + 0.6) times 0.02 ** (-1 / 2) - 1, of which at most 2 counts.
    limits = make_limits(rows, [{"noise[0]": 1.225, "sharpness1[0]": 0.5}])
    assert limits["sharpness1[0]"].low == pytest.approx(0.5 - 2 * 2.5 * 0.06)


def test_a_blank_image_is_found_after_few_training_cases() -> None:
    limits = make_limits([{"blank[0]": 0.0}] * 3, [{"blank[0]": 0.0}])["blank[0]"]
    assert limits.low < 0 < limits.high < 1


def test_half_the_models_of_an_ensemble_decide() -> None:
    left, right, dark = (
        ImageFinding(*each)
        for each in [("F202", "warning", "left"), ("F202", "warning", "right"), ("F101", "warning", "dark")]
    )
    assert merge_findings([[left, right]]) == [left, right]
    assert merge_findings([[left], [right, dark]]) == [dark, left]
    assert merge_findings([[left, right], [dark], [left]]) == [left, right]
    assert merge_findings([[], [], [dark]]) == []
