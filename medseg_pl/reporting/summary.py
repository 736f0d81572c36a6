"""Questions that a reader has first: how good, how sure, where does it fail, are the test patients unseen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from medseg_pl.core.errors import count_noun
from medseg_pl.io.scores import count_cases, knows_patients, name_group, note_trained
from medseg_pl.metrics.statistics.intervals import RESAMPLES, Values, bootstrap_means, describe
from medseg_pl.reporting.run import Run, read_number

SIDES = ("train", "val", "test")

_NAMES = {"train": "training", "val": "validation", "test": "test"}


def get_scored_side(run: Run) -> str:
    """Return the side of the split that was scored.

    It is `val` for a test without test cases, otherwise the stage.
    """
    scored = run.summary.get("scored")
    again = run.stage == "test" and isinstance(scored, Mapping) and scored.get("side") == "val"
    return "val" if again else run.stage


def describe_cases(runs: Sequence[Run], cases: int) -> str:
    """Count the cases of a page, and name their sides."""
    sides = list(dict.fromkeys(map(get_scored_side, runs)))
    if len(sides) > 1 or sides[0] not in ("val", "test"):
        return f"{count_noun(cases, 'case')}, {' and '.join(_NAMES.get(side, side) for side in sides)}"
    again = ", scored again" if any(run.stage != sides[0] for run in runs) else ""
    return f"{count_noun(cases, f'{_NAMES[sides[0]]} case')}{again}"


class Subset(NamedTuple):
    """A side of the split with its numbers of cases and patients.

    The number of patients is `None` where it is unknown.
    """

    name: str
    cases: int
    groups: int | None


class SplitAudit(NamedTuple):
    """Result of an audit of the split.

    Attributes:
        verdict: `yes`, `no`, or `unknown`.
        headline: The verdict in a few words.
        sentences: Why.
        sides: The sides that hold cases.
    """

    verdict: str
    headline: str
    sentences: list[str]
    sides: list[Subset]


def audit_split(run: Run) -> SplitAudit:
    """Compare the patients of all sides, and the scored with the trained."""
    if run.folds:
        return _audit_folds(run)
    if trained := run.summary.get("n_trained"):
        return SplitAudit("no", "no: the scores are too good", [note_trained(trained)], [])
    if run.splits is None:
        return SplitAudit("unknown", "not known", ["This folder has no split: it does not say who was trained on."], [])
    sides = {side: [str(name) for name in run.splits.get(side) or []] for side in SIDES}
    groups = _map_patients(run)
    counted = [
        Subset(_NAMES[side], len(names), _count_patients(names, groups)) for side, names in sides.items() if names
    ]
    origin = [f"The split: {run.splits['origin']}."] if run.splits.get("origin") else []
    shared = _count_shared(sides, groups)
    # Whatever the split says, what was scored is what counts: a run may have been scored on another folder.
    leaked = {str(row["case_id"]) for row in run.rows} & set(sides["train"])
    if shared or leaked:
        return SplitAudit("no", "no: the scores are too good", [*_describe_faults(shared, leaked), *origin], counted)
    unknown = [name for names in sides.values() for name in names if name not in groups]
    if unknown:
        why = f"No case is on two sides; of {count_noun(len(unknown), 'case')} the run did not record the patient."
        return SplitAudit("unknown", "by case, not by patient", [why, *_list_remarks(run, groups), *origin], counted)
    noun = "patient" if knows_patients(groups.items()) else "case"
    why = f"No {noun} is on two sides, and no case that was scored was trained on."
    # A short yes is all that many read.
    headline = "yes, if no patient has two cases" if _is_one_each(groups) else "yes: no patient on two sides"
    return SplitAudit("yes", headline, [why, *_list_remarks(run, groups), *origin], counted)


def _audit_folds(run: Run) -> SplitAudit:
    """Audit each fold, and whether cases were scored by their own fold."""
    audits = [audit_split(fold) for fold in run.folds]
    held_out = [{str(name) for name in (fold.splits or {}).get("val") or []} for fold in run.folds]
    # Of a fold, its validation cases are those that the whole was scored on.
    sides = [
        Subset(f"held out by fold {index}", side.cases, side.groups)
        for index, audit in enumerate(audits)
        for side in audit.sides
        if side.name == _NAMES["val"]
    ]
    holders = dict(enumerate(held_out))
    astray = {
        str(row["case_id"])
        for row in run.rows
        if str(row["case_id"]) not in holders.get(read_number(row, "fold"), ())  # type: ignore[call-overload]
    }
    bad = [index for index, audit in enumerate(audits) if audit.verdict == "no"]
    if bad or astray:
        faults = [f"Fold {index}: {' '.join(audits[index].sentences)}" for index in bad]
        faults += (
            [f"{count_noun(len(astray), 'case was', 'cases were')} scored by a fold that did not hold them out."]
            if astray
            else []
        )
        return SplitAudit("no", "no: the scores are too good", faults, sides)
    unknown = [index for index, audit in enumerate(audits) if audit.verdict == "unknown"]
    if unknown:
        why = f"Fold {unknown[0]}: {' '.join(audits[unknown[0]].sentences)}"
        return SplitAudit("unknown", audits[unknown[0]].headline, [why], sides)
    why = f"Each case was scored by that of {count_noun(len(audits), 'model')} which was not trained on its patient."
    scored = run.summary.get("scored") or {}
    origin = [f"The split: {scored['split']}."] if scored.get("split") else []
    remarks = _list_remarks(run, {str(row["case_id"]): str(row["group"]) for row in run.rows})
    return SplitAudit("yes", "yes: out of fold, by patient", [why, *remarks, *origin], sides)


def _map_patients(run: Run) -> dict[str, str]:
    """Map cases to patients, in older records only those that were scored."""
    assert run.splits is not None, "asked for before"
    recorded: Any = run.splits.get("groups")
    patients = {str(name): str(group) for name, group in recorded.items()} if isinstance(recorded, Mapping) else {}
    return patients or {str(row["case_id"]): str(row["group"]) for row in run.rows}


def _count_patients(names: Sequence[str], groups: Mapping[str, str]) -> int | None:
    known = knows_patients(groups.items()) and all(name in groups for name in names)
    return len({groups[name] for name in names}) if known else None


def _count_shared(sides: Mapping[str, Sequence[str]], groups: Mapping[str, str]) -> int:
    """Count the patients, or cases of unknown ones, on several sides."""
    seen: dict[str, set[str]] = {}
    for side, names in sides.items():
        for name in names:
            # Cases count beside patients: a patient who was not recorded cannot show that a case is there twice.
            seen.setdefault(f"case {name}", set()).add(side)
            if name in groups:
                seen.setdefault(f"group {groups[name]}", set()).add(side)
    return sum(len(where) > 1 for where in seen.values())


def _describe_faults(shared: int, leaked: set[str]) -> list[str]:
    sentences = (
        [f"{count_noun(shared, 'patient or case is', 'patients or cases are')} on two sides of the split."]
        if shared
        else []
    )
    return sentences + (
        [f"{count_noun(len(leaked), 'scored case was', 'scored cases were')} trained on."] if leaked else []
    )


def _is_one_each(groups: Mapping[str, str]) -> bool:
    """Tell whether each case has a patient of its own."""
    # This is what a forgotten group pattern looks like.
    return len(groups) > 1 and len(set(groups.values())) == len(groups)


def _list_remarks(run: Run, groups: Mapping[str, str]) -> list[str]:
    sentences = []
    if _is_one_each(groups):
        sentences.append("Each case counts as a patient of its own, which is right only if no patient has two.")
    if accepted := (run.splits or {}).get("accepted_duplicates"):
        sentences.append(f"{count_noun(len(accepted), 'image')} on two sides: allowed on purpose.")
    scored = run.summary.get("scored")
    if isinstance(scored, Mapping):
        side = scored.get("side")
        watched = ": training chose its best weights by them, so the scores are a little too good" * (side == "val")
        sentences.append(f"Scored were the {_NAMES.get(str(side), side)} cases{watched}.")
    return sentences


class Finding(NamedTuple):
    """A question with a few words and a few sentences.

    `case` is the id of a case to look at.
    """

    question: str
    headline: str
    sentences: list[str]
    case: str | None = None


def list_findings(run: Run) -> list[Finding]:
    """List the four findings about a run."""
    proof = audit_split(run)
    trust = Finding("Can I trust the split?", proof.headline, proof.sentences)
    return [assess_quality(run), assess_certainty(run), find_weaknesses(run), trust]


def assess_quality(run: Run) -> Finding:
    """Report the means over labels."""
    means = run.summary.get("foreground_mean", {})
    what = f"Dice of {run.labels[0]}" if len(run.labels) == 1 else f"mean over {len(run.labels)} labels"
    sentences = [f"The {what} in {count_cases(run.summary)}."]
    unit = " and ".join(run.summary.get("units", []))
    if (distance := _compute_median_distance(run)) is not None:
        outline = "the outline" if len(run.labels) == 1 else "each label's outline"
        sentences.append(f"In half of the cases, 95 % of {outline} is within {distance:.1f} {unit} (HD95, median).")
    if (near := means.get("nsd")) is not None:
        tolerance = run.summary.get("nsd_tolerance")
        widths = set(tolerance.values()) if isinstance(tolerance, Mapping) else {tolerance} - {None}
        within = f"{widths.pop():g} {unit}" if len(widths) == 1 else "the tolerance"
        # Less than all is not rounded up to it, which would say that nothing is further away.
        share = round(100 * near, 1) if near == 1 else min(99.9, round(100 * near, 1))
        sentences.append(f"On average, {share:g} % of the outline is within {within} (NSD).")
    return Finding("How good?", _format_dice(means.get("dice")), sentences)


def _compute_median_distance(run: Run) -> float | None:
    """Compute the median over cases of the HD95 of each case's worst label."""
    # A mean would be a few far outliers' and of no case.
    worst: dict[str, float] = {}
    for label in run.labels:
        for row, distance in run.values(label, "hd95"):
            case_id = str(row["case_id"])
            worst[case_id] = max(distance, worst.get(case_id, 0.0))
    return float(np.median(list(worst.values()))) if worst else None


