"""Model card and data card of an export, in Markdown for its author.

After "Model Cards for Model Reporting" (Mitchell et al. 2019) and "Datasheets for Datasets" (Gebru et al. 2021).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from medseg_pl.reporting import Run, read_run
from medseg_pl.reporting.markdown import escape, format_table, write_blocks, write_label_shares, write_survey
from medseg_pl.reporting.summary import list_limitations
from medseg_pl.training.checkpoints import CheckpointInfo, get_run_folder

MODEL_CARD, DATA_CARD = "MODEL_CARD.md", "DATA_CARD.md"
NOT_KNOWN = "not known"


def write_cards(folder: Path, trained: CheckpointInfo, spec: Mapping[str, Any]) -> None:
    """Write both cards.

    Args:
        folder: Of the export.
        trained: The checkpoint, whose run folder has the scores.
        spec: What the export says of itself.

    Raises:
        UnreadableFileError: A file of the run folder is damaged.
    """
    checkpoint = Path(trained.path).name
    run = find_run(trained, spec["labels"]["names"])
    environment = Environment(
        loader=PackageLoader("medseg_pl.export", "cards"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters["escaped"] = escape
    values: dict[str, Any] = {"run": run, "spec": spec, "labels": run.labels, "blocks": write_blocks(run)}
    values |= {
        "checkpoint": checkpoint,
        "inputs": describe_inputs(spec),
        "exported": describe_export(spec),
    }
    values |= {
        "survey": write_survey(run),
        "shares": write_label_shares(run),
        "limits": list_limitations(run) + _list_export_limits(spec, checkpoint),
    }
    values["evaluation"] = values["blocks"]["evaluate"] if run.rows else f"Its scores are {NOT_KNOWN}: medseg test."
    for name in (MODEL_CARD, DATA_CARD):
        text = environment.get_template(f"{name.lower()}.j2").render(values)
        (folder / name).write_text(text, encoding="utf-8")


def find_run(trained: CheckpointInfo, labels: list[str]) -> Run:
    """Read the run of a checkpoint; without a run folder, what the checkpoint itself says."""
    folder = get_run_folder(Path(trained.path))
    if (folder / "config.yaml").is_file():
        return read_run(folder, None, labels=labels)
    summary: dict[str, Any] = {"labels": {label: {} for label in labels}}
    title = str(trained.settings.get("experiment") or Path(trained.path).stem)
    return Run(folder, title, "none", [], summary, [], trained.data.get("split"), None, trained.settings)


def describe_inputs(spec: Mapping[str, Any]) -> list[str]:
    """Describe what an image has to be, and what the masks are."""
    context, spacing = spec["context_slices"], spec["spacing_mm"]
    neighbors = f"; each is seen with {context} of its neighbors on each side" if context else ""
    rows = [
        ["channels", spec["channels"]],
        ["slices", f"slicing: {spec['slicing']}{neighbors}"],
        ["values", "raw; the network normalizes them"],
        ["size", "as it is" if spec["resize"] == "none" else f"scaled to {_join_sides(spec['input_size'])}"],
        ["spacing", "as it is" if spacing is None else f"resampled to {_join_sides(spacing)} mm, and back"],
        ["labels", ", ".join(escape(name) for name in spec["labels"]["names"])],
        ["labels may overlap", "yes" if spec["labels"]["task"] == "multilabel" else "no"],
        ["cleaning", ", ".join(escape(name) for name in spec["postprocess"]) or "none"],
    ]
    return format_table(["", ""], rows)


def describe_export(spec: Mapping[str, Any]) -> list[str]:
    """Describe how the export differs from the checkpoint."""
    tolerance, measured = spec["tolerance"], spec["measured"]
    rows = [
        ["precision", spec["precision"]],
        ["sizes", "any" if spec["any_size"] else f"windows of {_join_sides(spec['window'])}"],
        ["self-test", f"{tolerance['agreement']:.2%} of the pixels of {len(spec['golden'])} golden cases must agree"],
    ]
    if measured is None:
        return format_table(["", ""], [*rows, ["cost in Dice", NOT_KNOWN]])
    before, after, cost = (_format_dice(measured["dice"][name]) for name in ("checkpoint", "exported", "cost"))
    cost_line = f"{cost}: {before} by the checkpoint, {after} exported, over {measured['cases']} validation cases"
    return format_table(["", ""], [*rows, ["cost in Dice", cost_line]])


def _list_export_limits(spec: Mapping[str, Any], checkpoint: str) -> list[str]:
    limits = []
    if checkpoint != "best.ckpt":
        limits.append(f"The scores are of the run; this export is of {checkpoint}, which may not be what was scored.")
    if spec["precision"] != "fp32" and spec["measured"] is None:
        limits.append(f"What {spec['precision']} costs in Dice was not measured.")
    return limits


def _join_sides(numbers: Any) -> str:
    return " × ".join(f"{number:g}" for number in numbers)


def _format_dice(value: float | None) -> str:
    return NOT_KNOWN if value is None else f"{value:.4f}"
