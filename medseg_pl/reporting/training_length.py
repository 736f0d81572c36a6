"""How long a training was, what ended it, and of which step its best weights are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from medseg_pl.core.errors import count_noun
from medseg_pl.reporting.run import Run, Values, get_section


def describe_length(run: Run) -> str:
    """Describe how long training lasted, and what it was planned to.

    A limit of time, or early stopping, ends it sooner than its settings say.

    Returns:
        A phrase after "trained", such as ` for 12 epochs (144 steps)`; empty where nothing is known.
    """
    ended = [each.progress for each in run.folds or [run] if each.progress]
    return describe_ends(ended, get_section(run, "trainer"))


def describe_ends(ended: Sequence[Values], trainer: Values) -> str:
    """Describe how long trainings lasted, in the words of `describe_length`.

    Args:
        ended: How far each fold came, see `LengthTracker.describe_end`.
        trainer: The settings of their trainer.

    >>> describe_ends([{"epochs": 2, "steps": 24, "planned_steps": 24}], {"max_epochs": 2})
    ' for 2 epochs (24 steps)'
    """
    # Lightning's -1 means without a limit, which is no length.
    unit = next((unit for unit in ("epochs", "steps") if (trainer.get(f"max_{unit}") or -1) > 0), "")
    limit = trainer[f"max_{unit}"] if unit else 0
    limited = count_noun(limit, unit.removesuffix("s")) if unit else ""
    if not ended:
        return limited and f" for at most {limited}"
    done, time = [int(each["steps"]) for each in ended], _describe_time_limit(ended, trainer)
    # Runs that only time ends, and those of earlier releases, have no planned steps.
    planned = [int(each["planned_steps"]) for each in ended if each.get("planned_steps")]
    if len(planned) == len(done) and any(one < other for one, other in zip(done, planned, strict=True)):
        return _enclose(f" for {_join_range(done)} of {_count_steps(planned)}", time)
    if unit and all(int(each[unit]) >= limit for each in ended):
        return f" for {limited} ({_count_steps(done)})" if unit == "epochs" else f" for {limited}"
    return _enclose(f" for {_count_steps(done)}", f"of at most {limited}" if unit and not planned else "", time)


def describe_best_weights(run: Run) -> str:
    """Describe of which step the best weights are; empty if not recorded."""
    best = (run.progress or {}).get("best")
    return f"The best weights are of step {best['step']} (epoch {best['epoch']})." if best else ""


def _describe_time_limit(ended: Sequence[Values], trainer: Values) -> str:
    """Describe the time limit, if it ended a training or some of its folds."""
    if not (cut := sum(bool(each.get("out_of_time")) for each in ended)):
        return ""
    limit = trainer.get("max_time")
    if isinstance(limit, Mapping):  # as Lightning takes it, too
        limit = " ".join(f"{value:g} {unit}" for unit, value in limit.items())
    named = f" (trainer.max_time: {limit})" if limit else ""
    folds = f" in {cut} of {count_noun(len(ended), 'fold')}" if len(ended) > 1 else ""
    return f"ended by the time limit{named}{folds}"


def _enclose(length: str, *remarks: str) -> str:
    """Put remarks after a length, between commas."""
    return ", ".join(filter(None, [length, *remarks])) + "," * any(remarks)


def _count_steps(steps: Sequence[Any]) -> str:
    return count_noun(steps[0], "step") if len(set(steps)) == 1 else f"{_join_range(steps)} steps"


def _join_range(steps: Sequence[Any]) -> str:
    low, high = min(steps), max(steps)
    return str(low) if low == high else f"{low} to {high}"