def assess_certainty(run: Run) -> Finding:
    """Report the interval of the mean over labels."""
    noun = name_group(run.summary)
    groups = count_noun(int(run.summary.get("n_groups", 0)), noun)
    interval = compute_mean_interval(run)
    if interval is None:
        why = f"The scores of {groups} do not say how much {noun}s differ: the mean may not hold for others."
        return Finding("How sure?", "no interval", [why])
    low, high = interval
    sentences = [f"95 % interval of the mean, drawn over {groups}."]
    sentences += _describe_spread(run)
    sentences += run.summary.get("cautions", [])
    return Finding("How sure?", f"{low:.3f} to {high:.3f}", sentences)


def _describe_spread(run: Run) -> list[str]:
    """Say how much the folds of a cross-validation differ."""
    spread = (run.summary.get("folds") or {}).get("foreground_mean", {}).get("dice") or {}
    if spread.get("mean") is None or spread.get("std") is None:
        return []
    over = f"Over {count_noun(spread['n'], 'fold')} the mean Dice is {spread['mean']:.3f} ± {spread['std']:.3f}"
    return [f"{over}, which is no interval: quote the mean over cases."]


def find_weaknesses(run: Run) -> Finding:
    """Find the weakest label, case and subgroup, and what was missed."""
    means = {label: _get_label_mean(run, label) for label in run.labels}
    scored = {label: mean for label, mean in means.items() if mean is not None}
    if not scored:
        return Finding("Where does it fail?", "not known", ["No label has a score."])
    low = min(scored, key=lambda label: scored[label])
    sentences = [f"{low} is the weakest label, with a mean Dice of {scored[low]:.3f}."] if len(scored) > 1 else []
    missed, invented = (
        count_noun(len({row["case_id"] for row in run.rows if row["status"] == status}), "case")
        for status in ("missed", "false_alarm")
    )
    entirely = "Entirely" if len(run.labels) == 1 else "A label entirely"
    sentences.append(f"{entirely} missed: {missed}; invented: {invented}.")
    strata = [*list_strata(run), *list_size_thirds(run)]
    if (weakest := find_weakest(strata)) is not None:
        smaller = any(each.kind == weakest.kind and each.cases < FEWEST_CASES for each in strata)
        among = f" with at least {FEWEST_CASES} cases" * smaller
        who = f"{count_noun(weakest.cases, 'case')}, {_format_dice(weakest.mean)}"
        sentences.append(f"Weakest by {weakest.kind}{among}: {weakest.value} ({who}).")
    worst = min(run.means.items(), key=lambda item: item[1], default=None)
    headline = f"worst case {worst[1]:.3f}" if worst else "not known"
    return Finding("Where does it fail?", headline, sentences, worst and worst[0])


