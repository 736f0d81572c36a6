"""Data of a run: a source reopened from settings, its cases listed, decoded into the cache, and split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jsonargparse import ArgumentError, ArgumentParser
from numpy.typing import NDArray

from medseg_pl.core.errors import DataError, SettingError, count_noun, count_part
from medseg_pl.core.geometry import find_axis_codes
from medseg_pl.core.import_policy import explain_refusal, restrict_imports
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.training_profile import TrainingProfile
from medseg_pl.core.types import Case
from medseg_pl.data.cache.index import CacheIndex
from medseg_pl.data.duplicates import Duplicate
from medseg_pl.data.sources import FileSource, Source
from medseg_pl.data.sources.files import is_read_by_color, read_mask_file
from medseg_pl.data.splits import Split, SplitSettings, refuse_trained_groups
from medseg_pl.data.transforms.resize import Resize
from medseg_pl.io.file_header import read_header
from medseg_pl.io.paths import is_nifti

_SIDES = {"train": "training", "val": "validation", "test": "test"}


def open_source(
    settings: Mapping[str, Any], data_root: str | Path | None = None, plugins: Sequence[str] = ()
) -> Source:
    """Make the data source that settings describe.

    Args:
        settings: Of a checkpoint or a run, as a configuration: `data.source` holds `class_path` and `init_args`.
        data_root: The present folder of the data set; by default the one in the settings.
        plugins: Further packages whose code the settings may name.

    Raises:
        SettingError: The settings describe no source, or name code that is not allowed.
    """
    source = (settings.get("data") or {}).get("source")
    if not isinstance(source, Mapping):
        raise SettingError("The settings describe no data set. Use a checkpoint or a run of medseg fit.")
    if data_root is not None:
        source = relocate_source(source, data_root)
    # As in the command line, so that sources are checked and made in the same way.
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Source, "data.source", fail_untyped=False)
    try:
        with restrict_imports(plugins):
            parsed = parser.parse_object({"data": {"source": dict(source)}})
            opened: Source = parser.instantiate(parsed).data.source
    except (ArgumentError, ImportError) as error:
        reason = explain_refusal(str(error)) or " ".join(str(error).split())
        raise SettingError(f"The source of the data set cannot be made. {reason}") from error
    return opened


def relocate_source(source: Mapping[str, Any], data_root: str | Path) -> dict[str, Any]:
    """Return a source's settings for a data set that has moved.

    A manifest moves along with the files that it names; one that was kept apart from them stays where it is.

    Args:
        source: `class_path` and `init_args`.
        data_root: The present folder of the data set.

    >>> relocate_source({"class_path": "FolderSource", "init_args": {"root": "old"}}, "new")["init_args"]
    {'root': 'new'}
    >>> relocate_source({"init_args": {"manifest": "old/cases.csv"}}, "new")["init_args"]
    {'manifest': 'new/cases.csv'}
    """
    arguments = dict(source.get("init_args") or {})
    manifest, root = arguments.get("manifest"), arguments.get("root")
    if manifest is None:
        arguments["root"] = str(data_root)
    else:
        path = Path(manifest)
        inside = path.relative_to(root) if root is not None and path.is_relative_to(root) else Path(path.name)
        moved = Path(data_root) / inside
        stays = path.is_file() and not moved.is_file()
        arguments |= {} if stays else {"manifest": str(moved)}
        arguments |= {"root": str(data_root)} if stays or root is not None else {}
    return {**source, "init_args": arguments}


def select_recorded_cases(cases: Sequence[Case], recorded: Mapping[str, Any], side: str = "val") -> list[Case]:
    """Select the cases of one side of a checkpoint's recorded split.

    Args:
        cases: Of the data set as it is now.
        recorded: The checkpoint's record of its data: `split` by sides, and the training `groups`.
        side: `train`, `val` or `test`.

    Raises:
        DataError: Cases are gone or have lost their reference, or the checkpoint was trained on their patients.
    """
    names = recorded.get("split", {}).get(side, [])
    if not names:
        raise DataError(f"The checkpoint knows of no {_SIDES[side]} cases. Use one that medseg fit wrote.")
    annotated = {case.case_id: case for case in cases if case.masks}
    missing = [name for name in names if name not in annotated]
    if missing:
        raise DataError(
            f"The data set lacks {len(missing)} of the checkpoint's {count_noun(len(names), f'{_SIDES[side]} case')}, "
            f"or the mask, {missing[0]} among them. Name the folder of the data set with --data_root."
        )
    selected = [annotated[name] for name in names]
    if side != "train":
        refuse_trained_groups(selected, recorded.get("groups", ()))
    return selected


@dataclass(frozen=True)
class PreparedData:
    """A data set once it is decoded and split.

    Args:
        split: The cases of each side.
        cases: By their ids, without those that the split leaves out.
        index: Of the same cases in the cache, in the same order.
        mask_values: The value of each label in the training masks, see `find_mask_values`.
        duplicates: Copies on two sides of the split that are allowed.
        raters: Of the training cases in the cache, with the masks of other raters.
        orientation: Axis codes of the training slices; `None` where they are not known, or not the same.
        profile: Summary of the training cases; only a training has one.
    """

    split: Split
    cases: Mapping[str, Case]
    index: CacheIndex
    mask_values: list[int] | None = None
    duplicates: tuple[Duplicate, ...] = ()
    raters: tuple[CacheIndex, ...] = ()
    orientation: str | None = None
    profile: TrainingProfile | None = None

    @property
    def test_names(self) -> tuple[str, ...]:
        """Cases that `test` scores: the validation cases if no test cases exist."""
        return self.split.test or self.split.val

    def describe_scored(self, stage: str) -> dict[str, str]:
        """Describe the side and the split that a stage's scores are of."""
        side = "test" if stage == "test" and self.split.test else "val"
        return {"side": side, "split": self.split.origin}

    def record_split(self) -> dict[str, Any]:
        """Return the split and the allowed duplicates, readable as `data.split_file`."""
        accepted = [duplicate.as_dict() for duplicate in self.duplicates]
        return {**self.split.as_dict(), **({"accepted_duplicates": accepted} if accepted else {})}

    def record_training(self, settings: SplitSettings) -> dict[str, Any]:
        """Return what a checkpoint remembers of its training data."""
        return {
            "split": self.record_split(),
            "groups": sorted({self.cases[name].group for name in self.split.train}),
            "settings": settings.as_dict(),
            "mask_values": self.mask_values,
            "orientation": self.orientation,
        }


