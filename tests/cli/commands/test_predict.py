"""What `medseg predict` is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser

from medseg_pl.cli.commands.predict import PredictOptions, add_options, raise_faults
from medseg_pl.core.errors import DataError, SettingError
from medseg_pl.training.prediction import Outcome, summarize_outcomes


def parsed(*arguments: str) -> Namespace:
    parser = LightningArgumentParser()
    add_options(parser)
    return parser.parse_args(list(arguments))


def test_masks_alone_unless_more_is_asked_for(tmp_path: Path) -> None:
    images, masks = tmp_path / "images", tmp_path / "masks"
    asked = parsed(f"--input={images}", f"--output={masks}")
    assert PredictOptions.from_namespace(asked) == PredictOptions(
        images, masks, probabilities=False, overlays=False, review=False, review_top=20, on_foreign="mark"
    )
    more = parsed(f"--input={images}", f"--output={masks}", "--review=true", "--review_top=3")
    assert PredictOptions.from_namespace(more)[2:] == (False, False, True, 3, "mark")
    switched = parsed(f"--input={images}", "--overlays", f"--output={masks}", "--review")
    assert PredictOptions.from_namespace(switched)[2:5] == (False, True, True)


@pytest.mark.parametrize("output", ["images", "images/masks", "images/../images/masks"])
def test_masks_do_not_go_among_the_images(tmp_path: Path, output: str) -> None:
    asked = parsed(f"--input={tmp_path / 'images'}", f"--output={tmp_path / output}")
    with pytest.raises(SettingError, match=r"lies inside --input .* Choose a folder outside"):
        PredictOptions.from_namespace(asked)


def test_a_folder_beside_the_images_with_their_name_in_front_is_fine(tmp_path: Path) -> None:
    asked = parsed(f"--input={tmp_path / 'images'}", f"--output={tmp_path / 'images_masks'}")
    assert PredictOptions.from_namespace(asked).folder == tmp_path / "images_masks"


def test_a_single_input_that_fails_has_no_others() -> None:
    failed = Outcome("a.png", "a", "failed", "Case a: broken.")
    with pytest.raises(DataError, match=r"^1 of 1 input could not be predicted\. Case a: broken\. "):
        raise_faults([failed], Path("masks"))
    with pytest.raises(DataError, match=r"^1 of 2 inputs could not be predicted; the others were\. Case a: broken\. "):
        raise_faults([failed, Outcome("b.png", "b", "written", "")], Path("masks"))


def test_what_is_no_image_is_no_input_and_is_counted_apart() -> None:
    written = [Outcome(f"{name}.png", name, "written") for name in "abc"]
    failed = [Outcome(f"{name}.png", name, "failed", f"Case {name}: broken.") for name in "de"]
    notes = Outcome("notes.txt", "", "no image", "A text, no image.")
    with pytest.raises(DataError, match=r"^2 of 5 inputs could not be predicted; the others were\. "):
        raise_faults([*written, *failed, notes], Path("masks"))
    with pytest.raises(DataError, match=r"^2 of 2 inputs could not be predicted\. "):
        raise_faults([*failed, notes], Path("masks"))
    with pytest.raises(DataError, match=r"^1 of 1 input is unlike"):
        raise_faults([Outcome("a.png", "a", "marked", "F105 Dark."), notes], Path("masks"))
    said = summarize_outcomes([*written, *failed, notes], Path("masks"))
    assert said == "3 cases written to masks; 2 failed; 1 file left out, see predictions.csv"


def test_inputs_that_were_not_asked_for_do_not_count_as_predicted() -> None:
    failed, written = Outcome("a.png", "a", "failed", "Case a: broken."), Outcome("b.png", "b", "written")
    beyond = [Outcome(f"{name}.png", name, "not asked for", "Beyond trainer.limit_predict_batches.") for name in "cd"]
    with pytest.raises(DataError, match=r"^1 of 4 inputs could not be predicted; 1 was\. "):
        raise_faults([failed, written, *beyond], Path("masks"))


def test_faults_of_one_kind_are_told_once() -> None:
    remedy = "has 3 channels, but the model takes 1. Save it in gray, or choose a model of such images."
    names = [f"image {number:02d}" for number in range(45)]
    colored = [Outcome(f"a/{name}.png", name, "failed", f"Case {name} (in/a/{name}.png) {remedy}") for name in names]
    broken = Outcome("b.png", "b", "failed", "in/b.png (8 bytes) cannot be decoded.")
    unread = [Outcome(f"{name}.npy", "", "not read", "npy is not read.") for name in "cd"]
    with pytest.raises(DataError) as caught:
        raise_faults([*colored, broken, *unread], Path("masks"))
    assert str(caught.value) == (
        "48 of 48 inputs could not be predicted. "
        f"Case image 00 (in/a/image 00.png) {remedy} The same holds for a/image 01.png, a/image 02.png, "
        "a/image 03.png and 41 more. in/b.png (8 bytes) cannot be decoded. c.npy: npy is not read. The same holds for "
        "d.npy. masks/predictions.csv lists them all."
    )


def test_marks_of_one_kind_are_told_once() -> None:
    reason = "F105 The middle is darker."
    marked = [Outcome(f"{number}.png", str(number), "marked", reason) for number in range(12)]
    with pytest.raises(DataError, match=r"0\.png, 1\.png, 2\.png and 9 more: [^.]* \(F105\)\. masks") as caught:
        raise_faults(marked, Path("masks"))
    assert str(caught.value).count("F105") == 1
