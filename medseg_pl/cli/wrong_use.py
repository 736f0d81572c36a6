"""Wrong commands and settings, answered with the right ones before anything heavy is imported."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from medseg_pl.core.errors import MissingDataError, SettingError, make_printable
from medseg_pl.io.config_files import describe_missing_config, find_config

OTHER_COMMANDS = {
    "train": "fit",
    "trainer": "fit",
    "resume": "fit --ckpt_path last",
    "finetune": "fit --model.pretrained FILE",
    "eval": "test, or medseg evaluate for masks of other origin",
    "score": "evaluate",
    "val": "validate",
    "infer": "predict",
    "inference": "predict",
    "segment": "predict",
    "cv": "crossval",
    "sweep": "tune",
    "search": "tune",
    "init": "new",
    "create": "new",
    "onnx": "export",
    "convert": "export",
    "visualize": "report",
    "verify": "check",
    "preprocess": "check, then medseg plan",
    "sample": "phantom",
    "version": "--version",
}
"""What other programs call a command, and what it is here."""

_NETWORK = "--model.network CLASS and --model.network.encoder_name NAME"
_EARLY_STOPPING = "--trainer.callbacks+=EarlyStopping --trainer.callbacks.monitor=val/dice --trainer.callbacks.mode=max"
OTHER_SETTINGS = {
    "amp": "--trainer.precision bf16-mixed",
    "architecture": _NETWORK,
    "augment": "--data.augmentation CLASS",
    "backbone": "--model.network.encoder_name NAME",
    "batch": "--data.batch_size N",
    "batch_size": "--data.batch_size N",
    "bs": "--data.batch_size N",
    "cfg": "--config FILE",
    "checkpoint": "--ckpt_path FILE",
    "ckpt": "--ckpt_path FILE",
    "classes": "--model.labels.names '[a, b]'",
    "cpu": "--trainer.accelerator cpu",
    "data_dir": "--data_root DIR",
    "dataset": "--data_root DIR",
    "device": "--trainer.accelerator cpu or gpu",
    "devices": "--trainer.devices N",
    "early_stopping": _EARLY_STOPPING,
    "encoder": "--model.network.encoder_name NAME",
    "epochs": "--trainer.max_epochs N",
    "fold": "--data.fold N",
    "folds": "--data.folds N",
    "fp16": "--trainer.precision 16-mixed",
    "gpu": "--trainer.accelerator gpu",
    "gpus": "--trainer.devices N",
    "image_size": "--model.input_size '[h, w]'",
    "img_size": "--model.input_size '[h, w]'",
    "input_size": "--model.input_size '[h, w]'",
    "labels": "--model.labels.names '[a, b]'",
    "learning_rate": "--model.optimizer.lr X",
    "logger": "--config configs/logger/wandb.yaml (or tensorboard.yaml)",
    "loss": "--model.loss CLASS",
    "lr": "--model.optimizer.lr X",
    "max_epochs": "--trainer.max_epochs N",
    "max_steps": "--trainer.max_steps N",
    "metric": "--model.metrics+=CLASS",
    "name": "--experiment NAME",
    "num_classes": "--model.labels.names '[a, b]'",
    "num_epochs": "--trainer.max_epochs N",
    "num_workers": "--data.num_workers N",
    "optimizer": "--model.optimizer CLASS",
    "patch_size": "--model.input_size '[h, w]'",
    "patch": "--model.input_size '[h, w]'",
    "patience": f"{_EARLY_STOPPING} --trainer.callbacks.patience=N",
    "precision": "--trainer.precision NAME",
    "pretrained": "--model.pretrained FILE",
    "resume": "--ckpt_path last",
    "root": "--data_root DIR",
    "scheduler": "--model.lr_scheduler CLASS",
    "seed": "--seed_everything N",
    "spacing": "--model.spacing_mm '[y, x]'",
    "steps": "--trainer.max_steps N",
    "tensorboard": "--config configs/logger/tensorboard.yaml",
    "tta": "--model.tta flips",
    "wandb": "--config configs/logger/wandb.yaml",
    "weight_decay": "--model.optimizer.weight_decay X",
    "weights": "--ckpt_path FILE, or --model.pretrained FILE to start a training from",
    "workers": "--data.num_workers N",
}
"""What other programs call a setting, and what it is here."""

_TRAINER = (
    "accelerator strategy devices num_nodes precision logger callbacks fast_dev_run max_epochs min_epochs max_steps "
    "min_steps max_time limit_train_batches limit_val_batches limit_test_batches limit_predict_batches overfit_batches "
    "val_check_interval check_val_every_n_epoch num_sanity_val_steps log_every_n_steps enable_checkpointing "
    "enable_progress_bar enable_model_summary accumulate_grad_batches gradient_clip_val gradient_clip_algorithm "
    "deterministic benchmark inference_mode use_distributed_sampler profiler detect_anomaly barebones plugins "
    "sync_batchnorm reload_dataloaders_every_n_epochs default_root_dir enable_autolog_hparams model_registry"
)
_MODEL = (
    "network labels labels.names labels.task labels.values labels.ignore_value labels.colors labels.tolerance "
    "labels.partial loss normalization optimizer channels context_slices resize input_size spacing_mm "
    "lr_scheduler lr_interval surface_metrics nsd_tolerance metrics size_divisor window_overlap "
    "whole_image_max_pixels tta postprocess pretrained freeze unfreeze_epoch encoder_lr_factor decay_all "
    "channels_last compile_network"
)
_DATA = (
    "source batch_size eval_batch_size num_workers fold folds split_fractions split_file split_seed allow_duplicates "
    "samples_per_epoch foreground_fraction augmentation raters rater cache_dir"
)
# Written down, since asking the classes takes seconds; a test compares them with the parser's.
SETTINGS = (
    *("trainer", "model", "data"),
    *(f"trainer.{name}" for name in _TRAINER.split()),
    *(f"model.{name}" for name in _MODEL.split()),
    *(f"data.{name}" for name in _DATA.split()),
    *("config", "print_config", "seed_everything", "experiment", "runs", "save_predictions", "ckpt_path"),
    *("weights_only", "data_root", "plugins", "help"),
)
"""Every setting of `medseg fit` by its name."""

OPEN = tuple(
    f"{setting}."
    for setting in (
        *("trainer.accelerator", "trainer.strategy", "trainer.logger", "trainer.callbacks", "trainer.profiler"),
        *("trainer.plugins", "model.network", "model.loss", "model.normalization", "model.optimizer"),
        *("model.lr_scheduler", "model.metrics", "model.nsd_tolerance", "model.postprocess", "model.labels.colors"),
        *("data.source", "data.augmentation"),
    )
)
"""Settings that are classes or mappings: what may follow them, their class decides."""

_DESCRIPTION = (
    "data_root layout images image_name masks mask_name group slicing labels task ignore_value colors tolerance"
)
_EVALUATE = (
    "reference prediction output raters labels task ignore_value group cases strata tolerance spacing no_distances "
    "objects thresholds matching connectivity size_bins shapes missing_as_empty num_workers json"
)
OWN = {
    "fit": ("json",),
    "crossval": ("jobs", "fold", "json"),
    "tune": ("space", "trials", "jobs", "no_pruning", "json"),
    "validate": ("json", "verbose"),
    "test": ("json", "verbose"),
    "predict": ("json", "input", "output", "probabilities", "overlays", "review", "review_top", "on_foreign"),
    "check": (*_DESCRIPTION.split(), "config", "patch", "html", "num_workers", "json"),
    "compare": ("metric", "csv", "latex", "markdown", "format", "allow_unpaired", "resamples", "seed", "json"),
    "evaluate": tuple(_EVALUATE.split()),
    "export": ("ckpt_path", "output", "precision", "measure", "data_root", "plugins", "json"),
    "info": ("json",),
    "new": (*_DESCRIPTION.split(), "num_workers", "json"),
    "phantom": ("layout", "cases", "seed", "slices", "size", "json"),
    "plan": (
        *_DESCRIPTION.split(),
        *("config", "output", "device", "memory_gb", "minutes", "no_probe", "no_pretrained", "num_workers", "json"),
    ),
    "postprocess": ("ckpt_path", "output", "data_root", "plugins", "device", "json"),
    "report": ("output", "readme", "methods", "stage", "pictures", "names", "json"),
    "review": ("ckpt_path", "output", "top", "on_foreign", "data_root", "plugins", "device", "json"),
}
"""Options of a command: those of a training that are not settings, all of any other."""
_CHECKPOINT = (
    "a file such as runs/demo/version_0/checkpoints/best.ckpt, a run folder, or best for that of the newest run"
)
_TRAINING = ("fit", "crossval", "tune")
_LOGGERS = ("csv", "tensorboard", "wandb")
_FOLDERS = (
    ("input", "", "a folder of images, or an image"),
    ("output", "-o", "a new folder for the masks"),
)
_NUMBERS = {
    "model.input_size": ("height, width", "[256, 256]"),
    "model.spacing_mm": ("y, x", "[0.5, 0.5]"),
    "data.split_fractions": ("train, val, test", "[0.6, 0.2, 0.2]"),
}
"""Settings that take one number for each of these."""
_LISTS = ("model.labels.names", "model.labels.values", *_NUMBERS)
_NEW_FILES = {
    "check": ("html",),
    "compare": ("csv", "latex", "markdown"),
    "plan": ("output",),
    "postprocess": ("output",),
    "report": ("output", "methods"),
}
_NEW_FOLDERS = ("evaluate", "export")
"""Commands whose output is a folder that must be absent or empty."""


def describe_unknown_command(name: str, commands: Sequence[str]) -> str:
    """Say what a command that does not exist is called here.

    >>> describe_unknown_command("train", ["fit", "test"])
    "There is no command 'train'. It is medseg fit."
    >>> describe_unknown_command("tets", ["fit", "test"])
    "There is no command 'tets'. Did you mean test?"
    """
    if (other := OTHER_COMMANDS.get(name.lower().replace("_", "-"))) is not None:
        hint = f"It is medseg {other}."
    else:
        near = difflib.get_close_matches(name, commands, n=1)
        hint = f"Did you mean {near[0]}?" if near else "See medseg --help."
    return f"There is no command '{make_printable(name[:40])}'. {hint}"


def find_unquoted_path(arguments: Sequence[str]) -> str | None:
    """Find words that together are an existing path, typed without quotes.

    >>> find_unquoted_path(["my", "data", "--labels", "a"])
    """
    for start, first in enumerate(arguments):
        word = first.partition("=")[2] if first.startswith("-") else first
        for end in range(start + 1, len(arguments)):
            if not word or _exists(word) or arguments[end].startswith("-"):
                break
            if _exists(path := " ".join([word, *arguments[start + 1 : end + 1]])):
                return path
    return None


def _exists(name: str) -> bool:
    try:
        return Path(name).exists()
    except (OSError, ValueError):  # a text that no file can be called
        return False


def check_arguments(command: str, arguments: Sequence[str]) -> None:
    """Check a training command's arguments as far as possible without its parser.

    Args:
        command: `fit`, `validate`, `test`, `predict`, `crossval` or `tune`.
        arguments: The arguments after it.

    Raises:
        SettingError: Something is missing, or a setting does not exist.
    """
    options = dict(_split_options(arguments))
    if arguments and not arguments[0].startswith("-"):
        # A run folder is meant as the model; `fit` and its kin take a configuration.
        scores = command in ("validate", "test", "predict") and Path(arguments[0]).is_dir()
        option = "--ckpt_path" if scores or arguments[0].endswith((".ckpt", ".json")) else "--config"
        raise SettingError(f"medseg {command} takes no positional arguments. Write {option} {_quote(arguments[0])}.")
    if any(name.endswith(".help") for name in options):
        return  # who asks what a class takes need not have data
    _check_required(command, arguments, options)
    given = dict.fromkeys([*options, *(("output",) if "-o" in arguments else ())])
    if unknown := [fault for name in given if (fault := _find_name_fault(command, name))]:
        raise SettingError(f"medseg {command} has no {' It has no '.join(unknown[:2])}")
    for name, values in options.items():
        _check_value(name, values, options)
    if command == "predict":
        _check_folders(arguments, options)


def check_new_files(command: str, arguments: Sequence[str]) -> None:
    """Check that what a command of `FILE_COMMANDS` writes is not there, before its imports.

    Args:
        command: Its name.
        arguments: The arguments after it.

    Raises:
        OutputExistsError: A file or a folder is there.
    """
    if {"-h", "--help"} & set(arguments):
        return
    from medseg_pl.io.atomic_files import require_absent, require_empty
    from medseg_pl.io.folders import check_kept_input

    options = dict(_split_options(arguments))
    output = _find_output(arguments, options)
    others = {name: Path(values[0]) for name, values in options.items() if values}
    require_absent(*({**others, "output": output}.get(name) for name in _NEW_FILES.get(command, ())))
    if command in _NEW_FOLDERS and output:
        require_empty(output)
    if command in ("new", "phantom") and arguments and not arguments[0].startswith("-"):
        require_empty(Path(arguments[0]))
    if command == "review" and output:
        check_kept_input(output)


def _split_options(arguments: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield each long option's plain name with its values."""
    for index, argument in enumerate(arguments):
        if not argument.startswith("--") or argument == "--":
            continue
        name, equals, value = argument[2:].partition("=")
        values = [value] if equals else []
        for each in arguments[index + 1 :]:
            if each.startswith("-"):
                break
            values.append(each)
        yield name, values


