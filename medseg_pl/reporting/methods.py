"""A paragraph for a paper's methods, of what a run has recorded."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from medseg_pl.io.privacy import redact_config
from medseg_pl.metrics.statistics.intervals import RESAMPLES, format_interval, format_number
from medseg_pl.reporting.markdown import escape
from medseg_pl.reporting.run import Run
from medseg_pl.reporting.summary import audit_split, compute_mean_interval

_STAGES = {"test": "test", "val": "validation", "crossval": "held-out", "evaluate": "evaluated"}


def write_methods(run: Run) -> str:
    """Write the paragraph: data, model, training, evaluation and software, as far as they were recorded."""
    software = list_software(run)
    parts = (
        _describe_data(run),
        describe_model(run),
        describe_training(run),
        _describe_scores(run),
        software and f"Software: {software}.",
    )
    return " ".join(escape(part) for part in parts if part)


def _describe_data(run: Run) -> str:
    survey, audit = get_survey(run), audit_split(run)
    whole = f"The data set has {survey['cases']} cases of {survey['groups']} patients. " if survey else ""
    if run.folds:
        how = (
            f"It was split into {len(run.folds)} folds by patient; each case was scored by the model that was not "
            "trained on its patient."
        )
    else:
        how = "; ".join(f"{side.name}: {side.cases} cases" for side in audit.sides)
        how = f"It was split into {how}." if how else ""
    trust = "No patient is on two sides of a split." if audit.verdict == "yes" else ""
    return " ".join(filter(None, (whole.strip(), how, trust)))


def describe_preparation(run: Run) -> str:
    """Describe how images are brought to the network."""
    model = _get_section(run, "model")
    if not model:
        return ""
    spacing = model.get("spacing_mm")
    grid = (
        f"slices resampled to {spacing[0]:g} × {spacing[1]:g} mm"
        if spacing
        else f"images scaled into {_join_size(model)} pixels"
        if model.get("resize") == "fit"
        else "pixels kept as they are"
    )
    return f"{grid}; normalization {_name_class(model.get('normalization'))}"


def describe_model(run: Run) -> str:
    """Describe network, labels and preparation."""
    model = _get_section(run, "model")
    network = model.get("network")
    if not isinstance(network, Mapping):
        return ""
    arguments = network.get("init_args") or {}
    encoder = f" with the encoder {arguments['encoder_name']}" if arguments.get("encoder_name") else ""
    context = model.get("context_slices") or 0
    seen = (
        f"slices with {context} neighboring {'slice' if context == 1 else 'slices'} on each side"
        if context
        else "slices"
    )
    labels = model.get("labels") or {}
    return (
        f"A {_name_class(network)} network{encoder} saw {seen} and found {_join_words(run.labels)} "
        f"({labels.get('task', 'labels')}). Preparation: {describe_preparation(run)}."
    )


def describe_start(run: Run) -> str:
    """Describe the weights that training began with."""
    model = _get_section(run, "model")
    if not model:
        return ""
    arguments = (model.get("network") or {}).get("init_args") or {}
    if (run.config or {}).get("model", {}).get("pretrained"):
        return "weights of a file"
    weights = arguments.get("encoder_weights")
    return f"encoder: {weights}; decoder: random" if weights else "random"


def describe_training(run: Run) -> str:
    """Describe length, crops, optimizer, loss and seed."""
    model, data, trainer = (_get_section(run, name) for name in ("model", "data", "trainer"))
    if not model or not data:
        return ""
    arguments = (model.get("optimizer") or {}).get("init_args") or {}
    rate = f" (learning rate {arguments['lr']:g})" if isinstance(arguments.get("lr"), int | float) else ""
    schedule = f", {_name_class(model['lr_scheduler'])}" if model.get("lr_scheduler") else ""
    length = next(
        (
            f" for {trainer[name]} {name[4:] if trainer[name] > 1 else name[4:-1]}"
            for name in ("max_epochs", "max_steps")
            if (trainer.get(name) or -1) > 0
        ),
        "",
    )
    augmented = f" with {_name_class(data['augmentation'])}" if data.get("augmentation") else " without augmentation"
    training = (run.environment or {}).get("training") or {}
    batch = training.get("effective_batch") or data.get("batch_size")
    return (
        f"It was trained{length} on crops of {_join_size(model)} pixels{augmented}, in batches of {batch}, with "
        f"{_name_class(model.get('optimizer'))}{rate}{schedule} and {_name_class(model.get('loss'))}, in precision "
        f"{trainer.get('precision', 'not known')}, seed {(run.config or {}).get('seed_everything', 'not known')};"
        f" {describe_choice(run)}."
    )


def describe_choice(run: Run) -> str:
    """Describe by which cases the weights were chosen, and what follows for the scores."""
    chosen = "the weights with the highest Dice on the validation cases were kept"
    scored = run.summary.get("scored")
    same = run.stage in ("val", "crossval") or (isinstance(scored, Mapping) and scored.get("side") == "val")
    return f"{chosen}, which are the cases that were scored, so the scores are a little too good" if same else chosen


def _describe_scores(run: Run) -> str:
    if not run.rows:
        return ""
    return (
        f"Scores are of the {_STAGES.get(run.stage, run.stage)} cases ({count_scored(run)}), on the grid of each "
        f"reference: {describe_metrics(run)}. {describe_interval()} {describe_performance(run)}"
    )


def describe_metrics(run: Run) -> str:
    """Name the metrics that were computed, with units and tolerances."""
    means = run.summary.get("foreground_mean", {})
    unit = " and ".join(run.summary.get("units", []))
    tolerance = run.summary.get("nsd_tolerance")
    widths = tolerance.values() if isinstance(tolerance, Mapping) else [tolerance]
    within = f" at {_join_words(list(dict.fromkeys(f'{width:g}' for width in widths)))} {unit}" if tolerance else ""
    names = {
        "dice": "Dice",
        "iou": "intersection over union",
        "hd95_mm": f"95th percentile of the Hausdorff distance (the larger of both directions, {unit})",
        "assd_mm": f"average symmetric surface distance ({unit})",
        "nsd": f"normalized surface Dice{within}",
    }
    shown = _join_words([name for metric, name in names.items() if means.get(metric) is not None])
    return f"{shown}; a label that is empty in reference and prediction has no score, one missed or invented the worst"


def describe_interval() -> str:
    """Describe the intervals."""
    return f"Intervals are 95 % bootstrap-t intervals of the mean over cases, drawn {RESAMPLES} times over patients."


def describe_performance(run: Run) -> str:
    """List the mean Dice of each label with its interval."""
    digits = 3
    labels = [
        f"{label} {format_number(fields['mean'], digits)} ({format_interval(fields.get('ci95'), digits)})"
        for label, described in run.summary["labels"].items()
        if (fields := described.get("dice") or {}).get("mean") is not None
    ]
    mean = format_number(run.summary.get("foreground_mean", {}).get("dice"), digits)
    ends = format_interval(compute_mean_interval(run), digits)
    return f"Mean Dice {mean} ({ends}); {'; '.join(labels)}."


def list_software(run: Run) -> str:
    """List the versions of what was trained with."""
    record = run.environment or {}
    packages = [f"{name} {version}" for name, version in (record.get("packages") or {}).items() if version]
    if not packages:
        return ""
    python = [f"Python {record['python']}"] if record.get("python") else []
    commit = (record.get("git") or {}).get("commit")
    code = f", commit {commit[:12]}" if isinstance(commit, str) and re.fullmatch("[0-9a-f]{7,64}", commit) else ""
    return f"{', '.join([*python, *packages])}{code}"


def count_scored(run: Run) -> str:
    """Count the cases and patients that were scored."""
    return f"{run.summary.get('n_cases', 0)} cases of {run.summary.get('n_groups', 0)} patients" if run.rows else ""


def get_survey(run: Run) -> Mapping[str, Any]:
    """Return what the data set was like; empty where nobody recorded it."""
    return ((run.environment or {}).get("data") or {}).get("survey") or {}


def _get_section(run: Run, name: str) -> Mapping[str, Any]:
    section = redact_config(run.config or {}).get(name)
    return section if isinstance(section, Mapping) else {}


def _name_class(described: Any) -> str:
    """Name a class without its modules.

    >>> _name_class({"class_path": "torch.optim.AdamW"}), _name_class(None)
    ('AdamW', 'not recorded')
    """
    path = described.get("class_path") if isinstance(described, Mapping) else described
    return str(path).rpartition(".")[2] if path else "not recorded"


def _join_size(model: Mapping[str, Any]) -> str:
    return " × ".join(str(side) for side in model.get("input_size") or ["unknown"])


def _join_words(words: Sequence[str]) -> str:
    """Join words as in a sentence.

    >>> _join_words(["liver", "spleen", "stomach"])
    'liver, spleen and stomach'
    """
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))
