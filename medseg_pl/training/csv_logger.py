"""The CSV logger of run folders: one `metrics.csv` however often a run is interrupted, never behind a checkpoint."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.fabric.utilities.apply_func import convert_tensors_to_scalars
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.core.saving import save_hparams_to_yaml
from lightning.pytorch.loggers import CSVLogger

from medseg_pl.core.errors import UnwritableFileError
from medseg_pl.io.atomic_files import write_text
from medseg_pl.io.folders import FolderLocks
from medseg_pl.io.scores import read_metrics

Row = Mapping[str, Any]


class RunLogger(CSVLogger):
    """Lightning's CSV logger, for run folders that may be resumed.

    Args:
        runs: The folder of all experiments.
        experiment: The experiment's name.
        locks: Lock the run folder for this process.
        version: The run folder's name; the next free one by default.
        resumed_at: Steps done at the state that the run resumes. Rows of later steps are dropped: those steps come
            again.
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
        """File of the metrics; rank zero makes it with the run folder."""
        if self._file is None:
            # Now and not in the constructor: a run that fails while its data is read leaves no folder.
            self._make_folder()
            self.locks.acquire(Path(self.log_dir))
            self._file = MetricsFile(Path(self.log_dir), self.resumed_at)
        return self._file

    def _make_folder(self) -> None:
        """Make the run folder, under another number if its own is taken."""
        while True:
            try:
                Path(self.log_dir).mkdir(parents=True, exist_ok=not self.is_new)
            # A file of that name is somebody's; another number would hide that it is there.
            except FileExistsError:
                if not Path(self.log_dir).is_dir():
                    raise
                self._version = None
            else:
                return

    def finalize(self, status: str) -> None:
        """Write the rows that wait."""
        if self._file is not None:
            self._file.save()


class LogBeforeSave(Callback):
    """Write everything that was logged to disk before any checkpoint.

    Lightning logs a step's values after the hooks of that step, in which checkpoints are saved. A process that is
    killed in between would leave no row of the step: whoever resumes from the checkpoint does not make it again.
    """

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Log what is about to be logged, and write it."""
        if _is_log_pending(trainer):
            metrics = convert_tensors_to_scalars(trainer._logger_connector.metrics["log"])
            step = metrics.pop("step", trainer.global_step - 1)  # as Lightning's logger connector has it
            for logger in trainer.loggers:
                if isinstance(logger, RunLogger) and metrics:
                    logger.log_metrics({**metrics, "epoch": trainer.current_epoch}, int(step))
        for logger in trainer.loggers:
            logger.save()


def _is_log_pending(trainer: Trainer) -> bool:
    """Tell whether Lightning logs after this hook."""
    # It does at the end of a batch with a logged step, or of an epoch.
    if not trainer.training:
        return False
    batches: Any = trainer.fit_loop.epoch_loop.batch_progress.current
    epochs: Any = trainer.fit_loop.epoch_progress.current
    # Lightning counts `completed` after the hooks of a batch, so while they differ the hooks are still running.
    if batches.processed == batches.completed:
        return bool(epochs.processed != epochs.completed)
    return trainer._logger_connector.should_update_logs and not trainer.fit_loop._should_accumulate()


class MetricsFile:
    """A table that grows in rows and columns, and loses no row.

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
            rows = select_rows_before(read_metrics(self.path), resumed_at)
            self._columns = _list_columns(rows)
            self._replace(rows)

    def log_metrics(self, metrics: Row, step: int | None = None) -> None:
        """Add a row, which `save` writes."""
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
        """Append the rows that wait.

        A new column takes a new file, which replaces the old one when it is whole.

        Raises:
            UnwritableFileError: The file cannot be written; its content stays.
        """
        if not self.metrics:
            return
        columns = sorted({*self._columns, *_list_columns(self.metrics)})
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
                file.write(_format_csv(rows, self._columns))
        except OSError as error:
            raise _make_write_error(self.path, error) from error

    def _replace(self, rows: Sequence[Row]) -> None:
        header = _format_csv([dict(zip(self._columns, self._columns, strict=True))], self._columns)
        try:
            write_text(self.path, header + _format_csv(rows, self._columns), replace=True)
        except OSError as error:
            raise _make_write_error(self.path, error) from error


def select_rows_before(rows: Sequence[dict[str, str]], step: int | None) -> list[dict[str, str]]:
    """Select the rows of the steps that a state has done.

    Steps are counted from 0 in a log: the third step's row stands at 2, and a state of three steps keeps it.

    Args:
        rows: The log.
        step: The steps that are done; all rows are selected where `None`.

    >>> select_rows_before([{"step": "2", "loss": "0.5"}, {"step": "3", "loss": "0.4"}], 3)
    [{'step': '2', 'loss': '0.5'}]
    """
    return [row for row in rows if step is None or int(row["step"]) < step]


def _list_columns(rows: Iterable[Row]) -> list[str]:
    return sorted({name for row in rows for name in row})


def _format_csv(rows: Iterable[Row], columns: Sequence[str]) -> str:
    text = io.StringIO(newline="")
    csv.DictWriter(text, columns, restval="").writerows(rows)
    return text.getvalue()


def _make_write_error(path: Path, error: OSError) -> UnwritableFileError:
    return UnwritableFileError(
        f"{path} could not be written: {error.strerror or error}. What it held stays. Make room or make the folder "
        "writable, then go on with medseg fit and the same settings, and --ckpt_path last."
    )
