"""The questions that a reader has first: how good, how sure, where does it fail, can the split be trusted."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from medseg_pl.metrics.statistics.intervals import RESAMPLES, Values, interval_of_means
from medseg_pl.reporting.run import Run
from medseg_pl.reporting.split_audit import audit_split
from medseg_pl.reporting.subgroups import find_weakest, list_size_thirds, list_strata


class Finding(NamedTuple):
    """A question with a few words and a few sentences; `case` is the id of a case to look at."""

    question: str
    headline: str
    sentences: list[str]
    case: str | None = None


def list_findings(run: Run) -> list[Finding]:
    """The four answers of a run."""
    proof = audit_split(run)
    trust = Finding("Can I trust the split?", proof.headline, proof.sentences)
    return [assess_quality(run), assess_certainty(run), find_weaknesses(run), trust]


def assess_quality(run: Run) -> Finding:
    """The means over labels."""
    means = run.summary.get("foreground_mean", {})
    cases, groups = run.summary.get("n_cases", 0), run.summary.get("n_groups", 0)
    of_whom = f"{_counted(cases, 'case')} of {_counted(groups, 'patient')}"
    said = [f"The mean over {_counted(len(run.labels), 'label')} of {of_whom}."]
    unit = " and ".join(run.summary.get("units", []))
    if (distance := means.get("hd95_mm")) is not None:
        said.append(f"HD95 {distance:.1f} {unit}: how far the outlines are apart where they are furthest, but for 5 %.")
    if (near := means.get("nsd")) is not None:
        said.append(f"{near:.0%} of the outlines lie within the tolerance (NSD).")
    return Finding("How good?", _dice(means.get("dice")), said)


def assess_certainty(run: Run) -> Finding:
    """The interval of the mean over labels."""
    groups = int(run.summary.get("n_groups", 0))
    interval = mean_interval(run)
    if interval is None:
        why = f"{_counted(groups, 'patient')} cannot say how much patients differ: the score may not hold for others."
        return Finding("How sure?", "no interval", [why])
    low, high = interval
    said = [f"95 % interval of the mean, drawn over {groups} patients."]
    said += run.summary.get("cautions", [])
    return Finding("How sure?", f"{low:.3f} to {high:.3f}", said)


def find_weaknesses(run: Run) -> Finding:
    """The weakest label, the worst case, what was missed or invented, and the weakest stratum."""
    means = {label: _mean(run, label) for label in run.labels}
    known = {label: mean for label, mean in means.items() if mean is not None}
    if not known:
        return Finding("Where does it fail?", "not known", ["No label has a score."])
    low = min(known, key=lambda label: known[label])
    said = [f"{low} is the weakest label, with a mean Dice of {known[low]:.3f}."] if len(known) > 1 else []
    missed, invented = (sum(_count(run, label, name) for label in run.labels) for name in ("n_missed", "n_false_alarm"))
    said.append(f"Missed altogether: {missed}; found where there is none: {invented}.")
    if (stratum := find_weakest([*list_strata(run), *list_size_thirds(run)])) is not None:
        who = _counted(stratum.cases, "case")
        said.append(f"Weakest by {stratum.kind}: {stratum.value} ({who}, {_dice(stratum.mean)}).")
    worst = min(run.means.items(), key=lambda item: item[1], default=None)
    headline = f"worst case {worst[1]:.3f}" if worst else "not known"
    return Finding("Where does it fail?", headline, said, worst and worst[0])


def mean_interval(run: Run) -> tuple[float, float] | None:
    """95 % interval of the mean Dice over labels; `None` where patients are too few."""
    columns = []
    for label in run.labels:
        if rows := run.values(label, "dice"):
            columns.append(Values([value for _, value in rows], [str(row["group"]) for row, _ in rows]))
    low, high = interval_of_means(columns, resamples=RESAMPLES, seed=0)
    return None if math.isnan(low) else (low, high)


def _mean(run: Run, label: str) -> float | None:
    found: Any = run.summary["labels"][label].get("dice", {}).get("mean")
    return None if found is None else float(found)


def _count(run: Run, label: str, name: str) -> int:
    return int(run.summary["labels"][label].get("counts", {}).get(name, 0))


def _dice(mean: float | None) -> str:
    return "no score" if mean is None else f"Dice {mean:.3f}"


def _counted(amount: int, noun: str) -> str:
    return f"{amount} {noun}{'' if amount == 1 else 's'}"
