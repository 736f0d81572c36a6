"""The cases of a run read again, and the best weights that predict them, as the run's checkpoint describes both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from jsonargparse import ArgumentError

from medseg_pl.core.errors import DataError, MedsegError, SettingError
from medseg_pl.core.import_policy import only_known_code, refusal
from medseg_pl.core.labels import LabelMap
from medseg_pl.core.types import Case, Volume
from medseg_pl.data.sources import Source
from medseg_pl.inference.predictor import Predictor
from medseg_pl.reporting.run import Run
from medseg_pl.training.checkpoints import read_checkpoint
from medseg_pl.training.datamodule import SegmentationDataModule

T = TypeVar("T")


class DataSet(NamedTuple):
    """The source of a run, and its cases by their ids."""

    source: Source
    cases: dict[str, Case]

    def read(self, case_id: str, labels: LabelMap) -> Volume:
        """The pixels of a case, with its reference.

        Raises:
            DataError: The data does not have the case, or not its reference, or it cannot be read.
        """
        if case_id not in self.cases:
            raise DataError(f"The data has no case {case_id} any more. Name the data of the run with --data.")
        volume = self.source.read(self.cases[case_id], labels)
        if volume.mask is None:
            raise DataError(f"Case {case_id} has no reference any more. Name the data of the run with --data.")
        return volume


def data_set_of(run: Run, where: Path | None, plugins: Sequence[str]) -> DataSet:
    """Find the cases of a run.

    Args:
        run: The run, whose checkpoint names its source.
        where: The folder that the data set is in now; that of the training by default.
        plugins: Packages of code that the settings may name.

    Raises:
        MedsegError: The checkpoint or the data is not there, or is not allowed to be made.
    """
    trained = read_checkpoint(str(run.checkpoint))
    source = dict(trained.settings["data"]["source"])
    if where is not None:
        source["init_args"] = _moved(dict(source.get("init_args") or {}), where)
    try:
        with only_known_code(plugins):
            module = SegmentationDataModule.load_from_checkpoint(
                trained.path, map_location="cpu", weights_only=True, source=source
            )
    except (ArgumentError, ImportError) as error:
        reason = refusal(str(error)) or " ".join(str(error).split())
        raise SettingError(f"The source of {trained.path} cannot be made. {reason}") from error
    return DataSet(module.source, {case.case_id: case for case in module.source.cases()})


def predictor_of(run: Run, plugins: Sequence[str]) -> Predictor:
    """The best weights of a run, on a GPU where there is one.

    Raises:
        MedsegError: They are not there, or cannot be loaded.
    """
    return Predictor.from_checkpoint(run.checkpoint, plugins=plugins)


def attempt(make: Callable[[], T], notes: list[str]) -> T | None:
    """What `make` gives; `None` and a note where files or settings do not let it."""
    try:
        return make()
    except (MedsegError, OSError) as error:
        notes.append(str(error))
        return None


def _moved(settings: dict[str, Any], where: Path) -> dict[str, Any]:
    """The settings of a source whose data lies elsewhere now; a manifest keeps its name."""
    if "manifest" in settings:
        return {**settings, "manifest": str(where / Path(str(settings["manifest"])).name)}
    return {**settings, "root": str(where)}
