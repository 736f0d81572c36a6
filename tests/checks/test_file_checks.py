"""Faults that keep files from being read, and listings of cases in spite of faults: folders, lists, scans, DICOM."""

from __future__ import annotations

import json
import os
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medseg_pl.checks.file_checks import (
    CaseListing,
    FaultError,
    check_extension,
    check_links,
    diagnose,
    list_cases,
    read_or_diagnose,
)
from medseg_pl.checks.findings import Finding
from medseg_pl.core.errors import DataError, strip_remedy
from medseg_pl.core.types import Case
from medseg_pl.data.sources import DecathlonSource, DicomSource, FolderSource, ManifestSource, UWMadisonSource
from medseg_pl.data.sources.base import Problem, make_case
from medseg_pl.io.file_header import FileHeader, read_header
from tests.checks.samples import PNG, codes
from tests.dicom_files import save_segmentation, save_series
from tests.end_to_end.clean_sets import write_scans
from tests.sample_files import noise, save_raster


def fault(path: Path, header: FileHeader, error: Exception | None = None, memory_bytes: int | None = None) -> Finding:
    def read() -> None:
        if error is not None:
            raise error

    with pytest.raises(FaultError) as raised:
        read_or_diagnose(path, header, "a", read, memory_bytes)
    return raised.value.finding


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return save_raster(tmp_path / "a.png", noise((9, 8)))


def test_what_can_be_read_is_returned(image: Path) -> None:
    assert read_or_diagnose(image, read_header(image), "a", lambda: 7) == 7


def test_nothing_is_decoded_that_would_fill_the_memory(image: Path) -> None:
    found = fault(image, FileHeader("PNG", claimed_bytes=1001), memory_bytes=1000)
    assert found.code == "decompression-bomb"
    assert found.message.endswith("claims 1,001 bytes once decoded.")
    assert fault(image, FileHeader("PNG", too_large=True)).message.endswith("claims too many pixels once decoded.")
    assert fault(image, PNG, MemoryError()).code == "decompression-bomb"


@pytest.mark.parametrize(
    "error", [DataError("No. Try again."), struct.error("no"), ZeroDivisionError(), TypeError("no")]
)
def test_whatever_a_decoder_raises_is_a_finding(image: Path, error: Exception) -> None:
    assert fault(image, PNG, error).code == "unreadable-file"


def test_our_own_mistakes_are_not_hidden(image: Path) -> None:
    with pytest.raises(AssertionError):
        fault(image, PNG, AssertionError())


