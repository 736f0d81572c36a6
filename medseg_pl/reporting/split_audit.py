"""Whether the scores are of patients that the network has never seen, as far as the run's files can tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from medseg_pl.reporting.run import Run

SIDES = ("train", "val", "test")
_NAMES = {"train": "training", "val": "validation", "test": "test"}


class Subset(NamedTuple):
    """A side of the split, with the number of its cases and of its patients where they are known."""

    name: str
    cases: int
    groups: int | None


class SplitAudit(NamedTuple):
    """What the files say.

    Attributes:
        verdict: `yes`, `no`, or `unknown`.
        headline: The same in a few words.
        sentences: Why.
        sides: The sides that hold cases.
    """

    verdict: str
    headline: str
    sentences: list[str]
    sides: list[Subset]


def audit_split(run: Run) -> SplitAudit:
    """Compare the patients of all sides, and those that were scored with those that were trained on."""
    if run.splits is None:
        return SplitAudit("unknown", "not known", ["This folder has no split: it does not say who was trained on."], [])
    sides = {side: [str(name) for name in run.splits.get(side) or []] for side in SIDES}
    groups = _map_patients(run)
    counted = [
        Subset(_NAMES[side], len(names), _count_patients(names, groups)) for side, names in sides.items() if names
    ]
    origin = [f"The split: {run.splits['origin']}."] if run.splits.get("origin") else []
    shared = _count_shared(sides, groups)
    leaked = {str(row["case_id"]) for row in run.rows} & set(sides["train"])
    if shared or leaked:
        return SplitAudit("no", "no: the scores are too good", [*_describe_faults(shared, leaked), *origin], counted)
    unknown = [name for names in sides.values() for name in names if name not in groups]
    if unknown:
        why = f"No case is on two sides; of {len(unknown)} cases the run did not record the patient."
        return SplitAudit("unknown", "by case, not by patient", [why, *_list_remarks(run, groups), *origin], counted)
    why = "No patient is on two sides, and no case that was scored was trained on."
    return SplitAudit("yes", "yes: no patient on two sides", [why, *_list_remarks(run, groups), *origin], counted)


def _map_patients(run: Run) -> dict[str, str]:
    """Map cases to patients; older records know only those that were scored."""
    assert run.splits is not None, "asked for before"
    recorded: Any = run.splits.get("groups")
    patients = {str(name): str(group) for name, group in recorded.items()} if isinstance(recorded, Mapping) else {}
    return patients or {str(row["case_id"]): str(row["group"]) for row in run.rows}


def _count_patients(names: Sequence[str], groups: Mapping[str, str]) -> int | None:
    return len({groups[name] for name in names}) if all(name in groups for name in names) else None


def _count_shared(sides: Mapping[str, Sequence[str]], groups: Mapping[str, str]) -> int:
    """Count the patients, or cases of unknown ones, on several sides."""
    seen: dict[str, set[str]] = {}
    for side, names in sides.items():
        for name in names:
            seen.setdefault(f"case {name}", set()).add(side)
            if name in groups:
                seen.setdefault(f"group {groups[name]}", set()).add(side)
    return sum(len(where) > 1 for where in seen.values())


def _describe_faults(shared: int, leaked: set[str]) -> list[str]:
    sentences = [f"{shared} patients or cases are on two sides of the split."] if shared else []
    return sentences + ([f"{len(leaked)} of the cases that were scored were trained on."] if leaked else [])


def _list_remarks(run: Run, groups: Mapping[str, str]) -> list[str]:
    assert run.splits is not None, "asked for before"
    sentences = []
    if len(groups) > 1 and len(set(groups.values())) == len(groups):
        sentences.append("Each case counts as a patient of its own, which is right only if no patient has two.")
    if accepted := run.splits.get("accepted_duplicates"):
        sentences.append(f"{len(accepted)} images that are on two sides were allowed on purpose.")
    scored = run.summary.get("scored")
    if isinstance(scored, Mapping):
        side = scored.get("side")
        watched = ": training chose its best weights by them, so the scores are a little too good" * (side == "val")
        sentences.append(f"Scored were the {_NAMES.get(str(side), side)} cases{watched}.")
    return sentences
