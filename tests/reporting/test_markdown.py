"""What a run says in a README."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from medseg_pl.__main__ import main
from medseg_pl.core.errors import SettingError
from medseg_pl.reporting.markdown import fill_markers, find_missing_markers
from tests.reporting.run_folders import CONFIG, HOSTILE, score, write_run

NAMES = ("dataset", "model", "configuration", "train", "evaluate")


def readme_in(folder: Path) -> Path:
    parts = [f"## {name}\n\nMine, of {name}.\n\n<!-- medseg:{name} -->\n<!-- /medseg:{name} -->\n" for name in NAMES]
    path = folder / "README.md"
    path.write_text("# Title\n\n" + "\n".join(parts) + "\nThe end.\n")
    return path


def fill(run: Path, readme: Path) -> int:
    return main(["report", str(run), "--readme", str(readme)])


def test_a_second_report_changes_nothing_and_the_first_only_the_marked(
    two_runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = readme_in(tmp_path)
    readme.chmod(0o640)
    authored = [line for line in readme.read_text().splitlines() if not line.startswith("<!--")]
    assert fill(two_runs[0], readme) == 0
    first = readme.read_bytes()
    lines = iter(first.decode().splitlines())
    assert all(line in lines for line in authored)  # all of them, in their order
    assert fill(two_runs[0], readme) == 0
    assert readme.read_bytes() == first and stat.S_IMODE(readme.stat().st_mode) == 0o640
    assert "says what the run says already" in capsys.readouterr().out


def test_the_blocks_say_what_the_run_says(two_runs: list[Path], tmp_path: Path) -> None:
    readme = readme_in(tmp_path)
    fill(two_runs[0], readme)
    text = readme.read_text()
    summary = json.loads((two_runs[0] / "summary_test.json").read_text())
    described = summary["labels"]["stomach"]["dice"]
    low, high = described["ci95"]
    assert f"| stomach | {described['mean']:.3f} | {low:.3f} to {high:.3f} |" in text
    assert "| **mean of labels** |" in text
    assert "| training | 2 | 2 |" in text and "Read by `FolderSource`." in text
    assert "| `model.labels.names` | large_bowel, small_bowel, stomach |" in text
    assert "Trained for 12 epochs (144 steps)" in text and "| `packages.torch` | 2.14.1 |" in text
    covered = "(what files hold, how they are read, on which side they are)"
    assert f"Fingerprint of the data and its split {covered}: `4f9c" in text
    assert "/home/" not in text and "case0" not in text and "patient0" not in text


def test_another_run_replaces_what_the_first_said(two_runs: list[Path], tmp_path: Path) -> None:
    readme = readme_in(tmp_path)
    fill(two_runs[0], readme)
    first = readme.read_text()
    fill(two_runs[1], readme)
    second = readme.read_text()
    assert second != first and second.count("| stomach |") == 1
    assert "| `model.context_slices` | 2 |" in second and "| `model.context_slices` | 1 |" not in second


def test_names_that_are_markup_are_text_and_marks_in_them_are_none(tmp_path: Path) -> None:
    label = f"{HOSTILE}|`x`<!-- /medseg:evaluate -->"
    config = {**CONFIG, "model": {"labels": {"names": ["```", "<!-- /medseg:configuration -->"]}}}
    run = write_run(tmp_path / "run", [score("a", "p", label, 0.5)], [label], config=config)
    readme = readme_in(tmp_path)
    assert fill(run, readme) == 0
    first = readme.read_text()
    assert HOSTILE not in first and first.count("<!--") == 2 * len(NAMES)
    assert fill(run, readme) == 0 and readme.read_text() == first


def test_a_folder_that_records_little_says_so(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [score("a", "p", "liver", 0.5)], ["liver"])
    for name in ("splits.json", "environment.json", "config.yaml", "metrics.csv"):
        (run / name).unlink()
    readme = readme_in(tmp_path)
    assert fill(run, readme) == 0
    text = readme.read_text()
    assert text.count("The configuration was not recorded.") == 2 and "The training was not recorded." in text
    assert "does not say who was trained on" in text
    assert "mean of labels" not in text  # that of one label is the label's


@pytest.mark.parametrize(
    ("text", "said"),
    [("no marks", "has no place for what the run says"), ("<!-- medseg:train -->", "nothing was written")],
)
def test_a_readme_without_whole_marks_stays(
    two_runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, said: str
) -> None:
    (tmp_path / "README.md").write_text(text)
    assert fill(two_runs[0], tmp_path / "README.md") == 2
    assert said in capsys.readouterr().err
    assert (tmp_path / "README.md").read_text() == text


def test_marks_that_are_not_there_are_told(
    two_runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "README.md").write_text("<!-- medseg:evaluate --><!-- /medseg:evaluate -->")
    assert fill(two_runs[0], tmp_path / "README.md") == 0
    assert "has no marks for dataset, model, configuration, train" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["RUN", "-o", "page.pdf"], "is no .html file"),
        (["RUN", "RUN", "--readme", "README.md"], "A README is of one run; 2 are given"),
        (["RUN", "--readme", "nowhere.md"], "There is no nowhere.md"),
        (["RUN"] * 9 + ["-o", "page.html"], "at most 8 runs; 9 are given"),
    ],
)
def test_wrong_use_is_told(
    two_runs: list[Path], capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert main(["report", *(str(two_runs[0]) if each == "RUN" else each for each in arguments)]) in (1, 2)
    assert said in capsys.readouterr().err


BLOCKS = {"model": "a table", "train": "two\nlines"}
TEXT = (
    "# Mine\n<!-- medseg:train -->\n<!-- /medseg:train -->\nwords\t \n\n<!-- medseg:model -->old<!-- /medseg:model -->"
)


def test_blocks_are_filled_and_all_else_stays() -> None:
    filled = fill_markers(TEXT, BLOCKS, "README.md")
    assert filled == (
        "# Mine\n<!-- medseg:train -->\ntwo\nlines\n<!-- /medseg:train -->\nwords\t \n\n"
        "<!-- medseg:model -->\na table\n<!-- /medseg:model -->"
    )
    assert fill_markers(filled, BLOCKS, "README.md") == filled


def test_line_ends_of_another_system_stay() -> None:
    filled = fill_markers(TEXT.replace("\n", "\r\n"), BLOCKS, "README.md")
    assert filled.count("\r\n") == filled.count("\n") and "two\r\nlines" in filled


def test_a_block_that_holds_a_mark_is_filled_the_same_again() -> None:
    blocks = {**BLOCKS, "model": "<!-- /medseg:model --> evil <!-- medseg:train -->"}
    filled = fill_markers(TEXT, blocks, "README.md")
    assert fill_markers(filled, blocks, "README.md") == filled


def test_blocks_without_marks_are_named() -> None:
    assert find_missing_markers("<!-- medseg:train --><!-- /medseg:train -->", BLOCKS) == ["model"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("no marks", "has no place for what the run says. Put lines such as <!-- medseg:evaluate -->"),
        ("<!-- medseg:train -->", "once each, in this order; found 1 of the first and 0 of the second"),
        ("<!-- /medseg:train --><!-- medseg:train -->", "in this order"),
        ("<!-- medseg:train --><!-- /medseg:train -->" * 2, "found 2 of the first and 2 of the second"),
        ("<!-- medseg:trian --><!-- /medseg:trian -->", "Did you mean train?"),
        ("<!-- medseg:train --><!-- medseg:model --><!-- /medseg:model --><!-- /medseg:train -->", "inside each other"),
    ],
)
def test_damaged_marks_are_refused(text: str, said: str) -> None:
    with pytest.raises(SettingError, match=said):
        fill_markers(text, BLOCKS, "README.md")
