"""LightningCLI with medseg's wiring: what is parsed, and what of it goes where."""

from __future__ import annotations

import shlex
import sys
from argparse import SUPPRESS
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml
from jsonargparse import Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from rich.console import Console

import medseg_pl.models.losses  # noqa: F401  its classes can then be named without their module
from medseg_pl.cli.arguments import keep_stdout_for, print_json, print_line
from medseg_pl.cli.commands.predict import PredictOptions, add_options, describe_outcomes, predict, raise_faults
from medseg_pl.cli.parser import (
    check_sections,
    describe_instantiation_error,
    describe_parse_error,
    list_options,
    locate_setting,
)
from medseg_pl.core.errors import DataError, SettingError, count_noun, shorten
from medseg_pl.core.import_policy import explain_refusal
from medseg_pl.core.stop_signals import StopSignals
from medseg_pl.core.validation import find_path_fault
from medseg_pl.data.prepared_data import relocate_source
from medseg_pl.io.folders import FolderLocks
from medseg_pl.io.progress import can_redraw
from medseg_pl.io.scores import SCORED_BY_CHOICE, knows_patients, name_group
from medseg_pl.models.pretrained import SCHEME
from medseg_pl.reporting.training_length import describe_ends
from medseg_pl.training.callbacks import ConfigWriter, LengthTracker, PhaseTracker, ScoreWriter
from medseg_pl.training.checkpoints import (
    SHARED,
    CheckpointInfo,
    ResumePoint,
    find_best_weights,
    get_run_folder,
    keep_last_as_best,
    locate_weights,
    lock_resume_point,
    record_complete,
)
from medseg_pl.training.datamodule import SegmentationDataModule
from medseg_pl.training.module import SegmentationModule
from medseg_pl.training.trainer_defaults import (
    complete_plugins,
    configure_privacy,
    make_eval_callbacks,
    make_fit_callbacks,
    make_progress_callbacks,
    make_run_logger,
    to_list,
)
from medseg_pl.training.training_checks import check_precision

_DESCRIPTIONS = {
    "fit": "Train a model.",
    "validate": "Score the validation cases of a checkpoint.",
    "test": "Score the test cases of a checkpoint.",
    "predict": "Write masks for a folder of images, by the models of one or more checkpoints.",
}
_STAGES = {"validate": "val", "test": "test"}
_LOADERS = ("train_dataloaders", "val_dataloaders", "dataloaders")
_EPILOG = """\
besides: --data_root DIR, where the data set is now; --plugins PACKAGE[,PACKAGE], code of yours that settings may name;
--debug, show where an error comes from
"""


