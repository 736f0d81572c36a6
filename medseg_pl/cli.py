"""`fit`, `validate`, `test` and `predict`: LightningCLI with medseg's wiring."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from jsonargparse import Namespace
from lightning.fabric.plugins import CheckpointIO, ClusterEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint, RichProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

import medseg_pl.losses  # noqa: F401  its classes can then be named without their module
from medseg_pl.callbacks import (
    BoardRecord,
    ConfigRecord,
    Dashboard,
    EpochLines,
    Guard,
    OverlayWriter,
    PhaseNote,
    PredictionWriter,
    Preemption,
    ReviewQueue,
    RunRecord,
    ScoreWriter,
    make_private,
)
from medseg_pl.checkpointing import (
    NEWEST,
    SHARED,
    BestCheckpoint,
    DurableCheckpointIO,
    LastCheckpoint,
    Resumption,
    Trained,
    find_resumption,
    is_complete,
    newest_run,
    read_trained,
    record_complete,
    run_folder_of,
)
from medseg_pl.core.errors import DataError, SettingError
from medseg_pl.core.stopping import StopRequest
from medseg_pl.datamodule import SegmentationDataModule
from medseg_pl.faults import in_words
from medseg_pl.io.files import digest_of
from medseg_pl.io.locks import FolderLocks
from medseg_pl.io.output import OutputFolder
from medseg_pl.module import SegmentationModule
from medseg_pl.parser import MedsegParser, check_sections, first_only, options, place_of, unfit, without
from medseg_pl.prediction import PredictionModule
from medseg_pl.predictor import Predictor, load_module, load_weights
from medseg_pl.run_log import RunLog
from medseg_pl.trust import only_known_code

_NOISE = (
    "LightningCLI's args parameter is intended",
    ".*does not have many workers.*",
    ".*smaller than the logging interval.*",
    ".*LeafSpec.*",
    ".*in eval mode at the start of training.*",
    ".*Trainer was configured.*logger=False",
    "Checkpoint directory .* exists and is not empty",  # a run that goes on
    ".*instantiate_classes.*",
    ".*callbacks used to create the checkpoint need to be provided.*",
    ".*custom batch sampler.*",
    "Image size .* exceeds limit of .* pixels, could be decompression bomb",  # ours is larger, and is an error
    "The `srun` command is available on your system but is not used",  # not every run on a cluster's machine is a job
    ".*recommended to use `self.log.*sync_dist=True",  # scores are merged by case before they are logged
)


class _RunIsComplete(Exception):  # noqa: N818  an answer and no error
    """A run that is to be gone on with has trained as long as it was told to."""


class MedsegCLI(LightningCLI):
    """Wires module and data module, the run folder, and the settings that a checkpoint carries."""

    def __init__(
        self,
        *args: Any,
        trained: Trained | None,
        others: Sequence[Trained] = (),
        stop: StopRequest | None = None,
        locks: FolderLocks | None = None,
        doing: PhaseNote | None = None,
        **kwargs: Any,
    ) -> None:
        self.trained = trained
        self.others = others
        self.stop = stop or StopRequest()
        self.locks = locks or FolderLocks()
        self.doing = doing or PhaseNote()
        self.resumption: Resumption | None = None
        self.arguments: Sequence[str] = kwargs.get("args") or ()
        super().__init__(*args, **kwargs)

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """As LightningCLI's, with our errors."""
        kwargs.setdefault("dump_header", ["medseg"])
        kwargs["allow_abbrev"] = False  # otherwise a misspelt setting may be taken for another
        parser = MedsegParser.that_knows(self._place_of)(**kwargs)
        parser.add_argument("-c", "--config", action="config", help="A YAML file; may be given several times.")
        return parser

    def _place_of(self, name: str) -> str:
        settings = yaml.safe_dump(self.trained.settings) if self.trained else ""
        return place_of(name, self.arguments, self.trained and self.trained.path, settings)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the run folder, and link what the data takes from the model."""
        parser.add_argument("--experiment", type=str, default="default", help="Name of the run's folder.")
        parser.add_argument("--runs", type=str, default="runs", help="Where the folders of all experiments are.")
        for name in SHARED:
            parser.link_arguments(f"model.{name}", f"data.{name}")
        for part in ("model", "data"):
            parser.link_arguments("seed_everything", f"{part}.seed", compute_fn=int)
        defaults = {
            # Lightning's sampler pads: cases would be scored twice. Ours share cases and samples among ranks.
            "trainer.use_distributed_sampler": False,
            "trainer.enable_model_summary": False,
            "trainer.max_epochs": 100,  # not a thousand, as Lightning has it
        }
        parser.set_defaults(defaults)

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        parser.set_defaults(weights_only=True)  # a checkpoint is data: it runs no code
        if subcommand in ("validate", "test"):
            parser.set_defaults(verbose=False)  # our table says it
        if subcommand == "predict":
            parser.add_argument("--input", type=str, required=True, help="A folder of images in the data set's layout.")
            parser.add_argument("--output", type=str, required=True, help="A new folder for the masks.")
            parser.add_argument("--probabilities", type=bool, default=False, help="Write the probabilities, too.")
            parser.add_argument("--overlays", type=bool, default=False, help="Draw a picture of each case, too.")
            parser.add_argument("--review", type=bool, default=False, help="Say which cases a person should look at.")
            parser.add_argument("--review_top", type=int, default=20, help="How many of them to draw.")
        return parser

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Answer a misspelt top-level key first: without its section, whatever else is missing would be blamed."""
        for path in options(args, "config", "c"):
            check_sections(Path(path), [action.dest for action in self._parser(args[0])._actions])
        super().parse_arguments(parser, args)

    def _parse_ckpt_path(self) -> None:
        """Nothing: the checkpoint's settings are defaults already, so that given ones win."""

    def before_instantiate_classes(self) -> None:
        """Refuse checkpoints that are not the file whose settings were read; find the one to go on from."""
        path = self._get(self.config, "ckpt_path")
        if self.trained is not None and Path(path) != Path(self.trained.path):
            raise SettingError(f"--ckpt_path is given twice: {self.trained.path} and {path}. Give it once.")
        if self._get(self.config, "weights_only") is False:
            raise SettingError(
                "--weights_only=false would run code that a checkpoint holds. medseg never does; leave it out."
            )
        self._check_trainer(self._get(self.config, "trainer"))
        if self.subcommand == "fit" and path:
            self._resume(str(path))

    def _resume(self, name: str) -> None:
        """Find the checkpoint, and the run that it belongs to; better now than after the data is read."""
        experiment = self._experiment()
        if name == NEWEST and (run := newest_run(experiment)):
            self._take(run)  # before anything is saved there, too: whoever has begun it goes on
        found = find_resumption(name, experiment)
        if found and found.folder:
            self._take(found.folder)
        if found and found.folder and is_complete(found.folder, self._limits()):
            raise _RunIsComplete(
                f"{found.folder} is complete: epochs done: {found.epochs}, steps done: {found.steps}. A higher "
                "trainer.max_epochs goes on with it; without --ckpt_path a new run begins."
            )
        _say(str(found or f"There is nothing to go on from in {experiment}: a new run begins."))
        if found and not found.folder:
            _say(f"{found.checkpoint} is not the last.ckpt of a run folder: a new run begins with its state.")
        self.resumption = found
        self.config[self.subcommand].ckpt_path = found and str(found.checkpoint)

    def _take(self, run: Path) -> None:
        """Have a run folder for this training; the first of its processes has it for all of them."""
        if not rank_zero_only.rank and os.environ.get("NODE_RANK", "0") == "0":  # type: ignore[attr-defined]
            self.locks.take(run)

    def _limits(self) -> dict[str, Any]:
        trainer = self._get(self.config, "trainer")
        return {name: trainer[name] and str(trainer[name]) for name in ("max_epochs", "max_steps", "max_time")}

    def _experiment(self) -> Path:
        return Path(self._get(self.config, "runs"), self._get(self.config, "experiment"))

    def _check_trainer(self, trainer: Namespace) -> None:
        """Refuse settings with which Lightning would end well and leave nothing."""
        if str(trainer.precision) in ("16-true", "bf16-true"):
            raise SettingError(
                f"trainer.precision {trainer.precision} would score in half precision too. Use "
                f"{str(trainer.precision).replace('true', 'mixed')}, which is as fast and keeps the weights."
            )
        epochs, often = trainer.max_epochs, trainer.check_val_every_n_epoch
        if self.subcommand == "fit" and epochs and often and 0 < epochs < often:
            raise SettingError(
                f"trainer.max_epochs is {epochs}, but validation comes every {often} epochs, so there would be no best "
                "weights and no scores. Set trainer.check_val_every_n_epoch to 1."
            )

    def instantiate_classes(self) -> None:
        """As LightningCLI's, with what the trainer finds wrong in its settings as a sentence."""
        try:
            super().instantiate_classes()
        except (MisconfigurationException, ModuleNotFoundError, ValueError, TypeError) as error:
            raise SettingError(unfit(str(error))) from error

    def before_fit(self) -> None:
        """Let the data stop as well: reading it for the first time may take longer than the cluster waits."""
        self.datamodule.stop = self.stop

    def before_validate(self) -> None:
        """Score whom the checkpoint was not trained on."""
        self._score_as_trained()

    def before_test(self) -> None:
        """Score whom the checkpoint was not trained on."""
        self._score_as_trained()

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Add the loggers and callbacks that every run has."""
        own = self._get(self.config_init, "trainer")
        if self.subcommand == "fit":
            kwargs["logger"] = [self._run_folder(), *_as_list(own.get("logger"))]
        else:
            kwargs["logger"] = _as_list(own.get("logger"))
        self._make_private(kwargs["logger"])
        if own.get("enable_progress_bar") is None:
            kwargs["enable_progress_bar"] = sys.stdout.isatty()
        kwargs["plugins"] = _with_ours(_as_list(own.get("plugins")))
        given = _as_list(own.get("callbacks"))
        kwargs["callbacks"] = [self.doing, *given, *self._callbacks(given)]
        return super().instantiate_trainer(**kwargs)

    def _make_private(self, loggers: Sequence[Logger]) -> None:
        """Let no logger collect what is personal, and let W&B go on with the run that a run folder belongs to."""
        hosted = [logger for logger in loggers if isinstance(logger, WandbLogger)]
        if not hosted or rank_zero_only.rank:  # type: ignore[attr-defined]  # only rank zero talks to W&B
            return
        folder = self._evaluated_folder() if self.subcommand != "fit" else loggers[0].log_dir
        record = BoardRecord.read(Path(folder)) if folder else None
        for logger in hosted:
            make_private(logger, record.wandb_run_id if record else None)

    def _evaluated_folder(self) -> Path:
        return run_folder_of(Path(self._get(self.config, "ckpt_path")))

    def predict(self, **kwargs: Any) -> None:
        """Read from `--input`, case by case, and write to `--output`."""
        assert self.trained is not None, "predict needs a checkpoint"
        images, folder = (Path(self._get(self.config, name)) for name in ("input", "output"))
        if folder.resolve().is_relative_to(images.resolve()):
            raise SettingError(
                f"--output {folder} lies inside --input {images}: the next prediction would read its masks as images. "
                "Choose a folder outside."
            )
        output = OutputFolder(folder, self._record(images))
        output.check()
        source = self.datamodule.source.unlabelled(images)
        predictor, cases = self._predictor(), source.cases()
        review = bool(self._get(self.config, "review"))
        top = self._get(self.config, "review_top")
        queue = ReviewQueue(output, cases, predictor.labels.names, top) if review else None
        writer = PredictionWriter(output, source, overlays=self._get(self.config, "overlays"), queue=queue)
        self.trainer.callbacks.append(writer)  # type: ignore[attr-defined]
        module = PredictionModule(
            predictor,
            source,
            cases,
            is_finished=lambda case: output.is_finished(case.case_id, case.images),
            workers=self.datamodule.workers,
            probabilities=self._get(self.config, "probabilities"),
            review=review,
        )
        self.trainer.predict(module, return_predictions=False)
        if writer.faults:
            raise DataError(
                f"{len(writer.faults)} cases could not be predicted; the others were. " + " ".join(writer.faults)
            )

    def _predictor(self) -> Predictor:
        """The model with the settings that were given, and those of further checkpoints with its flips."""
        assert self.trained is not None, "predict needs a checkpoint"
        load_weights(self.model, self.trained.path)
        others = [load_module(trained) for trained in self.others]
        for other in others:
            other.symmetries = self.model.symmetries
        return Predictor([self.model.eval(), *others], self.datamodule.eval_batch_size)

    def _record(self, images: Path) -> dict[str, Any]:
        """What masks follow from: where they are taken up again, it has to be the same."""
        settings = {key: value for key, value in self.model.hparams.items() if key != "_instantiator"}
        source = self.datamodule.source
        return {
            "input": str(images.resolve()),
            "checkpoints": [digest_of(Path(each.path)) for each in (self.trained, *self.others) if each],
            "model": yaml.safe_load(yaml.safe_dump(settings)),
            "source": [repr(part) for part in (*source.reading_settings(), *source.writing_settings())],
            "precision": str(self.trainer.precision),
            "probabilities": bool(self._get(self.config, "probabilities")),
            "overlays": bool(self._get(self.config, "overlays")),
            "review": bool(self._get(self.config, "review")),
        }

    def after_fit(self) -> None:
        """Score the validation cases with the best weights, loaded from disk as anyone would; then the run is done."""
        epochs, steps = self.trainer.current_epoch, self.trainer.global_step
        best = self.trainer.checkpoint_callback
        if isinstance(best, ModelCheckpoint) and Path(best.best_model_path).is_file():
            self.trainer.validate(self.model, datamodule=self.datamodule, ckpt_path=best.best_model_path, verbose=False)
        folder = self.trainer.log_dir  # a broadcast: every rank takes part
        if folder and self.trainer.is_global_zero and not self._get(self.config, "trainer").fast_dev_run:
            record_complete(Path(folder), self._limits(), epochs, steps)

    def _score_as_trained(self) -> None:
        if self.trained is not None:
            self.datamodule.score_as_trained(self.trained.data)

    def _run_folder(self) -> RunLog:
        if self.resumption and (run := self.resumption.folder):
            resumed_at = self.resumption.steps
            return RunLog(run.parent.parent, run.parent.name, self.locks, run.name, resumed_at)
        return RunLog(self._experiment().parent, self._experiment().name, self.locks)

    def _callbacks(self, given: Sequence[Callback]) -> list[Callback]:
        progress: list[Callback] = [RichProgressBar()] if sys.stdout.isatty() else [EpochLines()]
        if self.subcommand == "predict":
            return progress
        if self.subcommand == "fit":
            checkpoints = self._checkpoints(given)
            return [
                *progress,
                Guard(),
                *checkpoints,
                LearningRateMonitor(),
                RunRecord(),
                ScoreWriter(),
                OverlayWriter(),
                *self._dashboard(given),
                Preemption(self.stop),
            ]
        folder = str(self._evaluated_folder())
        ours = [ScoreWriter(folder), OverlayWriter(directory=folder), *self._dashboard(given, folder)]
        return [*progress, *ours]

    def _dashboard(self, given: Sequence[Callback], folder: str | None = None) -> list[Callback]:
        """One, unless it is given with settings of its own."""
        own = [callback for callback in given if isinstance(callback, Dashboard)]
        for callback in own:
            callback.directory = callback.directory or folder
        return [] if own else [Dashboard(directory=folder)]

    def _checkpoints(self, given: Sequence[Callback]) -> list[Callback]:
        """Those that are not given; a run can always be gone on with, whatever else is kept of it."""
        trainer = self._get(self.config, "trainer")
        if trainer.fast_dev_run or trainer.enable_checkpointing is False:
            return []
        best = [] if any(isinstance(callback, ModelCheckpoint) for callback in given) else [BestCheckpoint()]
        last = [] if any(isinstance(callback, LastCheckpoint) for callback in given) else [LastCheckpoint()]
        return [*best, *last]


def run(command: str, arguments: Sequence[str], stop: StopRequest | None = None) -> int:
    """Run one of Lightning's subcommands.

    Args:
        command: Which.
        arguments: What follows it on the command line.
        stop: Where it is noted that a training is asked to stop.

    Returns:
        The exit code.
    """
    if command == "fit" and not arguments:
        raise SettingError("medseg fit needs --config FILE, such as configs/experiment/demo.yaml.")
    _quiet_libraries()
    trained = None if command == "fit" or _wants_help(arguments) else read_trained(_checkpoint(command, arguments))
    others: list[Trained] = []
    if command == "predict":
        others = [read_trained(path) for path in options(arguments, "ckpt_path")[1:]]
        arguments = first_only(arguments, "ckpt_path")
    plugins = [name for value in options(arguments, "plugins") for name in value.split(",")]
    arguments = without(arguments, "plugins")  # of the command line alone: no file may allow itself anything
    with (
        only_known_code(plugins),
        _as_files(trained) as defaults,
        in_words(doing := PhaseNote()),
        _complete_runs(),
        FolderLocks() as locks,
    ):
        MedsegCLI(
            SegmentationModule,
            SegmentationDataModule,
            args=[command, *arguments],
            trained=trained,
            others=others,
            stop=stop,
            locks=locks,
            doing=doing,
            seed_everything_default=0,
            auto_configure_optimizers=False,
            save_config_callback=ConfigRecord if command == "fit" else None,
            parser_kwargs={"prog": "medseg", command: {"default_config_files": defaults}},
        )
    return 0


@contextmanager
def _complete_runs() -> Iterator[None]:
    """Say that there is nothing to train, and end well."""
    try:
        yield
    except _RunIsComplete as answer:
        _say(str(answer))


@rank_zero_only
def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


@contextmanager
def _as_files(trained: Trained | None) -> Iterator[list[str]]:
    """The checkpoint's settings as a configuration of the lowest rank: whatever is given wins over it."""
    if trained is None:
        yield []
        return
    with TemporaryDirectory(prefix="medseg-") as folder:
        file = Path(folder) / "checkpoint.yaml"
        file.write_text(yaml.safe_dump(trained.settings, sort_keys=False), encoding="utf-8")
        yield [str(file)]


def _checkpoint(command: str, arguments: Sequence[str]) -> str:
    """The `--ckpt_path` of a command that cannot do without."""
    paths = options(arguments, "ckpt_path")
    if not paths:
        raise SettingError(
            f"medseg {command} needs --ckpt_path FILE, such as runs/demo/version_0/checkpoints/best.ckpt."
        )
    return paths[0]


def _wants_help(arguments: Sequence[str]) -> bool:
    return any(argument in ("-h", "--help") for argument in arguments)


def _with_ours(plugins: Sequence[Any]) -> list[Any]:
    """Those that are given, and ours of the kinds that are not."""
    ours: list[Any] = [] if any(isinstance(plugin, CheckpointIO) for plugin in plugins) else [DurableCheckpointIO()]
    given = any(isinstance(plugin, ClusterEnvironment) for plugin in plugins)
    if not given and SLURMEnvironment.detect() and not TorchElasticEnvironment.detect():
        ours.append(SLURMEnvironment(auto_requeue=False))  # Lightning's way saves in the middle of a step
    return [*plugins, *ours]


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
