"""DICOM series with segmentations or contours."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from medseg_pl.core.errors import DataError, MissingDataError, SettingError, count_noun, count_part, strip_remedy
from medseg_pl.core.geometry import Reorientation, find_slicing
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import Case, Volume
from medseg_pl.data.sources.base import (
    OnProblem,
    Problem,
    Source,
    abbreviate,
    check_pattern,
    describe_left_out,
    explain_missing_root,
    find_group,
    make_case,
    name_other_source,
    raise_or_report,
)
from medseg_pl.data.sources.dicom_cases import (
    Output,
    Term,
    UnevenSlices,
    check_known,
    describe_segments,
    list_unused,
    sort_series,
    write_as_nifti,
)
from medseg_pl.data.sources.files import is_image, reorient_volume
from medseg_pl.io import dicom
from medseg_pl.io.paths import LeftOut, require_folder
from medseg_pl.io.regions import Structure, StructureKey, match_structures

log = logging.getLogger(__name__)


class DicomSource(Source):
    """CT, MR, PET or radiographs with SEG or RTSTRUCT references.

    ```
    root/patient7/2024-05-02/ct/IM0001, IM0002, …       one series to a folder: the case patient7/2024-05-02/ct
    root/patient7/2024-05-02/seg/1-1.dcm                anywhere below root: belongs to the series it refers to
    root/patient8/IM0001, IM0002, …                     several series in a folder: patient8/series_2, patient8/series_3
    root/patient9/dx/left.dcm, right.dcm                CR, DX and MG: each image a case, patient9/dx/left
    ```

    Series may have one file for each slice or a single file (enhanced CT, MR, PET). Several references of one series
    complement each other. Labels are found by the names of segments and regions, in any case and with spaces or
    underscores. Predictions are written as one DICOM SEG for each series, which refers to its images, or as NIfTI on
    the grid of the volume.

    Of the headers nothing but geometry is kept, in the store or elsewhere, with one exception: a DICOM SEG belongs to
    its patient's study and repeats what the series says of them, so it is as confidential as the series. Names of
    folders become the names of cases and groups: they should not name a patient.

    Args:
        root: The folder that holds everything; it is looked through once.
        images: Which series are cases: a pattern for their names, which are those of their folders below `root`, such
            as `*/ct`.
        references: Which files may be references: a pattern for their paths below `root`, such as `*/seg/*`; null
            for images without references.
        segments: The structures that make up a label where they are called otherwise, by name or number in the file:
            `{liver: Hepar, kidneys: [kidney left, kidney right]}`. All that are there are united; one must be.
        missing_is_empty: Whether a label that nobody drew in a case with references is absent there; otherwise it is
            an error.
        skip_unreferenced: Whether series without references are left out; otherwise they are an error.
        group: A regular expression whose parentheses find the patient in a case's name; without it the patient is the
            first folder below `root`.
        group_by_patient_id: Whether cases of one PatientID are one group instead. The group is called after its first
            case, so the PatientID itself is not kept.
        write_as: What predictions are written as: `seg` for DICOM SEG, or `nifti`, which names nobody.
        uneven_slices: What becomes of a series whose slices are not evenly spaced: `refuse` makes it an error;
            `resample` interpolates the image linearly to even slices, as far apart as the closest ones of the series,
            and gives each the mask of the nearest slice. A slice that is missing is interpolated, too. Predictions
            return to the slices of the series in a DICOM SEG, and stay on the even ones in NIfTI, which knows no
            others.
        property_types: What labels are, for a DICOM SEG, as a code, its terminology and its meaning:
            `{liver: [10200004, SCT, Liver]}`. What is not given is an organ.
        property_categories: The same for their categories: `{tumour: [49755003, SCT, Morphologically Abnormal
            Structure]}`. What is not given is an anatomical structure.

    Raises:
        SettingError: `group` finds no patient, or is set together with `group_by_patient_id`.
    """

    def __init__(
        self,
        root: str,
        images: str = "*",
        references: str | None = "*",
        segments: dict[str, int | str | list[int | str]] | None = None,
        missing_is_empty: bool = False,
        skip_unreferenced: bool = False,
        group: str | None = None,
        group_by_patient_id: bool = False,
        write_as: Output = "seg",
        uneven_slices: UnevenSlices = "refuse",
        property_types: dict[str, Term] | None = None,
        property_categories: dict[str, Term] | None = None,
    ) -> None:
        check_pattern(group)
        if group is not None and group_by_patient_id:
            raise SettingError("data.source.group and data.source.group_by_patient_id both say who is whom. Set one.")
        self.root = Path(root)
        self.images = images
        self.references = references
        self.segments = segments or {}
        self.missing_is_empty = missing_is_empty
        self.skip_unreferenced = skip_unreferenced
        self.group = group
        self.group_by_patient_id = group_by_patient_id
        self.write_as = write_as
        self.uneven_slices = uneven_slices
        self.property_types = property_types or {}
        self.property_categories = property_categories or {}

    @property
    def resamples(self) -> bool:
        """Whether series of uneven slices are resampled to even ones."""
        return self.uneven_slices == "resample"

    def cases(self, on_problem: OnProblem | None = None) -> list[Case]:
        """List one case for each series or projection, with its references."""
        for path, error in self._tree.damaged.items():
            raise_or_report(error, [Problem("unreadable-file", strip_remedy(str(error)), "", path)], on_problem)
        folders = self._select_series(on_problem)
        homes = _find_homes(folders, on_problem)
        drawn: dict[str, list[Path]] = {}
        if self.references is not None:
            drawn = self._match_references(homes, on_problem)
            self._check_referenced(folders, drawn, on_problem)
            if self.skip_unreferenced:
                folders = {name: entries for name, entries in folders.items() if name in drawn}
        groups = self._assign_groups(folders, on_problem)
        cases: list[Case] = []
        for name, entries in sorted(folders.items()):
            images = tuple(entry.path for entry in entries)
            cases += make_case(on_problem, images[0], name, groups[name], images, tuple(drawn.get(name, ())))
        return cases

    def read(self, case: Case, labels: LabelMap) -> Volume:
        """Sort and decode the slices of a case, and draw its references.

        Raises:
            DataError: A file cannot be used as it is.
        """
        series = self._open(case)
        image = dicom.read_values(series)[None]
        _report_resampling(case, series)
        mask = self._read_mask(case, labels, series) if case.masks else None
        volume = Volume(image, mask, series.geometry, self.read_modality(case))
        return reorient_volume(volume, self._find_turn(case, series))

    def read_modality(self, case: Case) -> str:
        """Read the modality from the header of the first file."""
        return dicom.read_modality(case.images[0])

    def list_left_out(self) -> list[LeftOut]:
        """List files of other kinds than images and references."""
        return list_unused(self._tree)

    def open_unlabeled(self, directory: Path) -> Source:
        """Open every series below a folder."""
        return DicomFolder(
            str(directory),
            references=None,
            write_as=self.write_as,
            uneven_slices=self.uneven_slices,
            property_types=self.property_types,
            property_categories=self.property_categories,
        )

    def write(self, directory: Path, case: Case, mask: UInt8[np.ndarray, "m d h w"], labels: LabelMap) -> None:
        """Write one DICOM SEG for all labels, or NIfTI files."""
        series = self._open(case)
        mask = np.ascontiguousarray(self._find_turn(case, series).undo(mask))
        if self.write_as == "seg":
            segments = describe_segments(labels, self.property_types, self.property_categories)
            dicom.write_segmentation(directory / f"{case.case_id}.dcm", series.restore_mask(mask), segments, series)
        else:
            write_as_nifti(directory, case, mask, labels, series.geometry)

    def reading_settings(self) -> tuple[object, ...]:
        """Return which structures make up a label, and the resampling."""
        structures = sorted((name, repr(keys)) for name, keys in self.segments.items())
        return (structures, self.missing_is_empty, self.uneven_slices)

    def writing_settings(self) -> tuple[object, ...]:
        """Return the format, and what segments are said to be."""
        meanings = (self.property_types, self.property_categories)
        return (self.write_as, *(sorted((name, tuple(term)) for name, term in terms.items()) for terms in meanings))

    @cached_property
    def _tree(self) -> dicom.DicomTree:
        require_folder(self.root, "DICOM series", explain_missing_root(self.root, "Set data.source.root to your data."))
        return dicom.DicomTree(self.root, patients=self.group_by_patient_id)

    def _select_series(self, on_problem: OnProblem | None) -> dict[str, list[dicom.DicomFile]]:
        """Find the images of each case."""
        found = self._tree.series
        chosen = {name: entries for name, entries in found.items() if fnmatchcase(name, self.images)}
        if not chosen and on_problem is None:
            raise MissingDataError(
                f"{self.root} holds no CT, MR, PET or X-ray images that are called like {self.images!r} "
                f"({count_noun(len(self._tree.entries), 'DICOM file')}, {len(found)} series). Set data.source.root "
                "or data.source.images."
            )
        return chosen

    def _match_references(self, homes: Mapping[str, list[str]], on_problem: OnProblem | None) -> dict[str, list[Path]]:
        """Find the references of each case, with none left over."""
        chosen = [entry for name, entry in self._tree.references.items() if fnmatchcase(name, self.references or "")]
        drawn: dict[str, list[Path]] = defaultdict(list)
        lonely = []
        for entry in chosen:
            there = self._tree.drawn_on(entry)
            names = sorted(name for series in there for name in homes.get(series, ()))
            if len(there & homes.keys()) > 1:
                message = f"{entry.path} belongs to several series: {abbreviate(names)}."
                error = DataError(f"{message} Choose one with data.source.images.")
                raise_or_report(error, [Problem("listing-invalid", message, "", entry.path)], on_problem)
            for name in names:
                drawn[name].append(entry.path)
            if not there:
                lonely.append(entry.path)
        if lonely:
            missing = MissingDataError(
                f"{count_part(len(lonely), len(chosen), 'reference', 'was', 'were')} drawn on a series that is not "
                f"below {self.root}: {abbreviate(list(map(str, lonely)))}. Add the series, move the references "
                "away, or set data.source.references."
            )
            message = "It was drawn on a series that is not there."
            raise_or_report(missing, [Problem("missing-image", message, "", path) for path in lonely], on_problem)
        return drawn

    def _check_referenced(
        self, folders: Mapping[str, list[dicom.DicomFile]], drawn: Collection[str], on_problem: OnProblem | None
    ) -> None:
        """Find series without references."""
        bare = sorted(set(folders) - set(drawn))
        if on_problem is not None and not self.skip_unreferenced:
            for name in bare:
                on_problem(Problem("missing-mask", "Nothing was drawn on the series.", name, folders[name][0].path))
            return
        pictures = [path for path in self._tree.others if is_image(path)]
        if len(bare) == len(folders) and pictures:
            raise MissingDataError(
                f"{self.root} has DICOM images without references and {count_noun(len(pictures), 'other image')}, such "
                f"as {pictures[0].name}. Masks of DICOM are SEG or RTSTRUCT: convert them, or convert the series to "
                "NIfTI as well and use FolderSource."
            )
        if len(bare) == len(folders) or (bare and not self.skip_unreferenced):
            raise MissingDataError(
                f"{len(bare)} of {len(folders)} series below {self.root} {'has' if len(bare) == 1 else 'have'} no "
                "reference (DICOM SEG or RTSTRUCT): "
                f"{abbreviate(bare)}. Add the references, choose the series with data.source.images, or set "
                "data.source.skip_unreferenced."
            )

    def _assign_groups(
        self, folders: Mapping[str, list[dicom.DicomFile]], on_problem: OnProblem | None
    ) -> dict[str, str]:
        """Find the patient of each case."""
        if self.group is not None:
            return {n: find_group(n, self.group, e[0].path.parent, on_problem, folders) for n, e in folders.items()}
        if not self.group_by_patient_id:
            return {name: name.split("/")[0] for name in folders}
        first: dict[str, str] = {}
        groups = {}
        for name, entries in sorted(folders.items()):
            patient = entries[0].patient_id
            if not patient or any(entry.patient_id != patient for entry in entries):
                error = DataError(
                    f"{name} (below {self.root}) has {'more than one' if patient else 'no'} PatientID, so its patient "
                    "is unknown and a split could leak. Set data.source.group in place of "
                    "data.source.group_by_patient_id."
                )
                problem = Problem("listing-invalid", strip_remedy(str(error)), name, entries[0].path.parent)
                raise_or_report(error, [problem], on_problem)
            # The first case's name stands for the patient: a PatientID may not leave the file.
            groups[name] = first.setdefault(patient, name) if patient else name
        return groups

    def _read_mask(self, case: Case, labels: LabelMap, series: dicom.Series) -> UInt8[np.ndarray, "m d h w"]:
        structures = {path: dicom.read_structures(path) for path in case.masks}
        check_known("segments", self.segments, labels)
        homes = [self._find_home(case, name, structures) for name in labels.names]
        planes = [np.zeros(series.shape, dtype=np.uint8) for _ in labels.names]
        # Each file is opened once for all of its labels.
        for path in dict.fromkeys(home for home, _ in homes if home):
            mine = [index for index, (home, _) in enumerate(homes) if home == path]
            for index, mask in zip(
                mine, dicom.read_masks(path, [homes[index][1] for index in mine], series), strict=True
            ):
                planes[index] = mask.astype(np.uint8)
        return series.spread_mask(labels.combine(planes, f"Case {case.case_id}"))

    def _find_turn(self, case: Case, series: dicom.Series) -> Reorientation:
        return find_slicing(series.geometry, "file", case.case_id, self.orientation)

    def _open(self, case: Case) -> dicom.Series:
        return dicom.open_series(case.images, resample=self.resamples)

    def _find_home(
        self, case: Case, label: str, structures: dict[Path, list[Structure]]
    ) -> tuple[Path | None, Sequence[int]]:
        """Find the file that holds a label, and its structures."""
        keys = _as_list(self.segments.get(label, label))
        found = {path: numbers for path, held in structures.items() if (numbers := match_structures(held, keys))}
        if len(found) > 1:
            raise DataError(
                f"Case {case.case_id}: the label {label!r} is in {len(found)} references, "
                f"{abbreviate([str(path) for path in found])}. Choose one with data.source.references, or move the "
                "others away."
            )
        if found:
            return next(iter(found.items()))
        if self.missing_is_empty:
            return None, ()
        held = [f"{number} {name!r}" for several in structures.values() for number, name in several]
        raise MissingDataError(
            f"Case {case.case_id}: nothing drawn is called {' or '.join(repr(key) for key in keys)}, the label "
            f"{label!r}; in {abbreviate([str(path) for path in structures])}: {abbreviate(held, 20) or 'nothing'}. "
            "Name it with data.source.segments, or set data.source.missing_is_empty."
        )


class DicomFolder(DicomSource):
    """Every series below a folder, or a single file, without references.

    In a folder with several series each is a case of its own, `<folder>/series_<number>`. A folder that is no case
    hides no other.
    """

    def cases(self, on_problem: OnProblem | None = None) -> list[Case]:
        """List one case for each series.

        Raises:
            MissingDataError: There is no series.
        """
        cases, left_out = sort_series(self._tree)
        if not cases:
            said = name_other_source(left_out, "FolderSource") or describe_left_out(left_out) + " "
            raise MissingDataError(
                f"{self.root} holds no CT, MR, PET or X-ray images that can be read. {said.lstrip()}Set --input to "
                "your series."
            )
        return cases

    def list_left_out(self) -> list[LeftOut]:
        """List what is in no case."""
        return sort_series(self._tree)[1]

    @cached_property
    def _tree(self) -> dicom.DicomTree:
        if not self.root.exists():
            raise MissingDataError(f"--input {self.root} does not exist. Give a folder of DICOM series, or a file.")
        return dicom.DicomTree(self.root)


def _find_homes(folders: dict[str, list[dicom.DicomFile]], on_problem: OnProblem | None) -> dict[str, list[str]]:
    """Find the cases of each series, which should be one.

    Raises:
        DataError: Series of a folder cannot be told apart, or a series lies in several folders.
    """
    homes: dict[str, list[str]] = {}
    for name, entries in list(folders.items()):
        folder = entries[0].path.parent
        if message := dicom.describe_mixed_series([(entry.series, entry.path) for entry in entries]):
            problem = Problem("mixed-series", strip_remedy(message), name, folder)
            raise_or_report(DataError(message), [problem], on_problem)
            del folders[name]
            continue
        homes.setdefault(entries[0].series, []).append(name)
        if (first := homes[entries[0].series][0]) != name:
            message = f"{first} and {name} hold images of the same series."
            error = DataError(f"{message} Put them into one folder, or move the copy away.")
            raise_or_report(error, [Problem("listing-invalid", message, name, folder)], on_problem)
    return homes


def _report_resampling(case: Case, series: dicom.Series) -> None:
    """Log that a series is resampled; warn where slices seem missing."""
    if not series.resampling:
        return
    log.info(
        "Case %s: %d uneven slices are resampled to %d, %.2f mm apart.",
        *(case.case_id, len(series.planes), len(series.resampling.even_mm), series.resampling.distance_mm),
    )
    gaps = [problem for problem in series.unevenness if problem.code == "gap"]
    if gaps:
        log.warning(
            "Case %s: slices seem to be missing in %s and are interpolated. Restore them to be safe.",
            *(case.case_id, count_noun(len(gaps), "place")),
        )


def _as_list(keys: StructureKey | Iterable[StructureKey]) -> list[StructureKey]:
    return [keys] if isinstance(keys, int | str) else list(keys)
