"""Tables for a paper: bold only beyond chance, and text of a stranger is text."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from medseg_pl.__main__ import main
from medseg_pl.metrics.statistics.comparison import compare_metric
from medseg_pl.metrics.statistics.intervals import bootstrap_interval
from medseg_pl.metrics.statistics.paired_scores import Table, match
from medseg_pl.reporting import read_run
from medseg_pl.reporting.methods import list_items, write_methods
from medseg_pl.reporting.paper_tables import (
    Cell,
    PaperTable,
    escape_latex,
    format_latex,
    format_markdown,
    make_comparison_table,
)
from tests.reporting.run_folders import CONFIG, HOSTILE_LABEL, score, some_scores, write_run, write_two_runs
from tests.timeouts import HANG_S

SPECIAL = r"\input{/etc/passwd} 100% $x_1^2$ #1 & ~{} <a|b> \"q\" a--b ?`"


def compare(better: float) -> PaperTable:
    """Two runs on ten patients; one is better by so much in each of them."""
    rows = [
        [
            {
                **each.values,
                "case_id": each.case_id,
                "group": each.group,
                "label": "liver",
                "status": "ok",
                "unit": "mm",
            }
            | {"tp": 100, "fn": 0}
            for each in (
                score(f"c{i}", f"p{i}", "liver", 0.5 + i / 100 + shift * (1 if better else (-1) ** i))
                for i in range(10)
            )
        ]
        for shift in (0.0, better or 0.01)
    ]
    tables = [Table(name, each) for name, each in zip("AB", rows, strict=True)]
    matched = match(*tables)
    metrics = {name: compare_metric(matched, name, tables, resamples=1000, seed=0) for name in ("dice", "hd95")}
    return make_comparison_table(metrics, matched, tables, ["one", "two"])


def find_bold(table: PaperTable) -> list[tuple[int, int]]:
    return [
        (row, column)
        for group in table.groups
        for row, cells in enumerate(group)
        for column, cell in enumerate(cells)
        if cell.bold
    ]


def test_the_better_run_is_bold_for_its_label_and_the_mean() -> None:
    table = compare(better=0.1)
    assert find_bold(table) == [(0, 3), (1, 3)] * 2  # column B, whether more or less is better
    low, high = bootstrap_interval([0.5 + i / 100 for i in range(10)], [f"p{i}" for i in range(10)])
    assert table.groups[0][0][2].text == f"0.545 [{low:.3f}, {high:.3f}]"
    assert table.groups[0][0][0].text == "Dice" and table.groups[1][0][0].text == "HD95 (mm)"


def test_nothing_is_bold_by_chance() -> None:
    assert find_bold(compare(better=0.0)) == []


@pytest.mark.parametrize(
    ("text", "latex"),
    [
        ("large_bowel", r"large\_bowel"),
        ("\\input{x}", r"\textbackslash{}input\{x\}"),
        ("5 % & $1 #2", r"5 \% \& \$1 \#2"),
        ("a~b^c", r"a\textasciitilde{}b\textasciicircum{}c"),
        ("1 – 2 ± 3 − 4 × 5", r"1 -- 2 $\pm$ 3 $-$ 4 $\times$ 5"),
        ("a---b", "a-{}-{}-b"),
        ("two\nlines\x1b[2J", "two lines�[2J"),
        ("é", "é"),
    ],
)
def test_special_characters_are_text(text: str, latex: str) -> None:
    assert escape_latex(text) == latex


def test_rows_have_as_many_columns_as_the_header() -> None:
    table = PaperTable("t", SPECIAL, ["label", "A & B"], [[[Cell(SPECIAL), Cell("[1]", bold=True)]]])
    latex = format_latex(table)
    (row,) = [line for line in latex.splitlines() if "[1]" in line]
    assert len(re.findall(r"(?<!\\)&", row)) == 1
    assert row.endswith(r"\textbf{{[1]}} \\")
    assert r"\begin{tabular}{@{}lr@{}}" in latex and all(
        rule in latex for rule in ("\\toprule", "\\midrule", "\\bottomrule")
    )
    lines = format_markdown(table).splitlines()
    assert len(re.findall(r"(?<!\\)\|", lines[2])) == 3


def test_a_metric_is_the_heading_of_its_rows() -> None:
    lines = [line.strip() for line in format_latex(compare(better=0.1)).splitlines()]
    assert [line for line in lines if "multicolumn" in line] == [
        r"\multicolumn{6}{@{}l}{Dice} \\",
        r"\multicolumn{6}{@{}l}{HD95 (mm)} \\",
    ]
    assert lines[lines.index(r"\toprule") + 1].split(" & ")[:3] == ["label", "A", "B"]
    assert sum("$-$4.00 [$-$4.00, $-$4.00]" in line for line in lines) == 2


@pytest.mark.parametrize("engine", ["tectonic", "pdflatex"])
def test_latex_compiles(engine: str, tmp_path: Path) -> None:
    if shutil.which(engine) is None:
        pytest.skip(f"{engine} is not installed")
    hostile = PaperTable("hostile", SPECIAL, ["label", SPECIAL], [[[Cell(SPECIAL), Cell("[1mm]", bold=True)]] * 2] * 2)
    tables = format_latex(compare(better=0.1)) + format_latex(hostile)
    document = f"\\documentclass{{article}}\\usepackage{{booktabs}}\\begin{{document}}\n{tables}\\end{{document}}\n"
    (tmp_path / "table.tex").write_text(document)
    options = ["-interaction=nonstopmode", "-halt-on-error"] if engine == "pdflatex" else []
    done = subprocess.run(
        [engine, *options, "table.tex"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=HANG_S
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "table.pdf").stat().st_size > 1000
    if engine == "pdflatex":
        # The first table is one that a paper has: it stays on the page.
        assert (tmp_path / "table.log").read_text().count("Overfull") == 1


def test_compare_writes_and_prints_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [str(run) for run in write_two_runs(tmp_path)]
    files = {"latex": tmp_path / "t.tex", "markdown": tmp_path / "t.md", "csv": tmp_path / "t.csv"}
    options = [word for name, path in files.items() for word in (f"--{name}", str(path))]
    assert main(["compare", *runs, "--metric", "dice", "--metric", "nsd", *options]) == 0
    assert capsys.readouterr().out.splitlines()[-3:] == [f"Wrote {path}" for path in files.values()]
    for name, path in files.items():
        assert main(["compare", *runs, "--metric", "dice", "--metric", "nsd", "--format", name]) == 0
        assert capsys.readouterr().out == path.read_text()
    assert "A: demo, version\\_0; B: other, version\\_3." in files["latex"].read_text()
    assert "\\textbf{0." in files["latex"].read_text() and "**0." in files["markdown"].read_text()
    assert main(["compare", *runs, "--latex", str(files["latex"])]) == 1
    assert "exists already" in capsys.readouterr().err


def test_labels_of_a_stranger_stay_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = [score(f"c{i}", f"p{i}", HOSTILE_LABEL, 0.5 + i / 50) for i in range(6)]
    run = write_run(tmp_path / "a" / "version_0", table, [HOSTILE_LABEL])
    assert main(["compare", str(run), str(run), "--format", "latex"]) == 0
    printed = capsys.readouterr().out
    assert "\\textless{}img src=x" in printed and "\\$x\\textasciicircum{}2\\$" in printed


def test_methods_answer_with_evidence_and_name_what_is_open(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "demo" / "version_0", some_scores(24, seed=1))
    assert main(["report", str(run), "--methods", str(tmp_path / "methods.md")]) == 0
    text = (tmp_path / "methods.md").read_text()
    assert "24 cases of 12 patients" in text and "torch 2.14.1" in text and "drawn 2000 times over patients" in text
    assert "/home/someone" not in text
    answered = [line for line in text.splitlines() if line.startswith("| ")][2:]
    assert all("`" in line.split(" | ")[-1] for line in answered), "each with its evidence"
    assert "- Ethical approval (TRIPOD+AI 17)" in text
    assert not (run / "report.html").exists()
    assert main(["report", str(run), "--methods", str(tmp_path / "methods.md")]) == 1
    assert "exists already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ({}, "It started from random weights."),
        ({"pretrained": "/home/someone/best.ckpt"}, "It started from weights of a file."),
        (
            {"pretrained": "medseg:efficientnet_lite0"},
            "It started from ImageNet weights (efficientnet_lite0) in the encoder, random ones in the decoder.",
        ),
        (
            {"network": {"class_path": "smp.Unet", "init_args": {"encoder_weights": "imagenet"}}},
            "It started from imagenet weights in the encoder, random ones in the decoder.",
        ),
        ({"tta": "horizontal"}, "Its probabilities are means over the image and its horizontal flip."),
    ],
)
def test_methods_name_initial_weights_and_averages(model: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    network = {"class_path": "smp.Unet"}
    averaging = {"class_path": "medseg_pl.training.callbacks.WarmupEMA", "init_args": {"decay": 0.99}}
    config = {
        **CONFIG,
        "model": {**CONFIG["model"], "network": network, **model},
        "trainer": {**CONFIG["trainer"], "callbacks": [averaging]},
    }
    run = read_run(write_run(tmp_path / "demo" / "version_0", some_scores(8, seed=1), config=config), "test")
    text = write_methods(run)
    assert sentence in text and "/home/someone" not in text
    assert "Its weights are an exponential moving average (decay 0.99)." in text
    assert ("means over" in text) == ("tta" in model)
    started = next(item for item in list_items(run) if item.subject == "Initial weights")
    assert started.answer in text
    assert "With 4 patients an interval holds the true mean less often than" in text


def test_a_run_that_recorded_nothing_has_few_answers(tmp_path: Path) -> None:
    run = write_run(tmp_path / "demo" / "version_0", some_scores(8, seed=1))
    for name in ("config.yaml", "environment.json", "splits.json"):
        (run / name).unlink()
    assert main(["report", str(run), "--methods", str(tmp_path / "methods.md")]) == 0
    text = (tmp_path / "methods.md").read_text()
    assert "- The model (CLAIM 22 · TRIPOD+AI 12c, 22)" in text and "- Software" in text
    assert "not known" in text


def describe_intervals(folder: Path, dice: list[float], ci95: list[float] | None = None) -> str:
    """Methods of one patient for each Dice; `ci95` stands in the summary as earlier releases wrote it."""
    run = write_run(
        folder / "demo" / "version_0", [score(f"c{i}", f"p{i}x", "liver", d) for i, d in enumerate(dice)], ["liver"]
    )
    summary = json.loads((run / "summary_test.json").read_text())
    if ci95 is not None:
        summary["labels"]["liver"]["dice"]["ci95"] = ci95
    (run / "summary_test.json").write_text(json.dumps(summary))
    return write_methods(read_run(run, "test"))


def test_methods_describe_intervals_only_if_they_show_one(tmp_path: Path) -> None:
    three, six = (
        f"No interval is given: the scores of {n} patients do not say how much patients differ." for n in (3, 6)
    )
    fewer = describe_intervals(tmp_path / "few", [0.6, 0.7, 0.8])
    assert three in fewer and "Intervals are" not in fewer
    alike = describe_intervals(tmp_path / "alike", [0.7] * 6)
    assert six in alike and "Intervals are" not in alike and "liver 0.700." in alike


def test_methods_describe_intervals_of_earlier_releases(tmp_path: Path) -> None:
    text = describe_intervals(tmp_path, [0.6, 0.7, 0.8], ci95=[0.6, 0.8])
    assert "liver 0.700 (0.600 to 0.800)" in text and "Intervals are 95 %" in text
    assert "With 3 patients an interval holds the true mean less often than 95 times in 100." in text
    assert "No interval" not in text and "no interval" not in text


@pytest.mark.parametrize(("cases", "named"), [(6, False), (15, True)])
def test_thirds_of_few_cases_are_no_subgroups(tmp_path: Path, cases: int, named: bool) -> None:
    run = read_run(write_run(tmp_path, some_scores(cases, seed=0)), "test")
    answers = {item.subject: item.answer for item in list_items(run)}
    assert ("size of stomach" in answers["Performance in subgroups"]) == named


def test_an_evaluation_names_no_files_that_it_has_not(tmp_path: Path) -> None:
    run = replace(read_run(write_run(tmp_path, some_scores(6, seed=0)), "test"), splits=None, environment=None)
    items = {item.subject: item for item in list_items(replace(run, stage="evaluate"))}
    assert items["Numbers of patients and cases"].evidence == items["Class imbalance"].evidence == ""
    assert (
        items["Evaluation on internal data"].answer
        == ""
        != {i.subject: i for i in list_items(run)}["Evaluation on internal data"].answer
    )