def _check_required(command: str, arguments: Sequence[str], options: Mapping[str, Sequence[str]]) -> None:
    if command in _TRAINING and not ({"config", "model.network"} & options.keys() or "-c" in arguments):
        given = options.get("data_root") or options.get("data.source.root")
        raise SettingError(
            f"medseg {command} needs --config FILE. Make one for your data: medseg plan "
            f"{_quote(given[0] if given else 'mydata')} -o plan.yaml, then medseg {command} --config plan.yaml."
        )
    if command == "tune" and "space" not in options:
        raise SettingError("medseg tune needs --space FILE, such as configs/sweeps/learning_rate.yaml.")
    if command in ("validate", "test", "predict") and "ckpt_path" not in options:
        wrong = next((name for name in options if OTHER_SETTINGS.get(name, "").startswith("--ckpt_path")), None)
        instead = f", not --{wrong}" if wrong else ""
        raise SettingError(f"medseg {command} needs --ckpt_path{instead}: {_CHECKPOINT}.")
    if command == "predict":
        for name, short, what in _FOLDERS:
            if name not in options and short not in arguments:
                near = difflib.get_close_matches(name, options.keys() - {"input", "output"}, n=1)
                instead = f", not --{near[0]}" if near else ""
                raise SettingError(f"medseg predict needs --{name}{instead}: {what}.")