class TrainerParser(LightningArgumentParser):
    """Parser of a training command, with errors of one paragraph.

    That includes errors of the classes that settings name.
    """

    @classmethod
    def subclass_with_locator(cls, locate: Callable[[str], str]) -> type[TrainerParser]:
        """Make a parser class that says where a class is named.

        The parsers that it makes for nested settings do so, too.
        """
        return type(cls.__name__, (cls,), {"locate": staticmethod(locate)})

    @staticmethod
    def locate(name: str) -> str:
        """Return where a class or a setting is named; empty here."""
        return ""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise instead of printing the usage and exiting."""
        description = explain_refusal(message, self.locate) or describe_parse_error(message, list_options(self))
        raise SettingError(description) from ex


class MedsegCLI(LightningCLI):
    """Wires module, data module, run folder and a checkpoint's settings.

    Args:
        command: `fit`, `validate`, `test` or `predict`.
        arguments: The arguments after it, without the options of `EarlyOptions`.
        configs: The configuration files among them.
        checkpoints: Of `validate`, `test` and `predict`, with settings that hold unless others are given.
        data_root: The present folder of the data set of a training.
        stop: Notes that a training is asked to stop.
        locks: Locks folders for this process.
        phase: Follows what is being done.
        settings: Further arguments of the parser.
    """

    def __init__(
        self,
        command: str,
        arguments: Sequence[str],
        configs: Sequence[Path] = (),
        checkpoints: Sequence[CheckpointInfo] = (),
        data_root: str | None = None,
        stop: StopSignals | None = None,
        locks: FolderLocks | None = None,
        phase: PhaseTracker | None = None,
        **settings: Any,
    ) -> None:
        self.command = command
        self.configs = configs
        self.checkpoints = checkpoints
        self.data_root = data_root
        self.stop = stop or StopSignals()
        self.locks = locks or FolderLocks()
        self.phase = phase or PhaseTracker()
        self.length = LengthTracker()
        self.resumption: ResumePoint | None = None
        self.arguments = arguments
        super().__init__(
            SegmentationModule,
            SegmentationDataModule,
            args=list(arguments),
            run=False,  # without subcommands: one parser, of the one command
            seed_everything_default=0,
            auto_configure_optimizers=False,
            save_config_callback=ConfigWriter if command == "fit" else None,
            parser_kwargs=settings,
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> MedsegCLI:
        """Return itself."""
        # jsonargparse's makers of optimizers refer to it, and averaged weights are a copied module.
        return self

    def setup_parser(
        self, add_subcommands: bool, main_kwargs: dict[str, Any], subparser_kwargs: dict[str, Any]
    ) -> None:
        """Make the parser of the one command."""
        self.parser = make_parser(self.command, TrainerParser.subclass_with_locator(self._locate), **main_kwargs)

    def _locate(self, name: str) -> str:
        checkpoint = self.checkpoints[0] if self.checkpoints else None
        settings = yaml.safe_dump(checkpoint.settings) if checkpoint else ""
        return locate_setting(name, self.arguments, self.configs, checkpoint and checkpoint.path, settings)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse the arguments, after a check for misspelled sections.

        Without it, whatever else is missing would be blamed.
        """
        sections = sorted({name.split(".")[0] for name in list_options(parser)}) if self.configs else []
        for path in self.configs:
            check_sections(path, sections)
        moved = [f"--data.source.root={self.data_root}"] if self.data_root is not None else []
        super().parse_arguments(parser, [*args, *moved])
        source = self.config.data.source
        if self.data_root is not None and source.init_args.get("manifest"):
            source.init_args.manifest = relocate_source(source.as_dict(), self.data_root)["init_args"]["manifest"]

    def _parse_ckpt_path(self) -> None:
        """Do nothing: the checkpoint's settings are defaults, which given ones replace."""

    def before_instantiate_classes(self) -> None:
        """Refuse settings that medseg does not take; find the resume point."""
        if self.config.weights_only is False:
            raise SettingError(
                "--weights_only=false would run code that a checkpoint holds. medseg never does; leave it out."
            )
        self._check_trainer(self.config.trainer)
        if self.command == "fit" and self.config.ckpt_path:
            name, limits = str(self.config.ckpt_path), self._get_limits()
            self.resumption = lock_resume_point(name, self._get_experiment_folder(), limits, self.locks)
            checkpoint = self.resumption and self.resumption.checkpoint
            self.config.ckpt_path = checkpoint and str(checkpoint)

    def _get_limits(self) -> dict[str, Any]:
        return get_limits(self.config)

    def _get_experiment_folder(self) -> Path:
        return get_experiment_folder(self.config)

    def _check_trainer(self, trainer: Namespace) -> None:
        """Refuse settings with which Lightning would end well and leave nothing."""
        check_precision(str(trainer.precision))
        if trainer.barebones:
            raise SettingError(
                "trainer.barebones leaves out checkpoints, logs and scores, so a run would leave nothing. Set it to "
                "false; trainer.profiler simple says where the time goes."
            )
        for name in ("max_epochs", "max_steps"):
            if self.command == "fit" and trainer[name] == 0:
                raise SettingError(f"trainer.{name} is 0: nothing would be trained. Set it to 1 or more.")

    def instantiate_classes(self) -> None:
        """Instantiate the classes, with the trainer's errors in one paragraph."""
        try:
            super().instantiate_classes()
        except (MisconfigurationException, ModuleNotFoundError, ValueError, TypeError) as error:
            raise SettingError(describe_instantiation_error(str(error))) from error

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Add the loggers and callbacks that every run has."""
        trainer = self.config_init.trainer
        log = (
            [make_run_logger(self._get_experiment_folder(), self.resumption, self.locks)]
            if self.command == "fit"
            else []
        )
        kwargs["logger"] = [*log, *to_list(trainer.get("logger"))]
        configure_privacy(kwargs["logger"], None if self.command == "fit" else self._get_evaluated_folder())
        given = to_list(trainer.get("callbacks"))
        bars = [callback for callback in given if isinstance(callback, ProgressBar)]
        if trainer.get("enable_progress_bar") is None:
            kwargs["enable_progress_bar"] = bool(bars) or can_redraw(Console())
        kwargs["plugins"] = complete_plugins(to_list(trainer.get("plugins")))
        shown = [] if bars else make_progress_callbacks()
        kwargs["callbacks"] = [self.phase, self.length, *given, *shown, *self._make_callbacks(given)]
        return super().instantiate_trainer(**kwargs)

    def _make_callbacks(self, given: Sequence[Callback]) -> list[Callback]:
        if self.command == "predict":
            return []
        save = bool(self.config.save_predictions)
        if self.command == "fit":
            trainer = self.config.trainer
            keeps = not trainer.fast_dev_run and trainer.enable_checkpointing is not False
            return make_fit_callbacks(given, self.stop, keeps=keeps, save_predictions=save)
        return make_eval_callbacks(given, str(self._get_evaluated_folder()), save_predictions=save)

    def _get_evaluated_folder(self) -> Path:
        return get_run_folder(Path(self.config.ckpt_path))

    def run_command(self) -> None:
        """Train, score or predict."""
        if self.command == "fit":
            self._fit()
        elif self.command == "predict":
            options = PredictOptions.from_namespace(self.config)
            with keep_stdout_for(self.config.json):
                outcomes = predict(options, self.trainer, self.model, self.datamodule, self.checkpoints, self.locks)
            if self.config.json and self.trainer.is_global_zero:
                print_json(describe_outcomes(outcomes, options.folder))
            raise_faults(outcomes, options.folder)
        else:
            with keep_stdout_for(self.config.json):
                summary = self._score()
            if self.config.json and summary is not None:
                sys.stdout.write(summary.read_text(encoding="utf-8"))

    def _score(self) -> Path | None:
        """Score cases, and return the summary on rank zero."""
        self.datamodule.use_checkpoint_split(self.checkpoints[0].data)
        score = self.trainer.validate if self.command == "validate" else self.trainer.test
        score(
            self.model,
            datamodule=self.datamodule,
            ckpt_path=self.config.ckpt_path,
            verbose=self.config.verbose,
            weights_only=True,
        )
        if not self.trainer.is_global_zero:
            return None
        callbacks: list[Callback] = self.trainer.callbacks  # type: ignore[attr-defined]
        written = [each.summary for each in callbacks if isinstance(each, ScoreWriter) and each.summary]
        if not written:
            raise DataError(f"No case was scored, as with trainer.limit_{_STAGES[self.command]}_batches=0. Raise it.")
        prepared = self.datamodule.prepared
        tested = {name: prepared.cases[name].group for name in prepared.split.test if self.command == "test"}
        if proof := describe_proof(self.checkpoints[0], tested):
            print_line(proof)
        side = " --stage val" if self.command == "validate" else ""
        print_line(f"See it on a page: medseg report {shlex.quote(str(self._get_evaluated_folder()))}{side}")
        return written[-1]

    def _fit(self) -> None:
        """Train, score the best weights on validation cases, and complete the run."""
        self.trainer.fit(
            self.model,
            datamodule=self.datamodule,
            ckpt_path=self.config.ckpt_path,
            weights_only=self.config.weights_only,
        )
        end = self.length.describe_end(self.trainer)
        if end["out_of_time"] and self.trainer.is_global_zero:
            print_line(describe_time_limit(end, self.config.trainer.as_dict()))
        chosen = find_best_weights(self.trainer)
        if best := chosen or keep_last_as_best(self.trainer):
            if self.trainer.is_global_zero:
                place = locate_weights(best)
                end |= {"best": place} if chosen else {}
                print_line(describe_scored_weights(place, self.model.model.tta, best=chosen is not None))
            self.trainer.validate(self.model, datamodule=self.datamodule, ckpt_path=str(best), verbose=False)
            if chosen and self.trainer.is_global_zero:
                print_line(SCORED_BY_CHOICE)
        folder = self.trainer.log_dir  # a broadcast: every rank takes part
        if folder and self.trainer.is_global_zero and not self.config.trainer.fast_dev_run:
            record_complete(Path(folder), self._get_limits(), end)
            # A fold or a trial has a folder within an experiment; the command that trains them all says what is next.
            if best and "/" not in str(self.config.experiment):
                self._print_next(Path(folder))

    def _print_next(self, run: Path) -> None:
        """Print the commands that a trained run asks for."""
        name, tests = shlex.quote(str(run)), self.datamodule.prepared.split.test
        print_line("Next:")
        if tests:
            print_line(f"  medseg test --ckpt_path {name}    score the {count_noun(len(tests), 'test case')}")
        print_line(f"  medseg report {name}    see scores and cases on a page")
        print_line(f"  medseg predict --ckpt_path {name} --input IMAGES --output MASKS")


def describe_time_limit(end: Mapping[str, Any], trainer: Mapping[str, Any]) -> str:
    """Describe a training that a time limit ended, as its report does.

    Args:
        end: How far it came, see `LengthTracker.describe_end`.
        trainer: The settings of its trainer.

    >>> describe_time_limit({"epochs": 6, "steps": 756, "planned_steps": 1500, "out_of_time": True}, {})
    'Trained for 756 of 1500 steps, ended by the time limit. The run is complete.'
    """
    return f"Trained{describe_ends([end], trainer).rstrip(',')}. The run is complete."


def describe_scored_weights(place: Mapping[str, int], tta: str, *, best: bool) -> str:
    """Describe the weights that are scored after a training.

    Args:
        place: Their step and epoch, see `locate_weights`.
        tta: Flips and turns over which the scores average.
        best: Whether a validation chose them; otherwise they are the last.

    >>> describe_scored_weights({"step": 1200, "epoch": 8}, "none", best=True)
    'Scored with the best weights, of step 1200 (epoch 8).'
    """
    weights = f"{'best' if best else 'last'} weights, of step {place['step']} (epoch {place['epoch']})"
    if tta == "none":
        return f"Scored with the {weights}."
    turns = "flips and turns" if tta == "all" else "flips"
    return (
        f"Scored with the {weights}, averaged over {turns} (model.tta: {tta}); the epochs' scores above are without "
        f"{turns}."
    )


def describe_proof(checkpoint: CheckpointInfo, tested: Mapping[str, str]) -> str:
    """Say that a run trained on none of the tested patients, if its record shows it.

    Call it after the loaders, which refuse the recorded patients. Of whom other weights were trained on, and of copies
    that were allowed between the sides, these names say nothing.

    Args:
        checkpoint: Of the run.
        tested: The patient of each test case; empty where validation cases are scored.

    >>> describe_proof(CheckpointInfo("best.ckpt", {}, {"groups": ["p1"]}), {"p2_a": "p2"})
    'By its record, the run trained on none of these patients.'
    """
    split = checkpoint.data.get("split", {})
    others = checkpoint.pretrained and not checkpoint.pretrained.startswith(SCHEME)
    if not tested or not checkpoint.data.get("groups") or others or split.get("accepted_duplicates"):
        return ""
    group = name_group({"patients_known": knows_patients(tested.items())})
    return f"By its record, the run trained on none of these {group}s."


def get_limits(config: Namespace) -> dict[str, Any]:
    """Return how long a training is told to last."""
    trainer = config.trainer
    return {name: trainer[name] and str(trainer[name]) for name in ("max_epochs", "max_steps", "max_time")}


def get_experiment_folder(config: Namespace) -> Path:
    """Return the folder of an experiment's runs.

    Raises:
        SettingError: Its name leads elsewhere.
    """
    name = str(config.experiment)
    if (fault := find_path_fault(name)) is not None:
        raise SettingError(f"The experiment {shorten(name)} {fault}. Use a plain name, and set its folder with --runs.")
    return Path(config.runs, name)


def make_parser(
    command: str, parser_class: type[TrainerParser] = TrainerParser, **settings: Any
) -> LightningArgumentParser:
    """Make the parser of `fit`, `validate`, `test` or `predict`.

    Args:
        command: Its name.
        parser_class: The class of the parser.
        settings: Further arguments of the parser, such as `default_config_files`.
    """
    parser = parser_class(
        prog=f"medseg {command}",
        description=_DESCRIPTIONS[command],
        epilog=_EPILOG,
        dump_header=["medseg"],
        allow_abbrev=False,  # otherwise a misspelled setting may be taken for another
        **settings,
    )
    parser.add_argument("-c", "--config", action="config", help="A YAML file; may be given several times.")
    parser.add_argument("--seed_everything", type=bool | int, default=0, help="Seed of everything; true draws one.")
    parser.add_lightning_class_args(Trainer, "trainer")
    parser.add_lightning_class_args(SegmentationModule, "model")
    parser.add_lightning_class_args(SegmentationDataModule, "data")
    parser.add_argument("--experiment", type=str, default="default", help="Name of the run's folder.")
    parser.add_argument("--runs", type=str, default="runs", help="Where the folders of all experiments are.")
    # Parsed by `predict` as well, so that it takes the configuration that a fit wrote.
    save = SUPPRESS if command == "predict" else "Keep the masks that are scored, in the run folder."
    parser.add_argument("--save_predictions", type=bool, default=True, help=save)
    for name in SHARED:
        parser.link_arguments(f"model.{name}", f"data.{name}")
    for part in ("model", "data"):
        parser.link_arguments("seed_everything", f"{part}.seed", compute_fn=int)
    parser.add_method_arguments(Trainer, command, skip={"model", "datamodule", *_LOADERS, "return_predictions"})
    defaults = {
        # Lightning's sampler pads: cases would be scored twice. Ours share cases and samples among ranks.
        "trainer.use_distributed_sampler": False,
        "trainer.enable_model_summary": False,
        "trainer.max_epochs": 100,  # not a thousand, as Lightning has it
        "weights_only": True,  # a checkpoint is data: it runs no code
        **({"verbose": False} if command in ("validate", "test") else {}),  # our table says it
    }
    parser.set_defaults(defaults)
    if command == "predict":
        add_options(parser)
    if command != "fit":
        what = "which inputs have masks" if command == "predict" else "the summary of scores"
        parser.add_argument("--json", action="store_true", help=f"Print {what} as JSON, and nothing else.")
    return parser
