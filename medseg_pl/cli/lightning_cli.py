"""LightningCLI with medseg's wiring: what is parsed, and what of it goes where."""

from __future__ import annotations

from argparse import SUPPRESS
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from rich.console import Console

import medseg_pl.models.losses  # noqa: F401  its classes can then be named without their module
from medseg_pl.cli.commands.predict import PredictOptions, add_options, predict
from medseg_pl.cli.parser import MedsegParser, check_sections, options, place_of, unfit
from medseg_pl.core.errors import SettingError, shorten
from medseg_pl.core.stop_signals import StopSignals
from medseg_pl.core.validation import path_fault
from medseg_pl.io.locks import FolderLocks
from medseg_pl.io.progress import redraws
from medseg_pl.training.callbacks import PhaseTracker
from medseg_pl.training.checkpoints import (
    SHARED,
    CheckpointInfo,
    ResumePoint,
    find_best_weights,
    get_run_folder,
    keep_last_as_best,
    lock_resume_point,
    record_complete,
)
from medseg_pl.training.trainer_checks import check_precision
from medseg_pl.training.trainer_defaults import (
    complete_plugins,
    configure_privacy,
    make_eval_callbacks,
    make_fit_callbacks,
    make_progress_callbacks,
    make_run_logger,
    to_list,
)


class MedsegCLI(LightningCLI):
    """Wires module and data module, the run folder, and the settings that a checkpoint carries."""

    def __init__(
        self,
        *args: Any,
        trained: CheckpointInfo | None,
        others: Sequence[CheckpointInfo] = (),
        stop: StopSignals | None = None,
        locks: FolderLocks | None = None,
        doing: PhaseTracker | None = None,
        **kwargs: Any,
    ) -> None:
        self.trained = trained
        self.others = others
        self.stop = stop or StopSignals()
        self.locks = locks or FolderLocks()
        self.doing = doing or PhaseTracker()
        self.resumption: ResumePoint | None = None
        self.arguments: Sequence[str] = kwargs.get("args") or ()
        super().__init__(*args, **kwargs)

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """Only the one that is asked for: to describe all four takes longer than anything else of ours at the start."""
        asked = self.arguments[0]
        return {asked: super().subcommands()[asked]}

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """As LightningCLI's, with our errors."""
        kwargs.setdefault("dump_header", ["medseg"])
        kwargs["allow_abbrev"] = False  # otherwise a misspelled setting may be taken for another
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
        # Parsed by `predict` as well, so that it takes the configuration that a fit wrote.
        save = SUPPRESS if self.arguments[:1] == ["predict"] else "Keep the masks that are scored, in the run folder."
        parser.add_argument("--save_predictions", type=bool, default=True, help=save)
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
            add_options(parser)
        return parser

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Answer a misspelled top-level key first: without its section, whatever else is missing would be blamed."""
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
            self.resumption = lock_resume_point(str(path), self._experiment(), self._limits(), self.locks)
            checkpoint = self.resumption and self.resumption.checkpoint
            self.config[self.subcommand].ckpt_path = checkpoint and str(checkpoint)

    def _limits(self) -> dict[str, Any]:
        trainer = self._get(self.config, "trainer")
        return {name: trainer[name] and str(trainer[name]) for name in ("max_epochs", "max_steps", "max_time")}

    def _experiment(self) -> Path:
        name = str(self._get(self.config, "experiment"))
        if (fault := path_fault(name)) is not None:
            raise SettingError(f"The experiment {shorten(name)} {fault}. Name it plainly; --runs says where it goes.")
        return Path(self._get(self.config, "runs"), name)

    def _check_trainer(self, trainer: Namespace) -> None:
        """Refuse settings with which Lightning would end well and leave nothing."""
        check_precision(str(trainer.precision))
        if trainer.barebones:
            raise SettingError(
                "trainer.barebones leaves out checkpoints, logs and scores, so a run would leave nothing. Set it to "
                "false; trainer.profiler simple says where the time goes."
            )
        for name in ("max_epochs", "max_steps"):
            if self.subcommand == "fit" and trainer[name] == 0:
                raise SettingError(f"trainer.{name} is 0: nothing would be trained. Set it to 1 or more.")

    def instantiate_classes(self) -> None:
        """As LightningCLI's, with what the trainer finds wrong in its settings as a sentence."""
        try:
            super().instantiate_classes()
        except (MisconfigurationException, ModuleNotFoundError, ValueError, TypeError) as error:
            raise SettingError(unfit(str(error))) from error

    def before_validate(self) -> None:
        """Score whom the checkpoint was not trained on."""
        self._use_checkpoint_split()

    def before_test(self) -> None:
        """Score whom the checkpoint was not trained on."""
        self._use_checkpoint_split()

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Add the loggers and callbacks that every run has."""
        own = self._get(self.config_init, "trainer")
        log = [make_run_logger(self._experiment(), self.resumption, self.locks)] if self.subcommand == "fit" else []
        kwargs["logger"] = [*log, *to_list(own.get("logger"))]
        configure_privacy(kwargs["logger"], None if self.subcommand == "fit" else self._evaluated_folder())
        given = to_list(own.get("callbacks"))
        bars = [callback for callback in given if isinstance(callback, ProgressBar)]
        if own.get("enable_progress_bar") is None:
            kwargs["enable_progress_bar"] = bool(bars) or redraws(Console())
        kwargs["plugins"] = complete_plugins(to_list(own.get("plugins")))
        shown = [] if bars else make_progress_callbacks()
        kwargs["callbacks"] = [self.doing, *given, *shown, *self._callbacks(given)]
        return super().instantiate_trainer(**kwargs)

    def _callbacks(self, given: Sequence[Callback]) -> list[Callback]:
        if self.subcommand == "predict":
            return []
        save = bool(self._get(self.config, "save_predictions"))
        if self.subcommand == "fit":
            trainer = self._get(self.config, "trainer")
            keeps = not trainer.fast_dev_run and trainer.enable_checkpointing is not False
            return make_fit_callbacks(given, self.stop, keeps=keeps, save_predictions=save)
        return make_eval_callbacks(given, str(self._evaluated_folder()), save_predictions=save)

    def _evaluated_folder(self) -> Path:
        return get_run_folder(Path(self._get(self.config, "ckpt_path")))

    def predict(self, **kwargs: Any) -> None:
        """Read from `--input`, case by case, and write to `--output`."""
        assert self.trained is not None, "predict needs a checkpoint"
        order = PredictOptions.of(self.config[self.subcommand])
        predict(order, self.trainer, self.model, self.datamodule, [self.trained, *self.others], self.locks)

    def after_fit(self) -> None:
        """Score the validation cases with the best weights, loaded from disk as anyone would; then the run is done."""
        epochs, steps = self.trainer.current_epoch, self.trainer.global_step
        if best := find_best_weights(self.trainer) or keep_last_as_best(self.trainer):
            self.trainer.validate(self.model, datamodule=self.datamodule, ckpt_path=str(best), verbose=False)
        folder = self.trainer.log_dir  # a broadcast: every rank takes part
        if folder and self.trainer.is_global_zero and not self._get(self.config, "trainer").fast_dev_run:
            record_complete(Path(folder), self._limits(), epochs, steps)

    def _use_checkpoint_split(self) -> None:
        if self.trained is not None:
            self.datamodule.use_checkpoint_split(self.trained.data)
