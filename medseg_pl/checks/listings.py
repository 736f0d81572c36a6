"""Cases of data sets that are lists, entry by entry: an entry that cannot be used hides no other."""

from __future__ import annotations

from collections.abc import Sequence
from glob import escape
from pathlib import Path
from typing import Any

from medseg_pl.checks.file_checks import without_remedy
from medseg_pl.checks.findings import Finding, finding
from medseg_pl.checks.naming import make_case
from medseg_pl.core.errors import DataError, MissingDataError
from medseg_pl.core.types import Case
from medseg_pl.data.sources import DecathlonSource, ManifestSource
from medseg_pl.data.sources.base import group_of
from medseg_pl.data.sources.csv_table import filled, read_table
from medseg_pl.data.sources.dataset_json import list_channels, list_dataset
from medseg_pl.data.sources.files import inside
from medseg_pl.data.sources.manifest import SPLITS
from medseg_pl.io.structured import read_json
from medseg_pl.io.suffixes import stem

Found = tuple[list[Case], list[Finding]]


def cases_of_manifest(source: ManifestSource) -> Found:
    """One case for each row whose files are there."""
    cases: dict[str, Case] = {}
    found: list[Finding] = []
    try:
        rows = read_table(source.manifest, ("case_id", "group", "image"), "case_id, group, image and mask", "")
    except DataError as error:
        return [], [finding("listing-invalid", str(error), "", source.manifest)]
    for number, row in rows:
        where = f"Line {number}"
        try:
            name, group = filled(row, "case_id", where), filled(row, "group", where)
            split, fold = _side(row, where)
        except DataError as error:
            found.append(finding("listing-invalid", without_remedy(str(error)), row["case_id"] or "", source.manifest))
            continue
        if name in cases:
            found.append(finding("duplicate-name", f"{where} repeats the case {name}.", name, source.manifest))
            continue
        fields = [row[key] for key in row if key == "mask" or key.startswith("mask_")]
        images = _listed(source.root, (row["image"] or "").split(";"), source.manifest, name, found)
        masks = _listed(source.root, [field for field in fields if field], source.manifest, name, found)
        if not any(fields):
            found.append(finding("missing-mask", f"{where} names no mask.", name, source.manifest))
        if images:
            made = make_case(found, source.manifest, name, group, images, masks, split, fold)
            cases.update({case.case_id: case for case in made})
    return list(cases.values()), found


def cases_of_dataset_json(source: DecathlonSource) -> Found:
    """One case for each pair of `training`, or for each image of nnU-Net's `imagesTr`."""
    path = source.root / "dataset.json"
    cases: dict[str, Case] = {}
    found: list[Finding] = []
    try:
        description = read_json(path)
        entries = _entries(source.root, description)
    except (OSError, ValueError, AttributeError, TypeError) as error:
        return [], [finding("listing-invalid", f"{path} cannot be read: {error}.", "", path)]
    for entry in entries:
        if not (isinstance(entry, dict) and all(isinstance(entry.get(key), str) for key in ("image", "label"))):
            found.append(finding("listing-invalid", f"Expected image and label, got {str(entry)[:80]}.", "", path))
            continue
        name = entry.get("name") or stem(Path(entry["label"]))
        if name in cases:
            found.append(finding("duplicate-name", f"The case {name} is listed twice.", name, path))
            continue
        images = _listed(source.root, entry["image"].split(";"), path, name, found, channels=True)
        masks = _listed(source.root, [entry["label"]], path, name, found)
        if images:
            made = make_case(found, path, name, group_in(name, source.group, path, found), images, masks)
            cases.update({case.case_id: case for case in made})
    return list(cases.values()), found


def _side(row: dict[str, str], where: str) -> tuple[str | None, int | None]:
    split, fold = (row.get("split") or "").strip(), (row.get("fold") or "").strip()
    if split and split not in SPLITS:
        raise DataError(f"{where}: split is {split!r}; expected {', '.join(SPLITS)}, or nothing. Correct it.")
    if fold and not fold.isdecimal():
        raise DataError(f"{where}: fold is {fold!r}; expected 0, 1, 2 …, or nothing. Correct it.")
    return split or None, int(fold) if fold else None


def _listed(
    root: Path, names: Sequence[str], listing: Path, case_id: str, found: list[Finding], *, channels: bool = False
) -> tuple[Path, ...]:
    """The files that an entry names, or none of them where one is missing."""
    paths: list[Path] = []
    for name in names:
        try:
            path = inside(root, name.strip(), str(listing))
        except MissingDataError:
            found.append(finding("listed-path-outside", f"The entry names {name!r}.", case_id, listing))
            return ()
        numbered = _channels_of(path) if channels else []
        if path.is_file():
            paths.append(path)
        elif numbered:
            paths.extend(numbered)
        else:
            found.append(finding("listed-file-missing", f"{listing.name} names {name}.", case_id, path))
            return ()
    return tuple(paths)


def _channels_of(path: Path) -> list[Path]:
    """nnU-Net v1 lists `liver_01.nii.gz` and stores `liver_01_0000.nii.gz`."""
    name, suffix = stem(path), path.name[len(stem(path)) :]
    return sorted(path.parent.glob(f"{escape(name)}_[0-9][0-9][0-9][0-9]{escape(suffix)}"))


def _entries(root: Path, description: dict[str, Any]) -> list[Any]:
    """The entries of a description in the Decathlon's form; channels are separated by `;`."""
    if description.get("dataset"):
        if (listed := list_dataset(description["dataset"])) is None:
            raise ValueError("expected entries {'images': [...], 'label': ...} in dataset")
        return [{"image": ";".join(e["images"]), "label": e["label"], "name": str(e["name"])} for e in listed]
    return list(description.get("training") or _nnunet_entries(root, description))


def _nnunet_entries(root: Path, description: dict[str, Any]) -> list[dict[str, str]]:
    """What the names in nnU-Net's folders imply."""
    ending = str(description.get("file_ending", ".nii.gz"))
    names = description.get("channel_names")
    channels = len(names) if isinstance(names, dict | list) and names else 1
    return [
        {
            "image": ";".join(list_channels(root, mask.name[: -len(ending)], ending, channels)),
            "label": f"labelsTr/{mask.name}",
        }
        for mask in sorted((root / "labelsTr").glob("[!.]*"))
        if mask.name.endswith(ending)
    ]


def group_in(name: str, pattern: str | None, where: Path, found: list[Finding]) -> str:
    """The patient of a case; the case itself, and a finding, where the pattern does not match."""
    try:
        return group_of(name, pattern)
    except DataError:
        found.append(finding("group-unknown", f"The group pattern {pattern!r} does not match {name!r}.", name, where))
        return name
