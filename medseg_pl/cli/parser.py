"""Parsers whose errors are one paragraph that names the nearest option, and readings of arguments before they parse."""

from __future__ import annotations

import argparse
import difflib
import inspect
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from jsonargparse import ArgumentParser

from medseg_pl.cli.wrong_use import name_owners
from medseg_pl.core.errors import SettingError, shorten
from medseg_pl.core.validation import find_address
from medseg_pl.io.config_files import describe_missing_config, read_yaml

_EXTRAS = ("wandb", "tensorboard")
"""Packages that come with an extra of the same name."""
_SHORT = {"o": "output", "c": "config"}
"""What short options stand for where there are any."""
_STRATEGIES = ("auto", "ddp", "ddp_spawn", "fsdp", "deepspeed")


class CommandParser(ArgumentParser):
    """Parser of a command that reads and writes files.

    Its help has no types, and its errors are `SettingError`.
    """

    def __init__(self, prog: str, description: str) -> None:
        super().__init__(prog=prog, description=description, allow_abbrev=False, formatter_class=argparse.HelpFormatter)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise instead of printing the usage and exiting."""
        if (missing := re.fullmatch(r"the following arguments are required: ([\w, ]+)\.?", message)) is not None:
            needed = ", ".join(self._describe_argument(name) for name in missing[1].split(", "))
            raise SettingError(f"{self.prog} needs {needed}. See {self.prog} --help.") from ex
        if (unknown := re.match(r"[Uu]nrecognized arguments: (.*)", message, re.S)) is not None:
            raise SettingError(self._describe_unrecognized(unknown[1].split())) from ex
        message = re.sub(r'^Parser key "(\w+)"( element \d+)?:', r"--\1:", message)
        message = message.replace("Not of type PositiveFloat: ", "expected a number above 0; ")
        message = re.sub(r"Not of type (a whole number .*?): ", r"expected \1; ", message)
        raise SettingError(f"{describe_parse_error(message, list_options(self))} See {self.prog} --help.") from ex

    def _describe_unrecognized(self, words: Sequence[str]) -> str:
        """Suggest for each wrong option the nearest one, or quotes for a path.

        >>> parser = CommandParser("medseg plan", "")
        >>> _ = parser.add_argument("--labels")
        >>> parser._describe_unrecognized(["--label", "x"])
        'There is no --label: did you mean --labels? See medseg plan --help.'
        """
        given = [word.partition("=")[0] for word in words if word.startswith("-")]
        sentences = [f"There is no {shorten(word)[1:-1]}{self._explain_option(word)}" for word in given[:3]]
        if not sentences:
            named = next((f"--{each.dest}" for each in self._actions if each.required and each.option_strings), "")
            takes_none = all(each.option_strings for each in self._actions)
            before = f"Write its option before it, such as {named}, or quote" if named and takes_none else "Quote"
            sentences = [f"{self.prog} does not take {shorten(' '.join(words))}. {before} a path that has spaces."]
        return f"{' '.join(sentences)} See {self.prog} --help."

    def _explain_option(self, word: str) -> str:
        """Say what may be meant by an option that the command does not have."""
        name, own = word.lstrip("-").replace("-", "_"), list_options(self)
        name = _SHORT.get(name, name)
        owners = name_owners(name)
        near = difflib.get_close_matches(name, own, n=1)
        # An option that another command has, letter by letter, is none of this command's with a slip.
        is_slip = near and (name in own or "." in name or not owners)
        return f": did you mean --{near[0]}?" if is_slip else f" here: it belongs to {owners}." if owners else "."

    def _describe_argument(self, name: str) -> str:
        """Name an argument as it is typed.

        >>> parser = CommandParser("medseg plan", "")
        >>> _ = parser.add_argument("-o", "--output", metavar="CONFIG")
        >>> parser._describe_argument("output")
        '--output CONFIG'
        """
        action = next((each for each in self._actions if each.dest == name), None)
        if action is None:
            return name
        return " ".join([*action.option_strings[-1:], str(action.metavar or name.upper())])


class EarlyOptions(NamedTuple):
    """Options of a training command that its parser depends on.

    Attributes:
        checkpoints: Of `--ckpt_path`, in their order.
        plugins: Packages of `--plugins`. Read from the command line alone: no file may allow itself anything.
        data_root: The present folder of the data set.
        configs: Configuration files; they stay among the arguments, as do `runs` and `experiment`.
        runs: The folder of all experiments.
        experiment: Its name, where it is given.
    """

    checkpoints: list[str]
    plugins: list[str]
    data_root: str | None
    configs: list[Path]
    runs: str
    experiment: str | None


_SPACE = "\0"
"""Stands for a space in an option; no argument of a process can hold it."""


class EarlyParser(argparse.ArgumentParser):
    """A part of a parser: jsonargparse parses all arguments or none."""

    def __init__(self) -> None:
        super().__init__(add_help=False, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage and exiting."""
        raise SettingError(f"{message.removeprefix('argument ').capitalize()}.")

    def take(self, arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
        """Parse the options of this parser, and return all other arguments.

        >>> parser = EarlyParser()
        >>> _ = parser.add_argument("--jobs", type=int)
        >>> parser.take(["--jobs", "2", "--model.input_size=[64, 64]"])
        (Namespace(jobs=2), ['--model.input_size=[64, 64]'])
        """
        # argparse takes whatever has a space in it for a value, even of an option before it that takes several.
        shielded = [each.replace(" ", _SPACE) if each.startswith("--") else each for each in arguments]
        options, rest = self.parse_known_args(shielded)
        for name, value in vars(options).items():
            setattr(options, name, _restore_spaces(value))
        return options, _restore_spaces(rest)


def read_early_options(arguments: Sequence[str]) -> tuple[EarlyOptions, list[str]]:
    """Read the options that a training command's parser depends on.

    Returns:
        The options, and the arguments without `--ckpt_path`, `--plugins` and `--data_root`.

    >>> early, rest = read_early_options(["--ckpt_path", "a", "b", "-c", "d.yaml", "--plugins=e,f", "--data.fold=1"])
    >>> early.checkpoints, early.plugins, early.configs, rest
    (['a', 'b'], ['e', 'f'], [PosixPath('d.yaml')], ['-c', 'd.yaml', '--data.fold=1'])
    >>> read_early_options(["--ckpt_path", "a", "--model.input_size=[64, 64]"])[1]
    ['--model.input_size=[64, 64]']
    """
    taken, left = EarlyParser(), EarlyParser()
    taken.add_argument("--ckpt_path", nargs="+", action="extend", default=[])
    taken.add_argument("--plugins", action="append", default=[])
    taken.add_argument("--data_root")
    left.add_argument("-c", "--config", action="append", default=[])
    left.add_argument("--runs", default="runs")
    left.add_argument("--experiment")
    options, rest = taken.take(arguments)
    seen, _ = left.take(rest)
    early = EarlyOptions(
        options.ckpt_path,
        split_names(options.plugins),
        options.data_root,
        [Path(path) for path in seen.config],
        seen.runs,
        seen.experiment,
    )
    return early, rest


def _restore_spaces(value: Any) -> Any:
    if isinstance(value, list):
        return [_restore_spaces(each) for each in value]
    return value.replace(_SPACE, " ") if isinstance(value, str) else value


def split_names(values: Sequence[str]) -> list[str]:
    """Split the values of an option into names.

    It can be repeated, and takes several names at a time.

    >>> split_names(["mypackage, other", "third"])
    ['mypackage', 'other', 'third']
    """
    return [name.strip() for value in values for name in value.split(",") if name.strip()]


def list_options(parser: ArgumentParser) -> list[str]:
    """List the names of a parser's options, as `data.batch_size`."""
    return list(parser.get_defaults(skip_validation=True).keys())


def locate_setting(
    name: str, arguments: Sequence[str], configs: Sequence[Path], checkpoint: str | None = None, settings: str = ""
) -> str:
    """Find where a class or a setting is named last.

    That is in the arguments, a configuration or a checkpoint.

    Args:
        name: As in `torch.nn.Module`, or `model.loss`.
        arguments: The raw arguments.
        configs: The files that they name.
        checkpoint: The source of all settings that are not given.
        settings: These settings, as text.

    >>> locate_setting("model.loss", ["--model.loss=mine.Loss"], [])
    ' on the command line'
    >>> locate_setting("mine.Loss", [], [], "best.ckpt", "loss: mine.Loss")
    ' in best.ckpt'
    """
    named = re.compile(rf"(?<![\w.]){re.escape(name)}(?![\w.])")
    if any(named.search(argument) for argument in arguments):
        return " on the command line"
    for path in reversed(configs):
        if path.is_file() and named.search(path.read_text(encoding="utf-8", errors="replace")):
            return f" in {path}"
    return f" in {checkpoint}" if checkpoint and named.search(settings) else ""


def check_sections(path: Path, sections: Sequence[str]) -> None:
    """Check that a configuration file is YAML with known sections.

    Raises:
        SettingError: It is not.
    """
    if not path.is_file():
        raise SettingError(describe_missing_config(path))
    try:
        content = read_yaml(path)
        address = find_address(content)
    except ValueError as error:
        raise SettingError(f"{path} is not valid YAML: {error}.") from error
    if address:
        raise SettingError(
            f"{path}: the setting {address[0]} is the address {shorten(address[1])}; configuration files may not open "
            "addresses. Download it and give its path, or type the setting on the command line."
        )
    if not isinstance(content, dict):
        raise SettingError(
            f"{path} holds no settings; expected sections such as {', '.join(sections)}, each with its own."
        )
    for key in content:
        if key not in sections:
            near = difflib.get_close_matches(str(key), sections, n=1)
            hint = f"Did you mean {near[0]}?" if near else f"Expected one of {', '.join(sections)}."
            raise SettingError(f"{path} has the section {key!r}, which does not exist. {hint}")


def describe_instantiation_error(message: str) -> str:
    """Explain that settings were read, but their objects cannot be made.

    >>> describe_instantiation_error("Requirement 'wandb>=0.12.10' not met. HINT: Try pip")
    "The settings need a package that is not installed (Requirement 'wandb>=0.12.10' not met). Install it with pip \
install 'medseg[wandb]', or leave out what needs it."
    """
    # Of a union, the class that was named is the one with a complaint of its own.
    problem = re.search(
        r"Problem with given class_path '([\w.]+)':\s*(.*?)\s*(?:- Expected a |Given value|$)", message, re.S
    )
    what, reason = problem.groups() if problem else ("The settings", message)
    reason = " ".join(reason.split())
    if re.search(r"Requirement '.*' not met|No module named|pip install", reason):
        extra = next((name for name in _EXTRAS if name in reason.lower()), None)
        remedy = f"pip install 'medseg[{extra}]'" if extra else "pip"
        first = re.split(r"\. (?:HINT|Try)", reason)[0].rstrip(".")
        verb = "need" if problem is None else "needs"
        return (
            f"{what} {verb} a package that is not installed ({first}). Install it with {remedy}, or leave out what "
            "needs it."
        )
    if "No supported gpu backend" in reason or "Accelerator` can not run" in reason:
        return (
            "trainer.accelerator asks for a GPU, and torch finds none. Set --trainer.accelerator cpu; medseg info says "
            "which CUDA torch was built for."
        )
    if found := re.search(r"invalid strategy name: `strategy='([^']*)'`", reason):
        near = difflib.get_close_matches(found[1], _STRATEGIES, n=1)
        hint = f"Did you mean {near[0]}?" if near else f"Choose one of {', '.join(_STRATEGIES)}."
        return f"trainer.strategy has no {shorten(found[1])}. {hint}"
    return f"{what} cannot be made: {reason}" if problem else f"{what} do not fit: {reason}"


def describe_parse_error(message: str, options: Sequence[str]) -> str:
    r"""Convert a parser's message to one paragraph.

    A misspelled name gets the nearest one.

    Args:
        message: Of jsonargparse or argparse.
        options: The options that there are.

    >>> describe_parse_error("Option 'bach_size' is not accepted", ["data.batch_size", "data.fold"])
    "Option 'bach_size' is not accepted. Did you mean batch_size?"
    >>> describe_parse_error('Parser key "trainer.max_epochs": Expected a <class \'int\'>. Got value: ten', [])
    'trainer.max_epochs: expected a whole number, got ten.'
    """
    text = " ".join(re.sub(r'Parser key "([\w.]+)":', r"\1:", message).split()).rstrip(".")
    # Of a union, the type that was meant is the one with a complaint of its own; the rest is about null.
    text = re.sub(
        r"Does not validate against any of the Union subtypes.*?Errors: - (.*?\.?) - (?:Expected a|Not a valid).*",
        r"\1",
        text,
    )
    text = _name_types(text)
    if (missing := re.search(r"^(?:([\w.]+): )?the following arguments are required: ([\w, ]+)$", text)) is not None:
        setting, names = missing.groups()
        where = f"{setting} needs" if setting else "A class that the settings name needs"
        example = f"--{setting or 'model.loss'}.{names.split(',')[0]} VALUE"
        return f"{where} {names}. Add it below init_args, or as in {example}."
    if (missing := re.search(r"^the following arguments are required: ([\w., ]+)$", text)) is not None:
        return f"The settings lack {missing[1]}. {_PLAN}"
    if (missing := re.fullmatch(r"([\w.]+): (expected .*), got None", text)) is not None:
        return f"{missing[1]} is not set; {missing[2]}. {_PLAN}"
    if (unknown := re.search(r"^([\w.]+):.*dot import path string:? ?(\S+)$", text)) is not None:
        setting, name = unknown.groups()
        near = difflib.get_close_matches(name, _list_classes(setting), n=1)
        hint = f"Did you mean {near[0]}?" if near else "Give its name, or its path such as mypackage.MyClass."
        return f"{setting}: there is no class {shorten(name)}. {hint}"
    if (abstract := re.search(r"^([\w.]+): Expected an instantiatable class", text)) is not None:
        setting = abstract.group(1)
        return f"{setting} needs a class, such as {_EXAMPLES.get(setting, 'mypackage.MyClass')}: --{setting} CLASS."
    no_class = re.search(r"module '([\w.]+)' has no attribute '(\w+)'", text)
    wrong = re.search(r"(?:[Oo]ption '|arguments: --)([\w.]+)", text)
    if no_class is not None:
        name, candidates = no_class.group(2), dir(sys.modules.get(no_class.group(1)))
    elif wrong is not None:
        name = wrong.group(1)
        candidates = list(options) if "." in name else [option.rsplit(".", 1)[-1] for option in options]
        for module, class_name in re.findall(r"'class_path': '([\w.]+)\.(\w+)'", message):
            candidates += inspect.signature(getattr(sys.modules[module], class_name)).parameters
    else:
        return f"{text}."
    near = difflib.get_close_matches(name, candidates, n=1)
    return f"{text.rstrip('.')}. Did you mean {near[0]}?" if near else f"{text}."


_PLAN = "medseg plan DIR -o plan.yaml writes all that a training needs."
_TYPES = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text", "dict": "a mapping"}
_TYPES.update(dict.fromkeys(("list", "tuple", "collections.abc.Sequence"), "a list such as [a, b]"))
_EXAMPLES = {
    "data.source": "FolderSource",
    "model.loss": "DiceCELoss",
    "model.network": "Unet",
    "model.normalization": "ZScore",
    "model.optimizer": "AdamW",
    "trainer.logger": "lightning.pytorch.loggers.CSVLogger",
}
_CLASS_MODULES = {
    "data.source": ("medseg_pl.data.sources",),
    "model.loss": ("medseg_pl.models.losses", "segmentation_models_pytorch.losses"),
    "model.lr_scheduler": ("torch.optim.lr_scheduler", "medseg_pl.models.optimizers"),
    "model.network": ("segmentation_models_pytorch",),
    "model.normalization": ("medseg_pl.models.normalization",),
    "model.optimizer": ("torch.optim",),
    "trainer.callbacks": ("lightning.pytorch.callbacks", "medseg_pl.training.callbacks"),
    "trainer.logger": ("lightning.pytorch.loggers",),
}


def _name_types(text: str) -> str:
    """Put the types that a parser expected into words.

    >>> _name_types("x: Expected a typing.Literal['a', 'b']. Got value: c")
    'x: expected one of a, b, got c'
    """
    text = re.sub(
        r"Expected a typing\.Literal\[([^\]]*)\]",
        lambda match: f"expected one of {match[1].replace(chr(39), '')}",
        text,
    )
    text = re.sub(r"Expected a <class '([\w.]+)'>", lambda match: f"expected {_TYPES.get(match[1], match[1])}", text)
    return re.sub(r"\.? Got value: ", ", got ", text)


def _list_classes(setting: str) -> list[str]:
    """List the classes that a setting is commonly given."""
    # Only what is imported already: a suggestion is not worth an import.
    modules = [sys.modules[name] for name in _CLASS_MODULES.get(setting, ()) if name in sys.modules]
    return [name for module in modules for name in dir(module) if name[:1].isupper()]