def prepare_data_set(
    source: Source,
    settings: SplitSettings,
    decode: Callable[[Sequence[Case]], CacheIndex],
    *,
    recorded: Mapping[str, Any] | None = None,
    channels: int,
    resize: Resize,
    mask_labels: LabelMap | None = None,
) -> PreparedData:
    """List, decode and split a data set.

    Args:
        source: The data set.
        settings: Of its split.
        decode: Decodes cases, or finds them decoded.
        recorded: A checkpoint's record of its data, whose split is kept where its settings are the same.
        channels: The number of channels that each image must have.
        resize: How images are resized for the network, which may need their spacing.
        mask_labels: Finds the values of these labels in the training masks.

    Raises:
        DataError: Cases have no mask, or cannot be split.
        SettingError: Images do not have the channels or the spacing that the model asks for.
    """
    cases = source.cases()
    require_masks(cases, "Add the masks or leave the cases out; images without masks are for predict.")
    split = settings.find_explicit_split(cases, recorded)
    # Cases that the split leaves out need not be decoded.
    if split is not None:
        named = {*split.train, *split.val, *split.test}
        cases = [case for case in cases if case.case_id in named]
    index = decode(cases)
    # Folds are balanced by the labels' voxels, which are known only now.
    if split is None:
        counts = {case.case_id: index.get_label_voxels(number) for number, case in enumerate(cases)}
        split = settings.choose(cases, {name: voxels for name, voxels in counts.items() if voxels is not None})
    _check_channels(cases, index, channels)
    _check_spacing(cases, index, resize)
    by_name = {case.case_id: case for case in cases}
    training = [by_name[name] for name in split.train] if mask_labels is not None else []
    kept = (recorded or {}).get("mask_values")  # so that masks are written as `predict` writes them
    values = kept if mask_labels is None else find_mask_values(source, training, mask_labels)
    # A checkpoint's slices stay as they were in its training, and as `predict` brings them.
    orientation = recorded.get("orientation") if recorded else find_orientation(index, split.train)
    return PreparedData(split, by_name, index, values, orientation=orientation)


