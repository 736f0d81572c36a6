"""What a run's own files say against trusting its model everywhere."""

from __future__ import annotations

from medseg_pl.reporting.run import Run
from medseg_pl.reporting.split_audit import audit_split

_FEW_CASES = 10
_WIDE = 0.1
"""An interval of Dice wider than this leaves open which of two usual models is better."""


def list_limitations(run: Run) -> list[str]:
    """One sentence each; none where nothing is known against it."""
    if not run.rows:
        return ["No score of this model is known."]
    of_labels = [said for label in run.labels for said in _of_label(run, label)]
    return [*_of_split(run), *of_labels, *run.summary.get("cautions", []), *_of_pixels(run)]


def _of_split(run: Run) -> list[str]:
    proof = audit_split(run)
    found = [] if proof.verdict == "yes" else [f"Can the split be trusted? {proof.headline}."]
    scored = run.summary.get("scored")
    if run.stage == "val" or (isinstance(scored, dict) and scored.get("side") == "val"):
        found.append("It was scored on the cases by which training chose its best weights: a little too good.")
    return found


def _of_label(run: Run, label: str) -> list[str]:
    described = run.summary["labels"][label]
    dice, counts = described.get("dice", {}), described.get("counts", {})
    found = []
    if (cases := int(dice.get("n") or 0)) < _FEW_CASES:
        found.append(f"{label}: scored on {cases} cases only.")
    ends = dice.get("ci95")
    if ends and ends[1] - ends[0] > _WIDE:
        found.append(f"{label}: the mean Dice lies anywhere from {ends[0]:.3f} to {ends[1]:.3f} (95 %).")
    if missed := int(counts.get("n_missed") or 0):
        found.append(f"{label}: missed altogether in {missed} cases.")
    if invented := int(counts.get("n_false_alarm") or 0):
        found.append(f"{label}: found in {invented} cases that do not have it.")
    return found


def _of_pixels(run: Run) -> list[str]:
    """A network that takes pixels as they are knows only the sizes that it was shown."""
    seen = ((run.environment or {}).get("data") or {}).get("survey") or {}
    model = (run.config or {}).get("model") or {}
    if not seen.get("spacing_mm") or model.get("spacing_mm") is not None:
        return []
    _, y, x = seen["spacing_mm"]
    return [f"It was trained on pixels of about {y:.3g} × {x:.3g} mm and does not resample: others were not tried."]
