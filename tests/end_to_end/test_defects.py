"""Every kind of fault, planted into an otherwise clean data set, is found with its code and no other."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medseg_pl.checks import CODES
from medseg_pl.checks.settings import read_settings
from medseg_pl.cli.commands.check import add_arguments
from medseg_pl.cli.commands.phantom import write_phantom
from medseg_pl.cli.parser import CommandParser
from medseg_pl.core.errors import name_options
from tests.end_to_end.clean_sets import CLEAN, NAMED, NAMES, write_folder
from tests.end_to_end.defects import DEFECTS, VICTIM, Defect
from tests.printed_json import run_json

Write = Callable[[Path], None]
OPTIONS = dict.fromkeys(("labels", "task", "ignore_value", "colors", "tolerance", "group", "slicing"))


def checked(root: Path, options: tuple[str, ...] = ()) -> tuple[int, dict[str, Any]]:
    """The exit code, and what is printed as JSON."""
    filled = [option.format(root=root) for option in options]
    return run_json("check", *([] if "--config" in filled else [root]), *filled)


@pytest.fixture(scope="session")
def clean_sets(tmp_path_factory: pytest.TempPathFactory) -> dict[Write, Path]:
    """Each clean set, written once."""
    roots = {}
    for write in CLEAN:
        roots[write] = tmp_path_factory.mktemp("clean") / "data"
        write(roots[write])
    return roots


def spoilt(clean_sets: dict[Write, Path], defect: Defect, directory: Path) -> Path:
    """A copy of the clean set, with the fault."""
    root = directory / "data"
    shutil.copytree(clean_sets[defect.write], root)
    if (root / "config.yaml").exists():
        text = (root / "config.yaml").read_text()
        (root / "config.yaml").write_text(text.replace(str(clean_sets[defect.write]), str(root)))
    defect.plant(root)
    return root


@pytest.mark.parametrize("write", CLEAN, ids=lambda write: write.__name__)
def test_nothing_is_found_in_a_clean_set(clean_sets: dict[Write, Path], write: Write) -> None:
    code, report = checked(clean_sets[write], CLEAN[write])
    assert report["findings"] == []
    assert code == 0


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.kind)
def test_the_fault_is_found_and_no_other(clean_sets: dict[Write, Path], tmp_path: Path, defect: Defect) -> None:
    root = spoilt(clean_sets, defect, tmp_path)
    before = {path: path.lstat().st_mtime_ns for path in root.rglob("*")}
    options = CLEAN[defect.write] if defect.options is None else defect.options
    code, report = checked(root, options)
    assert {finding["code"] for finding in report["findings"]} == {defect.code} | defect.also, report["findings"]
    assert code == int(any(CODES[name].level == "error" for name in {defect.code} | defect.also))
    assert {path: path.lstat().st_mtime_ns for path in root.rglob("*")} == before
    for finding in report["findings"]:
        assert finding["message"].endswith(".")
        assert str(root) not in finding["message"]
        remedy = CODES[finding["code"]].remedy
        if finding["code"] == "mask-unknown-value":
            remedy = (
                "The masks hold 1, 2, 7: correct them, or name each value, as in --labels 1=organ,2=lesion,7=other."
            )
        assert finding["remedy"] == (remedy if "--config" in options else name_options(remedy, OPTIONS))


@pytest.mark.trainings
@pytest.mark.parametrize(
    "defect", [d for d in DEFECTS if CODES[d.code].level != "error"], ids=lambda defect: defect.kind
)
def test_without_an_error_every_case_can_be_read(clean_sets: dict[Write, Path], tmp_path: Path, defect: Defect) -> None:
    root = spoilt(clean_sets, defect, tmp_path)
    options = CLEAN[defect.write] if defect.options is None else defect.options
    parser = CommandParser("medseg check", "")
    add_arguments(parser)
    settings = read_settings(parser.parse_args([str(root), *options]))
    if not any(CODES[code].level == "error" for code in defect.also):
        cases = settings.source.cases()
        labels = settings.infer_labels(cases).labels
        for case in cases:
            volume = settings.source.read(case, labels)
            assert volume.mask is not None


def test_every_kind_of_finding_is_planted() -> None:
    planted = {code for defect in DEFECTS for code in (defect.code, *defect.also)}
    # Those that need a data set larger or stranger than these have tests of their own beside the module.
    elsewhere = {"unreadable-case", "shared-mask", "mask-count", "mask-lossy-format"}
    elsewhere |= {"label-in-one-patient", "constant-channel", "intensities-differ"}
    elsewhere |= {"repeated-link", "place-unknown", "axes-turned", "spacing-unset", "time-axis"}
    elsewhere |= {"slices-interpolated", "slices-resampled"}
    elsewhere |= {"bad-name", "mask-palettes-differ"}
    elsewhere |= {"annotated-label-unknown", "unannotated-label-present", "label-not-looked-for"}
    assert planted | elsewhere == set(CODES)
    assert not planted & elsewhere
    assert len(planted) >= 60


TEN = (
    *("zero bytes", "truncated PNG", "missing mask", "0/255 where ids are expected", "RGB colors", "anti-aliased"),
    *("shape mismatch", "constant image", "channel count differs", "failed download"),
)


def test_ten_faults_of_ten_cases_are_all_found(tmp_path: Path) -> None:
    """Each is planted into a data set of its own, and the spoilt case taken over into one."""
    root = tmp_path / "data"
    write_folder(root)
    chosen = [defect for defect in DEFECTS if defect.kind in TEN]
    assert len(chosen) == len(TEN)
    for name, defect in zip(NAMES, chosen, strict=True):
        single = tmp_path / "single" / name
        write_folder(single)
        defect.plant(single)
        for folder in ("images", "masks"):
            (root / folder / f"{name}.png").unlink()
            spoilt = single / folder / f"{NAMES[VICTIM]}.png"
            if spoilt.exists():
                shutil.copy(spoilt, root / folder / f"{name}.png")
    code, report = checked(root, NAMED)
    copies = {"exact-duplicate", "near-duplicate"}  # the same image was spoilt in ten ways
    found = {(f["case_id"], f["code"]) for f in report["findings"] if f["level"] == "error"}
    assert code == 1
    assert {(name, code) for name, code in found if code not in copies} == {
        (name, defect.code) for name, defect in zip(NAMES, chosen, strict=True)
    }


@pytest.mark.parametrize("layout", ["folder", "decathlon", "uw_madison"])
def test_the_phantom_has_no_error(tmp_path: Path, layout: str) -> None:
    write_phantom(tmp_path / "data", layout, cases=6, seed=0, slices=8, size=(56, 48))
    code, report = checked(tmp_path / "data")
    assert (code, report["counts"]["error"]) == (0, 0)


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "options", "cases"),
    [("msd_hippocampus", (), 208), ("chase_db1", ("--masks", "masks_1st", "--group", "Image_([0-9]+)"), 28)],
)
def test_clean_real_data_has_no_error(real_data: Path, name: str, options: tuple[str, ...], cases: int) -> None:
    code, report = run_json("check", real_data / name, *options)
    assert code == 0
    assert (report["data"]["cases"], report["counts"]["error"]) == (cases, 0)


@pytest.mark.realdata
def test_infinity_in_real_data_is_reported(real_data: Path, tmp_path: Path) -> None:
    folder = real_data / "spine_nifti"
    (tmp_path / "m.csv").write_text("case_id,group,image,mask\nmtr,p,mtr.nii.gz,mt1_seg.nii.gz\n")
    for path in ("mtr.nii.gz", "mt1_seg.nii.gz"):
        (tmp_path / path).write_bytes((folder / path).read_bytes())
    code, report = run_json("check", tmp_path, "--labels", "cord")
    assert code == 0
    (finding,) = [finding for finding in report["findings"] if finding["code"] == "not-finite"]
    assert (finding["case_id"], finding["file"]) == ("mtr", "mtr.nii.gz")