def compute_mean_interval(run: Run) -> tuple[float, float] | None:
    """Compute the 95 % interval of the mean Dice.

    Returns:
        `None` for too few patients.
    """
    columns = []
    for label in run.labels:
        if rows := run.values(label, "dice"):
            columns.append(Values([value for _, value in rows], [str(row["group"]) for row, _ in rows]))
    low, high = bootstrap_means(columns, resamples=RESAMPLES, seed=0)
    return None if math.isnan(low) else (low, high)


def _get_label_mean(run: Run, label: str) -> float | None:
    mean: Any = run.summary["labels"][label].get("dice", {}).get("mean")
    return None if mean is None else float(mean)


def _format_dice(mean: float | None) -> str:
    return "no score" if mean is None else f"Dice {mean:.3f}"


# Rows of a label below which thirds of it say nothing.
_FEWEST = 6

FEWEST_CASES = 5
"""Cases of a subgroup below which its mean is no finding."""


class Subgroup(NamedTuple):
    """Some of the cases.

    Attributes:
        kind: Their common property: `site`, or `size of liver`.
        value: Its value.
        cases: Their number.
        mean: Their mean Dice over labels.
        labels: The mean and the interval of each label, `None` where it has none.
    """

    kind: str
    value: str
    cases: int
    mean: float | None
    labels: dict[str, tuple[float, Any] | None]