def _check_folders(arguments: Sequence[str], options: Mapping[str, Sequence[str]]) -> None:
    from medseg_pl.io.folders import check_kept_input
    from medseg_pl.io.paths import suggest_similar

    if not options.get("input"):
        return
    images, output = Path(options["input"][0]), _find_output(arguments, options)
    if not _exists(str(images)):
        remedy = f"{suggest_similar(images)}Give a folder of images, or an image."
        raise MissingDataError(f"--input {images} does not exist. {remedy}")
    # An output within the input is the parser's to refuse.
    if output and not output.resolve().is_relative_to(images.resolve()):
        check_kept_input(output, images)


def _find_output(arguments: Sequence[str], options: Mapping[str, Sequence[str]]) -> Path | None:
    after_short = arguments[arguments.index("-o") + 1 :] if "-o" in arguments else []
    given = options.get("output") or after_short
    return Path(given[0]) if given else None


def name_owners(name: str) -> str:
    """Name the commands that have an option, or the first three and that there are others.

    Args:
        name: The option, as `data_root`.

    Returns:
        Empty where no command has it.

    >>> name_owners("minutes"), name_owners("jobs"), name_owners("trainer.devices"), name_owners("nonsense")
    ('medseg plan', 'medseg crossval and tune', 'medseg fit and others', '')
    >>> name_owners("output"), name_owners("config")
    ('medseg predict, evaluate, export and others', 'medseg fit, check, plan and others')
    """
    # All that trains, scores or predicts takes settings, as `fit` does.
    is_setting = name in SETTINGS or name.startswith(OPEN)
    owners = ["fit"] * is_setting + [command for command, names in OWN.items() if name in names]
    if not owners:
        return ""
    *first, last = [*owners[:3], "others"] if is_setting or len(owners) > 3 else owners
    return f"medseg {', '.join(first)}{' and ' if first else ''}{last}"


