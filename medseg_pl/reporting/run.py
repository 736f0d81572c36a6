"""What a run folder holds, as far as it is there."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from medseg_pl.core.errors import MissingDataError, UnreadableFileError, count_noun
from medseg_pl.core.validation import find_path_fault
from medseg_pl.io.config_files import read_mapping, read_yaml, require_mapping
from medseg_pl.io.privacy import redact_config
from medseg_pl.io.scores import (
    Row,
    find_scores,
    locate_summary,
    parse_stage,
    read_metrics,
    read_objects,
    read_reliability,
    read_rows,
    suggest_run,
)

Values = Mapping[str, Any]
CROSSVAL = "crossval"
"""The stage of scores that are those of all folds."""


@dataclass(frozen=True)
class Run:
    """One run, or one evaluation.

    Args:
        folder: Its folder; not for showing.
        title: Its name on the page: its experiment and its folder's name.
        stage: The scored stage: `test`, `val` or `evaluate`.
        rows: The table of scores, one row for each case and label.
        summary: The content of `summary_<stage>.json`.
        log: The rows of `metrics.csv`.
        splits: The content of `splits.json`.
        environment: The content of `environment.json`.
        config: The last settings of the run.
        table: The file that holds `rows`, the newest of its stage.
        reliability: Bins of each label's probabilities, where `CalibrationMetric` measured them.
        folds: Of a cross-validation the runs of its folds, in their order.
        objects: The table of objects, where `ObjectMetric` kept them.
        progress: How far training had come as it ended, see `LengthTracker.describe_end`; `None` before it does.
    """

    folder: Path
    title: str
    stage: str
    rows: Sequence[Row]
    summary: Values
    log: Sequence[Mapping[str, str]]
    splits: Values | None
    environment: Values | None
    config: Values | None
    table: Path | None = None
    reliability: Mapping[str, Mapping[str, Sequence[float]]] = field(default_factory=dict)
    folds: Sequence[Run] = ()
    objects: Sequence[Row] = ()
    progress: Values | None = None

    @property
    def labels(self) -> list[str]:
        """The labels, in their order."""
        return list(self.summary["labels"])

    @property
    def means(self) -> dict[str, float]:
        """The mean Dice over the labels of each case that has one."""
        cases: dict[str, list[float]] = {}
        for row in self.rows:
            if not math.isnan(value := read_number(row, "dice")):
                cases.setdefault(str(row["case_id"]), []).append(value)
        return {case_id: sum(values) / len(values) for case_id, values in cases.items()}

    def values(self, label: str, metric: str) -> list[tuple[Row, float]]:
        """Return the scored rows of a label with their scores."""
        scored = ((row, read_number(row, metric)) for row in self.rows if row["label"] == label)
        return [(row, value) for row, value in scored if not math.isnan(value)]


def read_run(folder: Path, stage: str | None, labels: Sequence[str] | None = None) -> Run:
    """Read the folder of a run or of an evaluation.

    Args:
        folder: The folder.
        stage: The scored stage; the test by default, or else the only one there is.
        labels: With them a run that was not scored is read as well, and has these labels and no rows.

    Raises:
        MissingDataError: There is no such folder, or it has no scores.
        UnreadableFileError: A file in it is damaged.
    """
    if not folder.is_dir():
        missing = f"{folder} is no folder" if folder.exists() else f"There is nothing at {folder}"
        raise MissingDataError(f"{missing}. {suggest_run(folder)}Name a run folder, such as runs/demo/version_0.")
    scored = labels is None or any(folder.glob("scores_*.csv"))
    table, rows, summary = _read_scores(folder, stage) if scored else _make_unscored(labels or ())
    if table is not None and parse_stage(table) == CROSSVAL:
        return _read_crossval(folder, table, rows, summary)
    config = _read_config(folder)
    log = folder / "metrics.csv"
    return Run(
        folder=folder,
        title=_make_title(folder, config),
        stage="none" if table is None else parse_stage(table) or "test",
        table=table,
        rows=rows,
        summary=summary,
        log=read_metrics(log) if log.is_file() else [],
        splits=read_mapping(folder / "splits.json"),
        environment=read_mapping(folder / "environment.json"),
        config=config,
        reliability=read_reliability(table) if table is not None else {},
        objects=read_objects(table) if table is not None else (),
        progress=read_mapping(folder / "complete.json"),
    )


def _read_crossval(folder: Path, table: Path, rows: Sequence[Row], summary: Values) -> Run:
    """Read a cross-validation's scores, with settings and environment of its folds."""
    names = (summary.get("folds") or {}).get("runs")
    if not isinstance(names, list) or not names or any(find_path_fault(str(name)) is not None for name in names):
        raise UnreadableFileError(
            f"{locate_summary(table)} does not name the runs of its folds. Repeat medseg crossval, which writes it."
        )
    # `val`, so that a folder which names itself among its folds is not read for ever.
    folds = [read_run(folder / str(name), "val") for name in names]
    config = {**(folds[0].config or {}), "experiment": folder.resolve().name}
    config["data"] = {name: value for name, value in (config.get("data") or {}).items() if name != "fold"}
    environment = {name: value for name, value in (folds[0].environment or {}).items() if name != "resumed"}
    # Its digest is of one fold's sides; what the data is like is the same for all.
    survey = (environment.get("data") or {}).get("survey")
    environment["data"] = {"survey": survey} if survey else {}
    return Run(
        folder=folder,
        title=f"{folder.resolve().name}, {count_noun(len(folds), 'fold')}",
        stage=CROSSVAL,
        rows=rows,
        summary=summary,
        log=[],
        splits=None,
        environment=environment,
        config=config,
        table=table,
        reliability=_add_bins([fold.reliability for fold in folds]),
        folds=folds,
        objects=read_objects(table),
    )


