"""`fit`, `validate`, `test` and `predict`: LightningCLI with medseg's wiring."""

from __future__ import annotations

import difflib
import logging
import os
import pickle
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

import torch
import yaml
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint, RichProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger

import medseg_pl.losses  # noqa: F401  its classes can then be named without their module
from medseg_pl.callbacks import EpochLines, OverlayWriter, PredictionWriter, RunRecord, ScoreWriter
from medseg_pl.core.errors import MissingDataError, SettingError, UnreadableFileError
from medseg_pl.datamodule import SegmentationDataModule
from medseg_pl.module import SegmentationModule

SHARED = ("labels.names", "labels.task", "labels.values", "labels.ignore_value", "channels", "context", "fit", "size")
"""Settings that the data takes from the model, because they travel with the weights."""


_NOISE = (
    "LightningCLI's args parameter is intended",
    ".*does not have many workers.*",
    ".*smaller than the logging interval.*",
    ".*LeafSpec.*",
    ".*in eval mode at the start of training.*",
    ".*Trainer was configured.*logger=False",
    ".*instantiate_classes.*",
)


class MedsegParser(LightningArgumentParser):
    """Answers wrong use with one paragraph, and a misspelt key with the nearest that exists."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise instead of printing the usage and leaving."""
        raise SettingError(_one_paragraph(message, self)) from ex


class MedsegCLI(LightningCLI):
    """Wires module and data module, the run folder, and the settings that a checkpoint carries."""

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """As LightningCLI's, with our errors."""
        kwargs.setdefault("dump_header", ["medseg"])
        parser = MedsegParser(**kwargs)
        parser.add_argument("-c", "--config", action="config", help="A YAML file; may be given several times.")
        return parser

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the run folder, and link what the data takes from the model."""
        parser.add_argument("--experiment", type=str, default="default", help="Name of the run's folder.")
        parser.add_argument("--runs", type=str, default="runs", help="Where the folders of all experiments are.")
        for name in SHARED:
            parser.link_arguments(f"model.{name}", f"data.{name}")
        parser.link_arguments("seed_everything", "data.seed", compute_fn=int)

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        if subcommand == "predict":
            parser.add_argument("--input", type=str, required=True, help="A folder of images in the data set's layout.")
            parser.add_argument("--output", type=str, required=True, help="A new folder for the masks.")
            parser.set_defaults(return_predictions=False)  # otherwise every mask stays in memory
        return parser

    def _parse_ckpt_path(self) -> None:
        """Nothing: the checkpoint's settings are defaults already, so that given ones win."""

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Add the loggers and callbacks that every run has."""
        own = self._get(self.config_init, "trainer")
        if self.subcommand == "fit":
            kwargs["logger"] = [self._run_folder(), *_as_list(own.get("logger"))]
        else:
            kwargs["logger"] = False
        kwargs["enable_progress_bar"] = sys.stdout.isatty()
        kwargs["enable_model_summary"] = False
        given = _as_list(own.get("callbacks"))
        kwargs["callbacks"] = [*given, *self._callbacks(given)]
        return super().instantiate_trainer(**kwargs)

    def before_predict(self) -> None:
        """Read from `--input`."""
        self.datamodule.predict_from(Path(self._get(self.config, "input")))

    def after_fit(self) -> None:
        """Score the validation cases with the best weights, loaded from disk as anyone would."""
        best = next(c for c in self.trainer.callbacks if isinstance(c, ModelCheckpoint)).best_model_path
        if best:
            self.trainer.validate(self.model, datamodule=self.datamodule, ckpt_path=best, verbose=False)

    def _run_folder(self) -> CSVLogger:
        return CSVLogger(self._get(self.config, "runs"), name=self._get(self.config, "experiment"))

    def _callbacks(self, given: Sequence[Callback]) -> list[Callback]:
        progress: list[Callback] = [RichProgressBar()] if sys.stdout.isatty() else [EpochLines()]
        if self.subcommand == "predict":
            return [*progress, PredictionWriter(self._get(self.config, "output"))]
        if self.subcommand == "fit":
            has_own = any(isinstance(callback, ModelCheckpoint) for callback in given)
            checkpoints = [] if has_own else [best_and_last()]
            return [*progress, *checkpoints, LearningRateMonitor(), RunRecord(), ScoreWriter(), OverlayWriter()]
        folder = run_folder_of(Path(self._get(self.config, "ckpt_path")))
        return [*progress, ScoreWriter(str(folder)), OverlayWriter(directory=str(folder))]


def run(command: str, arguments: Sequence[str]) -> int:
    """Run one of Lightning's subcommands; the exit code."""
    _quiet_libraries()
    with _checkpoint_defaults(command, arguments) as defaults:
        MedsegCLI(
            SegmentationModule,
            SegmentationDataModule,
            args=[command, *arguments],
            seed_everything_default=0,
            auto_configure_optimizers=False,
            save_config_callback=SaveConfigCallback if command == "fit" else None,
            parser_kwargs={"prog": "medseg", command: {"default_config_files": defaults}},
        )
    return 0


