"""`fit`, `validate`, `test` and `predict`: LightningCLI with medseg's wiring."""

from __future__ import annotations

import difflib
import inspect
import logging
import pickle
import re
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

import torch
import yaml
from jsonargparse import ArgumentParser
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint, RichProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger

import medseg_pl.losses  # noqa: F401  its classes can then be named without their module
from medseg_pl.callbacks import EpochLines, OverlayWriter, PredictionWriter, RunRecord, ScoreWriter
from medseg_pl.core.errors import MissingDataError, SettingError, UnreadableFileError
from medseg_pl.datamodule import SegmentationDataModule
from medseg_pl.io.files import require_empty
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
    ".*callbacks used to create the checkpoint need to be provided.*",
    ".*custom batch sampler.*",
)


class MedsegParser(LightningArgumentParser):
    """Answers wrong use with one paragraph, and a misspelt key with the nearest that exists."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise instead of printing the usage and leaving."""
        raise SettingError(_one_paragraph(message, _known_keys(self, ex, message))) from ex


class MedsegCLI(LightningCLI):
    """Wires module and data module, the run folder, and the settings that a checkpoint carries."""

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """As LightningCLI's, with our errors."""
        kwargs.setdefault("dump_header", ["medseg"])
        kwargs["allow_abbrev"] = False  # otherwise a misspelt setting may be taken for another
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
        # Lightning's sampler pads: cases would be scored twice. Ours share cases and samples among ranks.
        parser.set_defaults({"trainer.use_distributed_sampler": False})

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        if subcommand in ("validate", "test"):
            parser.set_defaults(verbose=False)  # our table says it
        if subcommand == "predict":
            parser.add_argument("--input", type=str, required=True, help="A folder of images in the data set's layout.")
            parser.add_argument("--output", type=str, required=True, help="A new folder for the masks.")
            parser.set_defaults(return_predictions=False)  # otherwise every mask stays in memory
        return parser

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Answer a misspelt top-level key first: without its section, whatever else is missing would be blamed."""
        for path in _options(args, "config", "c"):
            _check_sections(Path(path), [action.dest for action in self._parser(args[0])._actions])
        super().parse_arguments(parser, args)

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

    def predict(self, **kwargs: Any) -> None:
        """Read from `--input`; what is decoded on the way stays no longer than the run."""
        require_empty(Path(self._get(self.config, "output")))
        with TemporaryDirectory(prefix="medseg-") as scratch:
            self.datamodule.predict_from(Path(self._get(self.config, "input")), Path(scratch))
            self.trainer.predict(**kwargs)

    def after_fit(self) -> None:
        """Score the validation cases with the best weights, loaded from disk as anyone would."""
        best = self.trainer.checkpoint_callback
        if isinstance(best, ModelCheckpoint) and best.best_model_path:
            self.trainer.validate(self.model, datamodule=self.datamodule, ckpt_path=best.best_model_path, verbose=False)

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
        raise MissingDataError(
            f"There is no checkpoint {path}. Set --ckpt_path to a file such as checkpoints/best.ckpt."
        )
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
    path = next(iter(_options(arguments, "ckpt_path")), None)
    if path is None:
        raise SettingError(
            f"medseg {command} needs --ckpt_path FILE, such as runs/demo/version_0/checkpoints/best.ckpt."
        )
    if "://" in path:
        raise SettingError(f"--ckpt_path {path} is a URL; checkpoints are loaded from files alone. Download it first.")
    with TemporaryDirectory(prefix="medseg-") as folder:
        file = Path(folder) / "checkpoint.yaml"
        file.write_text(yaml.safe_dump(checkpoint_settings(Path(path))), encoding="utf-8")
        yield [str(file)]


def _options(arguments: Sequence[str], *names: str) -> list[str]:
    """The values of an option in the raw arguments, before any parser is made."""
    flags = tuple(("-" if len(name) == 1 else "--") + name for name in names)
    separate = [value for flag, value in pairwise(arguments) if flag in flags]
    return separate + [
        argument.split("=", 1)[1] for argument in arguments if argument.startswith(tuple(f"{f}=" for f in flags))
    ]


def _check_sections(path: Path, known: Sequence[str]) -> None:
    if not path.is_file():
        raise SettingError(f"There is no configuration {path}. The shipped ones are in configs/.")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingError(f"{path} is not valid YAML: {' '.join(str(error).split())}.") from error
    sections = sorted({name.split(".")[0] for name in known})
    for key in content if isinstance(content, dict) else ():
        if key not in sections:
            near = difflib.get_close_matches(str(key), sections, n=1)
            hint = f"Did you mean {near[0]}?" if near else f"Expected one of {', '.join(sections)}."
            raise SettingError(f"{path} has the section {key!r}, which does not exist. {hint}")


def _one_paragraph(message: str, known: Sequence[str]) -> str:
    """A parser's message without its layout, and with the nearest name where one is misspelt.

    >>> _one_paragraph("Option 'bach_size' is not accepted", ["data.batch_size", "data.fold"])
    "Option 'bach_size' is not accepted. Did you mean batch_size?"
    """
    text = " ".join(message.replace("Parser key", "The setting").split()).rstrip(".")
    # Of a union, the type that was meant is the one with a complaint of its own; the rest is about null.
    text = re.sub(
        r"Does not validate against any of the Union subtypes.*?Errors: - (.*?\.?) - Expected a.*", r"\1", text
    )
    no_class = re.search(r"module '([\w.]+)' has no attribute '(\w+)'", text)
    wrong = re.search(r"(?:[Oo]ption '|arguments: --)([\w.]+)", text)
    if no_class is not None:
        name, candidates = no_class.group(2), dir(sys.modules.get(no_class.group(1)))
    elif wrong is not None:
        name = wrong.group(1)
        candidates = list(known) if "." in name else [key.rsplit(".", 1)[-1] for key in known]
    else:
        return f"{text}."
    near = difflib.get_close_matches(name, candidates, n=1)
    return f"{text.rstrip('.')}. Did you mean {near[0]}?" if near else f"{text}."


def _known_keys(parser: LightningArgumentParser, error: BaseException | None, message: str) -> list[str]:
    """What the misspelt key may have been meant to be.

    The keys of the parser and its subcommands, of the parsers for classes that the error passed through, and the
    arguments of a class that the message names.
    """
    parsers: list[ArgumentParser] = [parser]
    for action in parser._actions:
        parsers += action.choices.values() if isinstance(action.choices, dict) else []
    while error is not None:
        for frame, _ in traceback.walk_tb(error.__traceback__):
            parsers += [value for value in frame.f_locals.values() if isinstance(value, ArgumentParser)]
        error = error.__cause__ or error.__context__
    keys = [action.dest for each in parsers for action in each._actions]
    for module, name in re.findall(r"'class_path': '([\w.]+)\.(\w+)'", message):
        keys = [*inspect.signature(getattr(sys.modules[module], name)).parameters, *keys]
    return list(dict.fromkeys(keys))


def _as_list(value: Any) -> list[Any]:
    if value in (None, True, False):
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _quiet_libraries() -> None:
    """What libraries say for their own sake; warnings about the user's data and settings stay."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)  # five retries, each told twice; we say it once
    logging.basicConfig(format="%(message)s")
    for message in _NOISE:
        warnings.filterwarnings("ignore", message)