def _explain_owners(command: str, name: str) -> str:
    """Say which command an option belongs to, and what to do; empty if to none."""
    # What a plan takes about the data or the time is in its configuration.
    if command in _TRAINING and name in OWN["plan"] and name != "output":
        return "which belongs to medseg plan: plan again with it."
    owners = name_owners(name)
    return f"which belongs to {owners}: give it there." if owners else ""


def _find_name_fault(command: str, name: str) -> str | None:
    """Name the setting that a wrong one may stand for; `None` for a right one."""
    name = name.removesuffix("+")
    known = (*SETTINGS, *OWN.get(command, ()))
    if name in known or name.startswith(OPEN) or name.removesuffix(".help") in known:
        return None
    plain = name.replace("-", "_").lower()
    other = f"--{plain}" if plain in known else OTHER_SETTINGS.get(plain)
    if other is None:
        last_parts = {setting.rsplit(".", 1)[-1]: setting for setting in known}
        if plain not in last_parts and (owners := _explain_owners(command, plain)):
            return f"--{_quote(name)}, {owners}"
        candidates = {setting: setting for setting in known} if "." in plain else last_parts
        # What is like no setting goes on to the parser, which knows more about classes than this list.
        near = difflib.get_close_matches(plain, candidates, n=1, cutoff=0.8)
        other = f"--{candidates[near[0]]}" if near else None
    return None if other is None else f"--{_quote(name)}. Use {other}."