def list_strata(run: Run) -> list[Subgroup]:
    """List the subgroups of the summary, such as sites and scanners."""
    subgroups = []
    strata = run.summary.get("strata")
    for kind, values in strata.items() if isinstance(strata, Mapping) else ():
        for value, part in values.items():
            labels = {label: _get_mean(part["labels"].get(label, {}).get("dice")) for label in run.labels}
            subgroups.append(Subgroup(kind, value, part["n_cases"], part["foreground_mean"].get("dice"), labels))
    return subgroups


def list_size_thirds(run: Run) -> list[Subgroup]:
    """Split each label's cases into thirds by reference volume."""
    return [stratum for label in run.labels for stratum in _split_thirds(run, label)]


def find_weakest(strata: list[Subgroup]) -> Subgroup | None:
    """Find the weakest subgroup of a kind with several large ones.

    Those with fewer than `FEWEST_CASES` cases do not count.
    """
    enough = [each for each in strata if each.mean is not None and each.cases >= FEWEST_CASES]
    kinds = [stratum.kind for stratum in enough]
    several = [each for each in enough if kinds.count(each.kind) > 1]
    return min(several, key=lambda each: each.mean or 0.0, default=None)


def _split_thirds(run: Run, label: str) -> list[Subgroup]:
    rows = [
        (read_number(row, "volume_reference_ml"), dice, str(row["group"])) for row, dice in run.values(label, "dice")
    ]
    rows = sorted(row for row in rows if row[0] > 0)
    if len(rows) < _FEWEST:
        return []
    subgroups = []
    for name, indices in zip(("smallest", "middle", "largest"), np.array_split(np.arange(len(rows)), 3), strict=True):
        part = [rows[index] for index in indices]
        described = describe([dice for _, dice, _ in part], [group for _, _, group in part])
        value = f"{name} third, {_format_volumes(part[0][0], part[-1][0])}"
        mean = _get_mean(described)
        subgroups.append(Subgroup(f"size of {label}", value, len(part), mean and mean[0], {label: mean}))
    return subgroups