def _add_bins(
    folds: Sequence[Mapping[str, Mapping[str, Sequence[float]]]],
) -> dict[str, dict[str, list[float]]]:
    """Add the bins of all folds, if each measured them alike."""
    first = folds[0]
    shapes = [
        {label: {name: len(sums) for name, sums in bins.items()} for label, bins in fold.items()} for fold in folds
    ]
    if any(shape != shapes[0] for shape in shapes):
        return {}
    return {
        label: {name: [sum(each) for each in zip(*(fold[label][name] for fold in folds), strict=True)] for name in bins}
        for label, bins in first.items()
    }


def _read_scores(folder: Path, stage: str | None) -> tuple[Path | None, Sequence[Row], Values]:
    scores = find_scores(folder, stage)
    scored_stage = parse_stage(scores) or "test"
    summary = read_mapping(locate_summary(scores))
    if summary is None or not isinstance(summary.get("labels"), dict):
        raise MissingDataError(
            f"Expected {locate_summary(scores).name} with the labels beside {scores}. Score the run again with medseg "
            f"{'evaluate' if scored_stage == 'evaluate' else 'test'}, which writes both."
        )
    return scores, read_rows(scores), summary


def _make_unscored(labels: Sequence[str]) -> tuple[Path | None, Sequence[Row], Values]:
    return None, [], {"labels": {label: {} for label in labels}}


def read_number(row: Mapping[str, Any], column: str) -> float:
    """Read the number in a column, NaN where there is none."""
    value = row.get(column, math.nan)
    # An empty cell is read as an empty string.
    return math.nan if isinstance(value, str) else float(value)


def get_section(run: Run, name: str) -> Values:
    """Return a redacted section of a run's settings, empty if not recorded."""
    section = redact_config(run.config or {}).get(name)
    return section if isinstance(section, Mapping) else {}


def _make_title(folder: Path, config: Values | None) -> str:
    """Make a title that tells nothing of where the folder is."""
    experiment = str((config or {}).get("experiment") or "")
    # Resolved, since the name of `.` is empty.
    name = folder.resolve().name
    return f"{experiment}, {name}" if experiment and experiment != name else name


def _read_config(folder: Path) -> Values | None:
    """Read the newest configuration, of which a resumed run may have several."""
    # By length first: config_resumed_10 comes after config_resumed_9.
    later = sorted(folder.glob("config_resumed_*.yaml"), key=lambda path: (len(path.name), path.name))
    path = [folder / "config.yaml", *later][-1]
    if not path.is_file():
        return None
    try:
        content = read_yaml(path)
    except ValueError as error:
        raise UnreadableFileError(f"{path} is not valid YAML: {error}.") from None
    return require_mapping(path, content)


class Setting(NamedTuple):
    """A setting's value in each run, and whether the runs differ."""

    name: str
    values: list[str]
    differs: bool


def compare_settings(runs: Sequence[Run]) -> list[Setting]:
    """Compare the redacted settings of runs, with differences first."""
    return _align_settings([redact_config(run.config or {}) for run in runs])


def compare_environments(runs: Sequence[Run]) -> list[Setting]:
    """Compare what runs were trained on and with."""
    return _align_settings([_summarize_environment(run.environment or {}) for run in runs])


def _summarize_environment(record: Mapping[str, Any]) -> dict[str, Any]:
    """Summarize an environment without its data, which has its own section."""
    selected = {name: value for name, value in record.items() if name not in ("data", "resumed")}
    return {**selected, "resumed": f"{len(record['resumed'])} times"} if record.get("resumed") else selected


def _align_settings(settings: Sequence[Mapping[str, Any]]) -> list[Setting]:
    flat = [dict(_flatten(one)) for one in settings]
    lines = []
    for name in dict.fromkeys(name for one in flat for name in one):
        # A setting that one run does not have differs from any value of the others.
        values = [one.get(name, "–") for one in flat]
        lines.append(Setting(name, values, len(set(values)) > 1))
    return sorted(lines, key=lambda line: not line.differs)


def _flatten(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Flatten nested settings to `a.b.c` and text.

    >>> list(_flatten({"model": {"input_size": [96, 112], "loss": {"class_path": "a.Dice", "init_args": {"n": True}}}}))
    [('model.input_size', '96, 112'), ('model.loss', 'a.Dice'), ('model.loss.n', 'true')]
    """
    if isinstance(value, Mapping):
        for key, inner in value.items():
            # These two words of jsonargparse name no setting, and would double the length of every line.
            here = name if key in ("class_path", "init_args") else f"{name}.{key}" if name else str(key)
            yield from _flatten(inner, here)
    elif isinstance(value, (list, tuple)) and any(isinstance(inner, (Mapping, list, tuple)) for inner in value):
        for index, inner in enumerate(value):
            yield from _flatten(inner, f"{name}.{index}")
    elif value is not None:
        yield name, _format_value(value)


def _format_value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return ", ".join(_format_value(inner) for inner in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