def find_orientation(index: CacheIndex, case_ids: Sequence[str]) -> str | None:
    """Find the axis codes of most cases.

    Args:
        index: Of cached cases.
        case_ids: The cases to examine.

    Returns:
        `None` where a case's orientation is unknown.
    """
    selected = index.select(case_ids)
    codes = [find_axis_codes(selected.get_geometry(number)) for number in range(len(selected))]
    known = Counter(code for code in codes if code is not None)
    return known.most_common(1)[0][0] if len(codes) == known.total() and known else None


def has_other_orientation(index: CacheIndex, orientation: str | None) -> bool:
    """Tell whether a case says that it lies otherwise."""
    if orientation is None:
        return False
    codes = (find_axis_codes(index.get_geometry(number)) for number in range(len(index)))
    return any(code not in (None, orientation) for code in codes)


def require_masks(cases: Sequence[Case], remedy: str) -> None:
    """Check that each case has a mask.

    Raises:
        DataError: Some have none.
    """
    unlabeled = [case.case_id for case in cases if not case.masks]
    if unlabeled:
        raise DataError(
            f"{count_part(len(unlabeled), len(cases), 'case', 'has', 'have')} no mask, {unlabeled[0]} among them. "
            f"{remedy}"
        )


def vary_source(source: Source, settings: Mapping[str, Any]) -> Source:
    """Make another rater's source: the same with some settings changed.

    Raises:
        SettingError: The source has no such settings.

    >>> from medseg_pl.data.sources import FolderSource
    >>> vary_source(FolderSource("data", masks="masks_1st"), {"masks": "masks_2nd"}).masks
    'masks_2nd'
    """
    try:
        return type(source)(**{**source.made_with, **settings})
    except TypeError as error:
        raise SettingError(
            f"data.raters: {type(source).__name__} cannot be made with {', '.join(settings)}: {error}. Name settings "
            "of data.source that differ for the other rater, such as masks: masks_2nd."
        ) from error


def list_rater_cases(source: Source, cases: Sequence[Case]) -> list[Case]:
    """List the training cases with the masks of another rater.

    Args:
        source: Of the other rater.
        cases: The training cases.

    Raises:
        DataError: The rater has no mask of a case, or another image.
    """
    known = {case.case_id: case for case in source.cases() if case.masks}
    for case in cases:
        other = known.get(case.case_id)
        if other is None or other.images != case.images:
            raise DataError(
                f"data.raters: a rater has no mask of the image of case {case.case_id}. Each rater needs a mask of "
                "each training case; add it, or leave the rater or the case out."
            )
    return [known[case.case_id] for case in cases]


def find_annotated_labels(cases: Sequence[Case], labels: LabelMap) -> NDArray[np.bool_] | None:
    """Tell for each case and label whether it was annotated.

    Returns:
        `(cases, N)`; `None` where all labels were annotated in all cases.

    Raises:
        SettingError: Some were not, and `labels.partial` does not allow it.

    >>> cases = [Case("a", "a", ()), Case("b", "b", (), annotated_labels=("liver",))]
    >>> find_annotated_labels(cases, LabelMap(["liver", "spleen"], "multiclass", partial=True))
    array([[ True,  True],
           [ True, False]])
    """
    annotated = np.array([labels.find_annotated(case.annotated_labels) for case in cases], dtype=bool)
    if annotated.all():
        return None
    if not labels.partial:
        first = next(case for case in cases if not all(labels.find_annotated(case.annotated_labels)))
        raise SettingError(
            f"Case {first.case_id} is annotated for {', '.join(first.annotated_labels or ())} alone. Set "
            "model.labels.partial to true, so that losses and scores leave its other labels out."
        )
    return annotated