def _format_volumes(low: float, high: float) -> str:
    """Format a range of volumes with the same digits at both ends.

    The larger has three digits, or as many as the smaller needs for one.

    >>> _format_volumes(1.543, 1.6), _format_volumes(9.87, 1234), _format_volumes(1.621, 1.624)
    ('1.54 to 1.60 ml', '10 to 1234 ml', '1.62 ml')
    """
    decimals = max(0, 2 - math.floor(math.log10(high)), -math.floor(math.log10(low)))
    ends = [f"{volume:.{decimals}f}" for volume in (low, high)]
    return f"{' to '.join(dict.fromkeys(ends))} ml"


def _get_mean(fields: Mapping[str, Any] | None) -> tuple[float, Any] | None:
    return None if not fields or fields.get("mean") is None else (float(fields["mean"]), fields.get("ci95"))


_FEW_CASES = 10

# An interval of Dice wider than this leaves open which of two usual models is better.
_WIDE = 0.1


def list_limitations(run: Run) -> list[str]:
    """List what speaks against a run, a sentence each."""
    if not run.rows:
        return ["No score of this model is known."]
    of_labels = [sentence for label in run.labels for sentence in _check_label(run, label)]
    return [*_check_split(run), *of_labels, *run.summary.get("cautions", []), *_check_spacing(run)]


def _check_split(run: Run) -> list[str]:
    proof = audit_split(run)
    sentences = [] if proof.verdict == "yes" else [f"Can the split be trusted? {proof.headline}."]
    if get_scored_side(run) == "val":
        sentences.append("It was scored on the cases by which training chose its best weights: a little too good.")
    return sentences


def _check_label(run: Run, label: str) -> list[str]:
    described = run.summary["labels"][label]
    dice, counts = described.get("dice", {}), described.get("counts", {})
    sentences = []
    if (cases := int(dice.get("n") or 0)) < _FEW_CASES:
        sentences.append(f"{label}: scored on {count_noun(cases, 'case')} only.")
    ends = dice.get("ci95")
    if ends and ends[1] - ends[0] > _WIDE:
        sentences.append(f"{label}: the mean Dice lies anywhere from {ends[0]:.3f} to {ends[1]:.3f} (95 %).")
    if missed := int(counts.get("n_missed") or 0):
        sentences.append(f"{label}: entirely missed in {count_noun(missed, 'case')}.")
    if invented := int(counts.get("n_false_alarm") or 0):
        sentences.append(f"{label}: invented in {count_noun(invented, 'case')}.")
    return sentences


def _check_spacing(run: Run) -> list[str]:
    """Name the pixel sizes that a network without resampling was trained on."""
    seen = ((run.environment or {}).get("data") or {}).get("survey") or {}
    model = (run.config or {}).get("model") or {}
    if not seen.get("spacing_mm") or model.get("spacing_mm") is not None:
        return []
    _, y, x = seen["spacing_mm"]
    return [f"It was trained on pixels of about {y:.3g} × {x:.3g} mm and does not resample: others were not tried."]
