"""Tab completes commands, options and values: asked of the shells themselves."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from medseg_pl.__main__ import MODULES, REPEATING, TRAINER_COMMANDS, main
from medseg_pl.cli import completion
from tests.timeouts import HANG_S

IN_SHELLS = pytest.mark.processes

Ask = Callable[..., set[str]]

BASH = r"""
source "$1"
[[ $(complete -p medseg) == *" -F _shtab_medseg medseg" ]] || exit 1
shift
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
_shtab_medseg
printf '%s\n' "${COMPREPLY[@]}"
"""
ZSH = r"""
zmodload zsh/zpty
await() {  # at most ten seconds: whoever waits for a shell for ever never ends
  local answer chunk tries
  for tries in {1..200}; do
    zpty -rt shell chunk && answer+=$chunk
    [[ $answer == ${~1} ]] && break
    sleep 0.05
  done
  print -r -- "$answer"
}
zpty -b shell zsh -f -i
zpty -w shell "PS1= ; fpath=($1 \$fpath); autoload -Uz compinit; compinit -u -d $1/dump; print REA''DY"
await '*READY*'
zpty -w -n shell "$2"$'\t\C-a'"print -r -- '<"$'\C-e'">'"$'\n'
await $'*\n<*>*'
zpty -d shell
"""
"""Types a line and Tab, and has the line printed that this becomes."""


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What `medseg completion` prints for each shell, under the names that its documentation gives."""
    folder = tmp_path_factory.mktemp("completion")
    files = {"bash": folder / "medseg", "fish": folder / "medseg.fish", "zsh": folder / "_medseg"}
    parser = completion.make_root_parser()  # takes seconds, and is the same for all
    for shell, file in files.items():
        with pytest.MonkeyPatch.context() as patch, file.open("w", encoding="utf-8") as out:
            patch.setattr(completion, "make_root_parser", lambda: parser)
            patch.setattr("sys.stdout", out)
            assert main(["completion", shell]) == 0
    assert set(files) == set(completion.SHELLS)
    return files


def _printed(words: list[str], folder: Path) -> list[str]:
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=True, timeout=HANG_S)
    return done.stdout.splitlines()


def _bash(script: Path, folder: Path, words: tuple[str, ...]) -> set[str]:
    return set(_printed(["bash", "--norc", "-c", BASH, "bash", str(script), "medseg", *words], folder))


def _fish(script: Path, folder: Path, words: tuple[str, ...]) -> set[str]:
    asked = f"source '{script}'; complete -C '{' '.join(('medseg', *words))}'"
    return {line.split("\t")[0] for line in _printed(["fish", "--no-config", "-c", asked], folder)}


@pytest.fixture(params=["bash", "fish"])
def ask(request: pytest.FixtureRequest, scripts: dict[str, Path], tmp_path: Path) -> Ask:
    """What a shell offers for the last of the words, in a folder with a folder and a file in it."""
    if shutil.which(request.param) is None:
        pytest.skip(f"{request.param} is not installed.")
    (tmp_path / "mydata").mkdir()
    (tmp_path / "my.yaml").touch()
    answer = {"bash": _bash, "fish": _fish}[request.param]
    return lambda *words: {each.rstrip("/") for each in answer(scripts[request.param], tmp_path, words)}


def test_the_script_names_commands_options_and_values(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(completion, "_make_trainer_parsers", dict)  # which alone take seconds
    assert main(["completion", "bash"]) == 0
    printed = capsys.readouterr().out
    assert "_shtab_medseg_phantom_option_strings=" in printed
    assert "--layout" in printed
    assert "decathlon" in printed
    assert main(["completion", "tcsh"]) == 2


@IN_SHELLS
def test_commands(ask: Ask) -> None:
    assert ask("") >= {*TRAINER_COMMANDS, *REPEATING, *MODULES}
    assert ask("p") == {"phantom", "plan", "postprocess", "predict"}
    assert ask("compl") == {"completion"}


@IN_SHELLS
def test_options(ask: Ask) -> None:
    assert ask("plan", "mydata", "--m") == {"--mask_name", "--masks", "--memory_gb", "--minutes"}
    assert ask("predict", "--ou") == {"--output"}
    assert ask("test", "--plug") == {"--plugins"}
    assert ask("fit", "--data.source.ro") == {"--data.source.root"}
    assert {"--debug", "--data.batch_size", "--trainer.max_epochs"} < ask("fit", "--")
    assert not any(" " in option for option in ask("fit", "--"))


@IN_SHELLS
def test_values(ask: Ask) -> None:
    assert ask("phantom", "--layout", "d") == {"decathlon"}
    assert ask("fit", "--model.tta", "h") == {"horizontal"}
    assert ask("fit", "--data.source", "U") == {"UWMadisonSource"}
    assert ask("completion", "z") == {"zsh"}


@IN_SHELLS
def test_files_and_folders(ask: Ask) -> None:
    assert ask("fit", "--config", "my") == {"my.yaml", "mydata"}
    assert ask("predict", "--ckpt_path", "my") == {"my.yaml", "mydata"}
    assert ask("predict", "--input", "my") == {"mydata"}
    assert ask("check", "my") == {"mydata"}


@IN_SHELLS
@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed.")
@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("medseg po", "medseg postprocess"),
        ("medseg plan --mem", "medseg plan --memory_gb"),
        ("medseg fit --data.source.roo", "medseg fit --data.source.root"),
        ("medseg phantom --layout d", "medseg phantom --layout decathlon"),
        ("medseg check my", "medseg check mydata"),
    ],
)
def test_zsh(typed: str, completed: str, scripts: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "mydata").mkdir()
    (tmp_path / "my.yaml").touch()
    printed = _printed(["zsh", "-f", "-c", ZSH, "zsh", str(scripts["zsh"].parent), typed], tmp_path)
    assert f"<{completed}>" in [line.replace(" >", ">") for line in printed]
