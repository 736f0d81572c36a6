"""Cases of lists, entry by entry."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from medseg_pl.checks.discovery import discover
from medseg_pl.data.sources import DecathlonSource, ManifestSource
from tests.checks.facts_of import codes


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
    discovered = discover(source)
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
    discovered = discover(manifest(root, "a,p,link.png,b.png,train"))
    assert (discovered.cases, codes(discovered.findings)) == ((), ["listed-path-outside"])


@pytest.mark.parametrize("header", ["", "case_id,image", "\udcff"])
def test_a_table_that_is_none(tmp_path: Path, header: str) -> None:
    (tmp_path / "m.csv").write_bytes(header.encode("utf-8", "surrogateescape"))
    discovered = discover(ManifestSource(str(tmp_path / "m.csv")))
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
    discovered = discover(decathlon(tmp_path, {"training": training}, *files, "imagesTr/c.nii.gz"))
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
    discovered = discover(decathlon(tmp_path, description, *files, *images))
    (case,) = discovered.cases
    assert [path.name for path in case.images] == ["a_0000.nii.gz", "a_0001.nii.gz"]
    assert [(f.code, f.file and f.file.name) for f in discovered.findings] == [
        ("listed-file-missing", "b_0001.nii.gz"),
        ("unlisted-file", "b_0000.nii.gz"),
    ]


@pytest.mark.parametrize("description", ["{", "[]", "3", '{"training": 3}'])
def test_a_description_that_is_none(tmp_path: Path, description: str) -> None:
    assert codes(discover(decathlon(tmp_path, description)).findings) == ["listing-invalid"]