def _check_channels(cases: Sequence[Case], index: CacheIndex, channels: int) -> None:
    counts = index.shapes[:, 0]
    for number in np.flatnonzero(counts != channels)[:1].tolist():
        case = cases[number]
        raise SettingError(
            f"Case {case.case_id} ({case.images[0]}) has {count_noun(int(counts[number]), 'channel')}, but "
            f"model.channels is {channels}. Set model.channels to {counts[number]}, or convert the images that differ."
        )


def _check_spacing(cases: Sequence[Case], index: CacheIndex, resize: Resize) -> None:
    if resize.spacing_mm is None:
        return
    for number in np.flatnonzero(np.isnan(index.spacings_mm[:, 0]))[:1].tolist():
        case = cases[number]
        raise SettingError(
            f"Case {case.case_id} ({case.images[0]}) does not say its spacing, but model.spacing_mm is "
            f"{resize.spacing_mm}. Set model.spacing_mm to null, or convert the images to a format that holds it."
        )


_SAMPLED = 8


def find_mask_values(source: Source, cases: Sequence[Case], labels: LabelMap) -> list[int] | None:
    """Find from a sample whether single-label masks hold 1 or 255.

    Args:
        source: The source of the cases.
        cases: The training cases.
        labels: How masks are read; values of their own are the ones written.

    Returns:
        The value of each label; `None` where files do not leave the choice, or hold no label.
    """
    alone = labels.overlapping or len(labels.names) == 1
    if labels.values is not None or not alone or not isinstance(source, FileSource):
        return None
    values_by_label: list[set[int]] = [set() for _ in labels.names]
    for case in cases[:: max(1, len(cases) // _SAMPLED)]:
        if not source.has_value_masks(case):  # structures that are known by name have no value of their own
            return None
        shares = source.count_label_files(case) if labels.overlapping else [len(case.masks)]
        if len(shares) != len(values_by_label) or any(is_read_by_color(path, labels) for path in case.masks):
            return None
        owners = [label for label, share in enumerate(shares) for _ in range(share)]
        for path, label in zip(case.masks, owners, strict=True):
            values_by_label[label] |= _read_values(path, labels)
    seen = set[int]().union(*values_by_label)
    return [255 if (values or seen) == {255} else 1 for values in values_by_label] if seen else None


def use_mask_values(labels: LabelMap, values: Sequence[int] | None) -> LabelMap:
    """Give labels the values of their training masks, unless set.

    Args:
        labels: The labels.
        values: The value of each label, see `find_mask_values`; `None` changes nothing.

    >>> use_mask_values(LabelMap(["lesion"], "binary"), [255]).file_values
    (255,)
    """
    return labels if values is None or labels.values is not None else replace(labels, values=list(values))


def _read_values(path: Path, labels: LabelMap) -> set[int]:
    values = np.unique(read_mask_file(path, labels)[0])
    if labels.tolerance:  # then 255 stands for the label, as `LabelMap` reads it
        return {255} if (values > labels.tolerance).any() else set()
    return {value for value in (1, 255) if value in values and value != labels.ignore_value}


def find_time_axes(cases: Sequence[Case]) -> list[str]:
    """Find points in time that are read as channels.

    Args:
        cases: The cases of one data set, whose first volume is examined.

    Returns:
        A sentence about them, or nothing.
    """
    first = next((path for case in cases for path in case.images[:1] if is_nifti(path)), None)
    times = 0 if first is None else read_header(first).times
    if not times:
        return []
    return [
        f"{first} has {times} points in time, which are read as channels. Write each to a file of its own unless they "
        "are to be seen together."
    ]