def test_pages_and_missing_ends_that_headers_tell(image: Path) -> None:
    assert fault(image, FileHeader("TIFF", stacked=True)).code == "multi-page-tiff"
    assert fault(image, FileHeader("TIFF", cut_off=True)).code == "truncated-file"
    assert fault(image, FileHeader("nothing")).code == "empty-file"


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("a.png", b"<html>no</html>", "foreign-content"),
        ("a.nii.gz", b"<html>no</html>", "foreign-content"),
        ("a.nii", b"\x1f\x8b\x08 gzip", "foreign-content"),
        ("a.tif", b"\x89PNG\r\n\x1a\n", "foreign-content"),
        ("a.png", b"\x89PNG\r\n\x1a\n", "truncated-png"),
        ("a.png", b"\xff\xd8\xff and no end", "truncated-jpeg"),
        ("a.jpg", b"\xff\xd8\xff and an end \xff\xd9", "unreadable-file"),
        ("a.bmp", b"BM\xff\xff\x00\x00", "truncated-file"),
        ("a.png", b"", "empty-file"),
        ("a.png", bytes(range(200, 256)), "unreadable-file"),
    ],
)
def test_diagnosis(tmp_path: Path, name: str, content: bytes, code: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert diagnose(path, "a", DataError("It cannot be read. Replace it.")).code == code


def test_another_format_that_can_be_read(tmp_path: Path) -> None:
    Image.fromarray(noise((9, 8))).save(tmp_path / "a.png", format="BMP")
    path = tmp_path / "a.png"
    (found,) = check_extension(path, read_header(path), "a")
    assert (found.code, found.message) == ("wrong-extension", "The name says PNG, the content is BMP.")
    assert codes(check_extension(save_raster(tmp_path / "b.png", noise((9, 8))), PNG, "b")) == []


def test_links(tmp_path: Path, image: Path) -> None:
    root = tmp_path / "data"
    save_raster(root / "inside.png", noise((9, 8)))
    (root / "a.png").symlink_to(image)
    (root / "b.png").symlink_to("inside.png")
    assert codes(check_links(root / "a.png", root, "a")) == ["link-outside"]
    assert codes(check_links(root / "b.png", root, "b")) == []
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk/c.png").symlink_to(image)
    (root / "p1").symlink_to(tmp_path / "disk")
    assert codes(check_links(root / "p1/c.png", root, "c")) == ["link-outside"]
    (tmp_path / "mirror").symlink_to(root)  # the data set itself may be reached by a link
    assert codes(check_links(tmp_path / "mirror" / "b.png", tmp_path / "mirror", "b")) == []


def test_advice_is_left_to_the_finding() -> None:
    assert strip_remedy("It is so. It is worse. Do this.") == "It is so. It is worse."
    assert strip_remedy("It is so.") == "It is so."


def make(root: Path, *files: str) -> Path:
    """Files that exist and hold nothing: pairing never looks inside."""
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    return root


def found(root: Path, *files: str, **settings: str) -> CaseListing:
    return list_cases(FolderSource(str(make(root, *files)), **settings))


def names(discovered: CaseListing) -> dict[str, tuple[str, ...]]:
    return {case.case_id: tuple(path.name for path in case.masks) for case in discovered.cases}


def test_a_folder_in_order(tmp_path: Path) -> None:
    discovered = found(tmp_path, "images/a.png", "images/b.nii.gz", "masks/a.png", "masks/b.nii.gz")
    assert names(discovered) == {"a": ("a.png",), "b": ("b.nii.gz",)}
    assert discovered.findings == ()


def test_one_missing_mask_hides_no_other_case(tmp_path: Path) -> None:
    discovered = found(tmp_path, "images/a.png", "images/b.png", "images/c.png", "masks/a.png", "masks/x.png")
    assert names(discovered) == {"a": ("a.png",), "b": (), "c": ()}
    assert [(f.code, f.case_id, f.file and f.file.name) for f in discovered.findings] == [
        ("missing-mask", "b", "b.png"),
        ("missing-mask", "c", "c.png"),
        ("missing-image", "", "x.png"),
    ]


def test_all_faults_of_names_at_once(tmp_path: Path) -> None:
    make(tmp_path, "images/a.png")
    (tmp_path / "images/readme.txt").write_text("Nothing.")
    (tmp_path / "images/a.png").unlink()
    discovered = found(
        tmp_path,
        *("images/p1_a.png", "images/p1_a.bmp", "masks/p1_a.png"),
        *("images/p2_a.png", "masks/P2_A.png"),
        *("images/p3_a.png",),
        *("masks/p4_a.png",),
        *("images/x.png", "masks/x.png"),
        *("images/p5_a.png", "masks/p5_a.png", "images/P5_a.png", "masks/P5_a.png"),
        group="^([pP][0-9])",
    )
    assert sorted(codes(discovered.findings)) == [
        "duplicate-name",
        "group-unknown",
        "ignored-file",
        "missing-image",
        "missing-mask",
        "names-differ-by-case",
        "pair-differs-by-case",
    ]
    assert {case.case_id for case in discovered.cases} == {"p1_a", "p2_a", "p3_a", "x", "p5_a", "P5_a"}


def test_several_places_for_masks(tmp_path: Path) -> None:
    files = ["images/a.png", "images/b.png", "liver/a.png", "spleen/a.png", "liver/b.png"]
    source = FolderSource(str(make(tmp_path, *files)), masks={"liver": "liver", "spleen": "spleen"})
    discovered = list_cases(source)
    assert names(discovered) == {"a": ("a.png", "a.png"), "b": ()}
    assert [(f.code, f.case_id) for f in discovered.findings] == [("missing-mask", "b")]


def test_a_mask_of_two_images(tmp_path: Path) -> None:
    files = ["images/a.png", "images/ab.png", "masks/ab_1.png"]
    discovered = found(tmp_path, *files, mask_name="{stem}*")
    assert "shared-mask" in codes(discovered.findings)


def test_links_that_lead_nowhere_or_in_circles(tmp_path: Path) -> None:
    make(tmp_path, "images/a.png", "masks/a.png")
    (tmp_path / "images" / "b.png").symlink_to("nowhere.png")
    (tmp_path / "masks" / "c.png").symlink_to("c.png")
    (tmp_path / "images" / "loop").symlink_to(tmp_path)
    discovered = list_cases(FolderSource(str(tmp_path)))
    assert names(discovered) == {"a": ("a.png",)}
    assert codes(discovered.findings) == ["broken-link", "broken-link", "repeated-link"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="This system has no named pipes.")
def test_what_is_no_file_is_not_opened(tmp_path: Path) -> None:
    make(tmp_path, "images/a.png", "masks/a.png")
    os.mkfifo(tmp_path / "images" / "b.png")  # whoever opens it waits for ever
    assert names(list_cases(FolderSource(str(tmp_path)))) == {"a": ("a.png",)}


@pytest.mark.parametrize("name", ["../x", "/abs", "a\x1b[2J"])
def test_a_name_that_leads_out_of_a_folder_is_a_problem(name: str) -> None:
    problems: list[Problem] = []
    assert make_case(problems.append, Path("list.csv"), name, "p", (Path("a.png"),)) == []
    (problem,) = problems
    assert (problem.code, problem.path) == ("bad-name", Path("list.csv"))
    assert (problem.case_id + problem.message).isprintable()


class _OwnSource(FolderSource):
    def cases(self) -> list[Case]:  # a plug-in that collects no problems
        raise DataError("Case 3 has no mask. Add it.")


def test_a_source_that_collects_no_problems_ends_at_its_first(tmp_path: Path) -> None:
    discovered = list_cases(_OwnSource(str(tmp_path)))
    assert [(f.code, f.message) for f in discovered.findings] == [("no-cases", "Case 3 has no mask.")]


def test_no_case_at_all(tmp_path: Path) -> None:
    make(tmp_path, "images/a.txt", "masks/a.txt")
    assert "no-cases" in codes(list_cases(FolderSource(str(tmp_path))).findings)
    assert codes(list_cases(FolderSource(str(tmp_path / "nowhere"))).findings) == ["no-cases"]


def test_files_that_are_not_read_are_named(tmp_path: Path) -> None:
    make(tmp_path, "images/a.png", "masks/a.png", "images/.hidden", "images/.git/d.heic")
    for name in ("images/b.heic", "images/c.npy", "masks/b.txt"):
        (tmp_path / name).write_bytes(noise((9, 9)).tobytes())
    for name in ("images/readme.txt", "images/côté.json"):
        (tmp_path / name).write_text("Näheres in µm.", encoding="utf-8")
    (tmp_path / "images/d.txt").write_bytes(save_raster(tmp_path / "d.png", noise((9, 9))).read_bytes())
    findings = list_cases(FolderSource(str(tmp_path))).findings
    assert [(f.code, f.file and f.file.name) for f in findings] == [
        ("unread-file", "b.heic"),
        ("unread-file", "c.npy"),
        ("unread-file", "d.txt"),
        ("unread-file", "b.txt"),
        ("ignored-file", "côté.json"),
    ]
    assert findings[2].message == "The content is PNG, but the name says otherwise. Rename it."
    assert findings[4].message == "2: côté.json, readme.txt. A text, no image."


def test_patients_that_are_links_are_there(tmp_path: Path) -> None:
    """A data set under version control, or on a storage of its own."""
    for kind in ("images", "masks"):
        make(tmp_path, f"data/{kind}/p0/s.png", f"disk/{kind}/p1/s.png")
        (tmp_path / "data" / kind / "p1").symlink_to(tmp_path / "disk" / kind / "p1")
    (tmp_path / "data/images/p2").symlink_to(tmp_path / "data/images/p0")
    discovered = list_cases(FolderSource(str(tmp_path / "data")))
    assert names(discovered) == {"p0/s": ("s.png",), "p1/s": ("s.png",)}
    assert codes(discovered.findings) == ["repeated-link"]


def manifest(root: Path, *rows: str, header: str = "case_id,group,image,mask,split") -> ManifestSource:
    for name in "abc":
        (root / f"{name}.png").touch()
    (root / "m.csv").write_text("\n".join([header, *rows]) + "\n")
    return ManifestSource(str(root / "m.csv"))


def test_every_row_of_a_manifest_is_judged_by_itself(tmp_path: Path) -> None:
    source = manifest(
        tmp_path,
        "a,p,a.png,b.png,train",
        "b,p,nowhere.png,b.png,train",
        "c,p,../../etc/passwd,b.png,train",
        "d,,a.png,b.png,train",
        "a,p,a.png,b.png,train",
        "e,p,a.png,,train",
        "f,p,a.png,b.png,nonsense",
        "g,p,a.png;c.png,nowhere.png,val",
    )
    discovered = list_cases(source)
    assert {case.case_id: len(case.masks) for case in discovered.cases} == {"a": 1, "e": 0, "g": 0}
    assert [(f.code, f.case_id) for f in discovered.findings] == [
        ("listed-file-missing", "b"),
        ("listed-path-outside", "c"),
        ("listing-invalid", "d"),
        ("duplicate-name", "a"),
        ("missing-mask", "e"),
        ("listing-invalid", "f"),
        ("listed-file-missing", "g"),
    ]
    assert [case.images for case in discovered.cases][2] == (tmp_path / "a.png", tmp_path / "c.png")


def test_a_link_out_of_a_manifest_s_folder(tmp_path: Path) -> None:
    root = tmp_path / "data"
    root.mkdir()
    (tmp_path / "secret.png").touch()
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    discovered = list_cases(manifest(root, "a,p,link.png,b.png,train"))
    assert (discovered.cases, codes(discovered.findings)) == ((), ["listed-path-outside"])


@pytest.mark.parametrize("header", ["", "case_id,image", "\udcff"])
def test_a_table_that_is_none(tmp_path: Path, header: str) -> None:
    (tmp_path / "m.csv").write_bytes(header.encode("utf-8", "surrogateescape"))
    discovered = list_cases(ManifestSource(str(tmp_path / "m.csv")))
    assert codes(discovered.findings) == ["listing-invalid"]


def decathlon(root: Path, description: Any, *files: str) -> DecathlonSource:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    (root / "dataset.json").write_text(description if isinstance(description, str) else json.dumps(description))
    return DecathlonSource(str(root))


def entry(name: str) -> dict[str, str]:
    return {"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"}


def test_every_entry_of_a_decathlon_is_judged_by_itself(tmp_path: Path) -> None:
    outside = {"image": "../x.nii.gz", "label": "labelsTr/o.nii.gz"}
    training = [entry("a"), entry("b"), {"image": 3}, "text", entry("a"), entry("c"), outside]
    files = [f"{folder}/{name}.nii.gz" for folder in ("imagesTr", "labelsTr") for name in "ae"]
    discovered = list_cases(decathlon(tmp_path, {"training": training}, *files, "imagesTr/c.nii.gz"))
    assert {case.case_id: len(case.masks) for case in discovered.cases} == {"a": 1, "c": 0}
    assert [(f.code, f.case_id) for f in discovered.findings] == [
        ("listing-invalid", ""),
        ("listing-invalid", ""),
        ("duplicate-name", "a"),
        ("listed-path-outside", "o"),
        ("listed-file-missing", "b"),
        ("listed-file-missing", "b"),
        ("listed-file-missing", "c"),
        ("listed-file-missing", "o"),
        ("unlisted-file", ""),
    ]


def test_nnunet_names_with_a_missing_channel(tmp_path: Path) -> None:
    description = {"file_ending": ".nii.gz", "channel_names": {"0": "T1", "1": "T2"}}
    files = ["labelsTr/a.nii.gz", "labelsTr/b.nii.gz"]
    images = [f"imagesTr/{name}.nii.gz" for name in ("a_0000", "a_0001", "b_0000")]
    discovered = list_cases(decathlon(tmp_path, description, *files, *images))
    (case,) = discovered.cases
    assert [path.name for path in case.images] == ["a_0000.nii.gz", "a_0001.nii.gz"]
    assert [(f.code, f.file and f.file.name) for f in discovered.findings] == [
        ("listed-file-missing", "b_0001.nii.gz"),
        ("unlisted-file", "b_0000.nii.gz"),
    ]


@pytest.mark.parametrize("description", ["{", "[]", "3", '{"training": 3}'])
def test_a_description_that_is_none(tmp_path: Path, description: str) -> None:
    assert codes(list_cases(decathlon(tmp_path, description)).findings) == ["listing-invalid"]


def test_a_scan_with_an_unreadable_name_hides_no_other_case(tmp_path: Path) -> None:
    write_scans(tmp_path)
    scans = sorted(tmp_path.rglob("scans"))
    next(scans[2].iterdir()).rename(scans[2] / "slice_9.png")
    shutil.copytree(scans[0].parent, tmp_path / "train" / "copy" / scans[0].parent.name)
    discovered = list_cases(UWMadisonSource(str(tmp_path)))
    assert len(discovered.cases) == len(scans) - 1
    assert sorted((f.code, f.case_id) for f in discovered.findings) == [
        ("duplicate-name", "case0_day1"),
        ("listing-invalid", "case2_day1"),
    ]


def test_a_broken_series_hides_no_other(tmp_path: Path) -> None:
    stored = np.random.default_rng(0).integers(0, 999, (4, 8, 9)).astype(np.int16)
    for name in ("p1", "p2", "p3"):
        files = save_series(tmp_path / name / "ct", stored, series=name)
        save_segmentation(tmp_path / name / "seg.dcm", files, np.ones((4, 8, 9, 1), np.uint8), ["liver"])
    shutil.copy(tmp_path / "p1" / "ct" / "IM001.dcm", tmp_path / "p2" / "ct" / "other.dcm")
    (tmp_path / "p3" / "seg.dcm").unlink()
    (tmp_path / "p1" / "ct" / "empty.dcm").touch()
    lost = save_series(tmp_path / "lost", stored, series="lost")
    save_segmentation(tmp_path / "p1" / "lost.dcm", lost, np.ones((4, 8, 9, 1), np.uint8), ["liver"])
    shutil.rmtree(tmp_path / "lost")
    discovered = list_cases(DicomSource(str(tmp_path)))
    assert {case.case_id: (case.group, len(case.masks)) for case in discovered.cases} == {
        "p1/ct": ("p1", 1),
        "p3/ct": ("p3", 0),
    }
    assert sorted((f.code, f.case_id) for f in discovered.findings) == [
        ("missing-image", ""),
        ("missing-mask", "p3/ct"),
        ("mixed-series", "p2/ct"),
        ("unreadable-file", ""),
    ]
