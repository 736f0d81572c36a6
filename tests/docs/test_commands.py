"""Every command of the documentation is one that exists, with options that exist."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import yaml
from lightning.pytorch.cli import LightningArgumentParser

from medseg_pl.__main__ import MODULES, REPEATING, TRAINER_COMMANDS
from medseg_pl.cli.lightning_cli import make_parser
from medseg_pl.cli.parser import CommandParser, read_early_options
from medseg_pl.core.errors import SettingError
from medseg_pl.core.import_policy import restrict_imports
from tests.docs.commands import ELSEWHERE, PAGES, Command, blocks, commands

pytestmark = pytest.mark.documents

DEMO = Path("configs/experiment/demo.yaml")


Parsers = Mapping[str, LightningArgumentParser]


@pytest.fixture(scope="module")
def parsers(tmp_path_factory: pytest.TempPathFactory) -> Parsers:
    """Of `fit`, `validate`, `test` and `predict`; these three as with a checkpoint of the demo."""
    settings = yaml.safe_load(DEMO.read_text())
    trained = tmp_path_factory.mktemp("checkpoint") / "settings.yaml"
    trained.write_text(yaml.safe_dump({part: settings[part] for part in ("model", "data")}))
    later = {
        command: make_parser(command, default_config_files=[str(trained)])
        for command in TRAINER_COMMANDS
        if command != "fit"
    }
    return {"fit": make_parser("fit"), **later}


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the module that the page about plug-ins shows."""
    folder = tmp_path_factory.mktemp("plugin")
    (folder / "mypackage.py").write_text(blocks(Path("docs/plugins.md"), "python")[0][1])
    return folder


def parse(words: Sequence[str], parsers: Parsers) -> None:
    """Read a command line as `medseg` would, up to where files are opened or anything is made.

    Raises:
        SettingError: An option does not exist.
        SystemExit: The help is asked for.
    """
    command, *arguments = words
    if command in REPEATING:
        repeating = importlib.import_module(f"medseg_pl.cli.{command}")
        command, arguments = "fit", repeating.read_options(arguments)[1]
    if command in TRAINER_COMMANDS:
        early, rest = read_early_options(arguments)
        assert command == "fit" or early.checkpoints, f"medseg {command} needs a checkpoint"
        known = [word for word in rest if word != "--print_config"]
        # A configuration that an earlier command of the page writes is not there yet.
        there = [word if not word.endswith(".yaml") or Path(word).is_file() else str(DEMO) for word in known]
        there += [f"--data.source.root={early.data_root}"] if early.data_root else []
        with restrict_imports(early.plugins):
            parsers[command].parse_args(there)
        return
    assert command in MODULES, f"there is no command {command}"
    module = importlib.import_module(MODULES[command])
    own = CommandParser(f"medseg {command}", "")
    module.add_arguments(own)
    own.parse_args(arguments)


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_commands_and_options_exist(
    page: Path, parsers: Parsers, plugin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(plugin)
    for command in commands(page):
        program, *words = command.words
        assert program == "medseg" or program in ELSEWHERE, f"{command}: name the program in ELSEWHERE, or run it"
        if program == "medseg":
            try:
                parse(words, parsers)
            except SystemExit as left:
                assert left.code == 0, str(command)
            except SettingError as error:
                pytest.fail(f"{command}: {error}")


def test_a_wrong_option_is_found(parsers: Parsers) -> None:
    parse(["fit", "--config", str(DEMO), "--data.batch_size", "2"], parsers)
    with pytest.raises(SettingError, match="bach_size"):
        parse(["fit", "--config", str(DEMO), "--data.bach_size", "2"], parsers)
    with pytest.raises(SettingError, match="lrr"):
        parse(["fit", "--config", str(DEMO), "--model.optimizer.init_args.lrr", "2"], parsers)
    with pytest.raises(SettingError, match="inputs"):
        parse(["predict", "--ckpt_path", "a.ckpt", "--inputs", "a", "--output", "b"], parsers)
    with pytest.raises(SettingError, match="outputs"):
        parse(["plan", "mydata", "--outputs", "plan.yaml"], parsers)


def test_lines_are_read_as_a_shell_reads_them(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "words\n```bash\nmedseg check 'my data' [--html a.html]   # why\nmedseg fit \\\n    --a b\n"
        "make demo && medseg phantom x > 'x' # > y\n```\n```yaml\nno: command\n```\n"
    )
    assert commands(page) == [
        Command(page, 3, ("medseg", "check", "my data", "--html", "a.html")),
        Command(page, 4, ("medseg", "fit", "--a", "b")),
        Command(page, 6, ("make", "demo")),
        Command(page, 6, ("medseg", "phantom", "x")),
    ]


def test_every_page_that_is_to_be_followed_has_commands() -> None:
    without_commands = [page.stem for page in PAGES if not any(each.words[0] == "medseg" for each in commands(page))]
    assert without_commands == [
        *("accuracy", "api_data", "api_metrics", "api_models", "benchmarks", "design", "docker", "index"),
        *("notebook", "scaling", "script", "troubleshooting"),
    ]
