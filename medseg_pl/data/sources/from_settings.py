"""Data sets reopened from the settings of a checkpoint or a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser

from medseg_pl.core.errors import DataError, SettingError
from medseg_pl.core.import_policy import explain_refusal, restrict_imports
from medseg_pl.core.types import Case
from medseg_pl.data.sources.base import Source
from medseg_pl.data.splits import refuse_trained_groups

_SIDES = {"train": "training", "val": "validation", "test": "test"}


def open_source(
    settings: Mapping[str, Any], data_root: str | Path | None = None, plugins: Sequence[str] = ()
) -> Source:
    """Make the data source that settings describe.

    Args:
        settings: Of a checkpoint or a run, as a configuration: `data.source` holds `class_path` and `init_args`.
        data_root: Where the data set is now; by default where the settings have it.
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
        data_root: Where the data set is now.

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
    """Select the cases on one side of the split that a checkpoint has recorded.

    Args:
        cases: Of the data set as it is now.
        recorded: What the checkpoint says of its data: `split` by sides, and the `groups` that were trained on.
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
            f"{len(missing)} of the checkpoint's {len(names)} {_SIDES[side]} cases are not there or have no mask, "
            f"{missing[0]} among them. Name the folder of the data set with --data_root."
        )
    selected = [annotated[name] for name in names]
    if side != "train":
        refuse_trained_groups(selected, recorded.get("groups", ()))
    return selected