def _check_value(name: str, values: Sequence[str], options: Mapping[str, Sequence[str]]) -> None:
    if not values:
        return
    value = values[0]
    if name == "config":
        _check_config(value)
    elif name == "data" and not value.endswith((".yaml", ".yml", ".json")) and value[:1] != "{":
        raise SettingError(f"--data takes a file of settings, got {_quote(value)}. Use --data_root {_quote(value)}.")
    elif name in _LISTS or value.startswith(("[", "{")):
        _check_list(name, values)
    elif name == "trainer.logger" and value.lower() in _LOGGERS:
        raise SettingError(f"--{name} takes a class, got {value}. Use --config configs/logger/{value.lower()}.yaml.")
    elif (
        name.startswith("trainer.callbacks") and value == "EarlyStopping" and "trainer.callbacks.monitor" not in options
    ):
        raise SettingError(f"EarlyStopping needs a score to monitor. Use {_EARLY_STOPPING}.")


def _check_list(name: str, values: Sequence[str]) -> None:
    text = " ".join(values).strip()
    if text == "null":
        return
    parts, example = _NUMBERS.get(name, ("", ""))
    amount, given = parts.count(",") + 1, re.split(r"[,\s]+", text.strip("[], "))
    is_list, is_side = text.startswith(("[", "{")), amount == 2 and len(given) == 1
    if parts and len(given) != amount and (is_list or not is_side):
        raise SettingError(
            f"--{name} takes {'two' if amount == 2 else 'three'} numbers ({parts}), got {_quote(text)}. Write them as "
            f"in --{name} {_quote(example)}."
        )
    if not is_list:
        items = ", ".join(each.rstrip(",") for each in ([*values, *values] if parts and is_side else values))
        raise SettingError(f"--{name} takes a list, got {_quote(text)}. Write --{name} {_quote(f'[{items}]')}.")
    if len(values) > 1 and text.endswith(("]", "}")):
        names = f" ({parts})" if parts else ""
        raise SettingError(f"A shell splits {make_printable(text[:60])}. Quote it: --{name} {_quote(text)}{names}.")


def _check_config(value: str) -> None:
    if not find_config(value).is_file():
        raise SettingError(describe_missing_config(value))


def _quote(text: str) -> str:
    """Quote a stranger's text as a shell would read it."""
    return shlex.quote(make_printable(text[:60]))