def best_and_last() -> ModelCheckpoint:
    """`best.ckpt` by validation Dice, and `last.ckpt`."""
    return ModelCheckpoint(
        monitor="val/dice",
        mode="max",
        filename="best",
        save_last=True,
        auto_insert_metric_name=False,
        enable_version_counter=False,
    )


def run_folder_of(checkpoint: Path) -> Path:
    """The run folder that a checkpoint lies in, or its own folder where it was moved.

    >>> run_folder_of(Path("runs/demo/version_0/checkpoints/best.ckpt")).as_posix()
    'runs/demo/version_0'
    """
    folder = checkpoint.parent
    return folder.parent if folder.name == "checkpoints" else folder


def checkpoint_settings(path: Path) -> dict[str, Any]:
    """The settings of model, data and precision that a checkpoint carries, as a configuration.

    Raises:
        MissingDataError: There is no such file.
        UnreadableFileError: The file is no checkpoint of medseg, or would run code when loaded.
    """
    if not path.is_file():
        raise MissingDataError(f"There is no checkpoint {path}. Set --ckpt_path to a file such as checkpoints/best.ckpt.")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        model = dict(checkpoint["hyper_parameters"])
        data = dict(checkpoint["datamodule_hyper_parameters"])
    except (pickle.UnpicklingError, KeyError, TypeError, RuntimeError, OSError, EOFError, ValueError) as error:
        raise UnreadableFileError(
            f"{path} is not a checkpoint that medseg fit wrote, or it is damaged "
            f"({type(error).__name__}). Use best.ckpt or last.ckpt of a run folder."
        ) from error
    for settings in (model, data):
        settings.pop("_instantiator", None)
    for name in (*SHARED, "seed"):
        data.pop(name.split(".")[0], None)
    # The weights come from the checkpoint: nothing is downloaded or read to start from.
    model["initial_weights"] = None
    arguments = model["network"].get("init_args") or {}
    if "encoder_weights" in arguments:
        arguments["encoder_weights"] = None
    return {"model": model, "data": data, "trainer": {"precision": checkpoint.get("precision", "32-true")}}


@contextmanager
def _checkpoint_defaults(command: str, arguments: Sequence[str]) -> Iterator[list[str]]:
    """The checkpoint's settings as a configuration of the lowest rank: whatever is given wins over it."""
    wants_help = any(argument in ("-h", "--help") for argument in arguments)
    if command == "fit" or wants_help:
        yield []
        return
    path = _option(arguments, "ckpt_path")
    if path is None:
        raise SettingError(f"medseg {command} needs --ckpt_path FILE, such as runs/demo/version_0/checkpoints/best.ckpt.")
    if "://" in path:
        raise SettingError(f"--ckpt_path {path} is a URL; checkpoints are loaded from files alone. Download it first.")
    with TemporaryDirectory(prefix="medseg-") as folder:
        file = Path(folder) / "checkpoint.yaml"
        file.write_text(yaml.safe_dump(checkpoint_settings(Path(path))), encoding="utf-8")
        yield [str(file)]


def _option(arguments: Sequence[str], name: str) -> str | None:
    for i, argument in enumerate(arguments):
        if argument == f"--{name}" and i + 1 < len(arguments):
            return arguments[i + 1]
        if argument.startswith(f"--{name}="):
            return argument.split("=", 1)[1]
    return None


def _one_paragraph(message: str, parser: LightningArgumentParser) -> str:
    """A parser's message without its layout, with the nearest key that exists."""
    text = " ".join(message.split())
    wrong = re.search(r"(?:[Kk]ey ['\"]|[Uu]nrecognized arguments?: --|[Nn]o action for key ['\"])([\w.]+)", text)
    if wrong is None:
        return text
    known = [action.dest for action in parser._actions if action.dest]
    near = difflib.get_close_matches(wrong.group(1), known, n=1)
    return f"{text.rstrip('.')}. Did you mean {near[0]}?" if near else text


def _as_list(value: Any) -> list[Any]:
    if value in (None, True, False):
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _quiet_libraries() -> None:
    """What libraries say for their own sake; warnings about the user's data and settings stay."""
    os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.basicConfig(format="%(message)s")
    for message in _NOISE:
        warnings.filterwarnings("ignore", message)
