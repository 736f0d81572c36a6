"""`metrics.csv`: what a run logged, in one file however often the run was interrupted."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.core.saving import save_hparams_to_yaml
from lightning.pytorch.loggers import CSVLogger

from medseg_pl.core.errors import UnwritableFileError
from medseg_pl.io.atomic_files import write_text
from medseg_pl.io.locks import FolderLocks
from medseg_pl.io.scores import read_metrics

Row = Mapping[str, Any]


class RunLogger(CSVLogger):
    """Lightning's CSV logger for a run folder that may hold the first part of the run.

    Args:
        runs: The folder of all experiments.
        experiment: The experiment's name.
        locks: Takes the run folder for this process.
        version: The run folder's name; the next free one by default.
        resumed_at: Steps behind the state that the run goes on from. Rows of later steps are dropped: those steps
            come again.
    """

    def __init__(
        self,
        runs: Path,
        experiment: str,
        locks: FolderLocks,
        version: str | None = None,
        resumed_at: int | None = None,
    ) -> None:
        super().__init__(runs, name=experiment, version=version)
        self.is_new = version is None
        self.resumed_at = resumed_at
        self.locks = locks
        self._file: MetricsFile | None = None

    @property
    @rank_zero_experiment
    def experiment(self) -> MetricsFile:
        """The file; made with the run folder when training is set up, on rank zero."""
        if self._file is None:
            self._make_folder()
            self.locks.take(Path(self.log_dir))
            self._file = MetricsFile(Path(self.log_dir), self.resumed_at)
        return self._file

    def _make_folder(self) -> None:
        """Make the run folder; a new one under another number if someone has made it since its number was chosen."""
        while True:
            try:
                Path(self.log_dir).mkdir(parents=True, exist_ok=not self.is_new)
            except FileExistsError:
                if not Path(self.log_dir).is_dir():
                    raise
                self._version = None
            else:
                return

    def finalize(self, status: str) -> None:
        """Write what is left."""
        if self._file is not None:
            self._file.save()


class MetricsFile:
    """A table that grows, in rows and in columns; a row that is on the disk is never in danger again.

    A value that a step has already logged is left out: `LogBeforeSave` writes before Lightning does, and Lightning's
    monitor of learning rates writes once for each batch of which gradients are accumulated.

    Args:
        folder: The run folder.
        resumed_at: See `RunLogger`.
    """

    def __init__(self, folder: Path, resumed_at: int | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "metrics.csv"
        self.settings = folder / "hparams.yaml"
        self.metrics: list[Row] = []
        self._columns: list[str] = []
        self._newest: dict[str, Any] = {}
        if self.path.is_file():
            rows = rows_before(read_metrics(self.path), resumed_at)
            self._columns = _columns(rows)
            self._replace(rows)

    def log_metrics(self, metrics: Row, step: int | None = None) -> None:
        """Add a row; it is written by `save`."""
        values = {name: value.item() if hasattr(value, "item") else value for name, value in metrics.items()}
        before = self._newest if self._newest.get("step") == step else {"step": step}
        new = {name: value for name, value in values.items() if name == "epoch" or before.get(name) != value}
        self._newest = {**before, **values}
        if new.keys() - {"epoch"} or not values:
            self.metrics.append({**new, "step": step})

    def log_hparams(self, params: dict[str, Any]) -> None:
        """Write the module's settings, once: those of the first start stay."""
        if not self.settings.exists():
            save_hparams_to_yaml(str(self.settings), params)

    def save(self) -> None:
        """Append what waits; a new column takes a new file, which replaces the old one when it is whole.

        Raises:
            UnwritableFileError: The file cannot be written; what is in it stays.
        """
        if not self.metrics:
            return
        columns = sorted({*self._columns, *_columns(self.metrics)})
        if columns == self._columns:
            self._append(self.metrics)
        else:
            before = read_metrics(self.path) if self.path.is_file() else []
            self._columns = columns
            self._replace([*before, *self.metrics])
        self.metrics = []

    def _append(self, rows: Sequence[Row]) -> None:
        try:
            with self.path.open("a", newline="", encoding="utf-8") as file:
                file.write(_as_csv(rows, self._columns))
        except OSError as error:
            raise _unwritable(self.path, error) from error

    def _replace(self, rows: Sequence[Row]) -> None:
        header = _as_csv([dict(zip(self._columns, self._columns, strict=True))], self._columns)
        try:
            write_text(self.path, header + _as_csv(rows, self._columns), replace=True)
        except OSError as error:
            raise _unwritable(self.path, error) from error


def rows_before(rows: Sequence[dict[str, str]], step: int | None) -> list[dict[str, str]]:
    """The rows of the steps that are behind a state; all without one.

    Steps are counted from 0 in a log: what the third step logged stands at 2, and a state of three steps keeps it.

    >>> rows_before([{"step": "2", "loss": "0.5"}, {"step": "3", "loss": "0.4"}], 3)
    [{'step': '2', 'loss': '0.5'}]
    """
    return [row for row in rows if step is None or int(row["step"]) < step]


def _columns(rows: Iterable[Row]) -> list[str]:
    return sorted({name for row in rows for name in row})


def _as_csv(rows: Iterable[Row], columns: Sequence[str]) -> str:
    text = io.StringIO(newline="")
    csv.DictWriter(text, columns, restval="").writerows(rows)
    return text.getvalue()


def _unwritable(path: Path, error: OSError) -> UnwritableFileError:
    return UnwritableFileError(
        f"{path} could not be written: {error.strerror or error}. What it held stays. Make room or make the folder "
        "writable, then go on with medseg fit and the same settings, and --ckpt_path last."
    )
