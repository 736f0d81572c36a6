"""Notes for a paper: a methods paragraph, and what CLAIM and TRIPOD+AI ask for as far as a run can answer it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from medseg_pl.core.errors import count_noun, strip_remedy
from medseg_pl.io.scores import count_cases, describe_scored_cases, name_group
from medseg_pl.metrics.statistics.intervals import (
    RESAMPLES,
    format_interval,
    format_number,
    note_few_groups,
)
from medseg_pl.reporting.markdown import escape, format_table, get_survey
from medseg_pl.reporting.run import Run, get_section
from medseg_pl.reporting.summary import (
    FEWEST_CASES,
    audit_split,
    compute_mean_interval,
    find_weaknesses,
    get_scored_side,
    list_size_thirds,
    list_strata,
)
from medseg_pl.reporting.training_length import describe_length

_STAGES = {"test": "test", "val": "validation", "crossval": "held-out", "evaluate": "evaluated"}


def write_methods(run: Run) -> str:
    """Write the methods paragraph, as far as the run recorded them.

    It covers data, model, training, evaluation and software.
    """
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
    amounts = {"n_cases": survey.get("cases"), "n_groups": survey.get("groups")}
    whole = f"The data set has {count_cases({**run.summary, **amounts})}. " if survey else ""
    noun = name_group(run.summary)
    if run.folds:
        by, it = (" by patient", "its patient") if noun == "patient" else ("", "it")
        how = (
            f"It was split into {count_noun(len(run.folds), 'fold')}{by}; each case was scored by the model that was "
            f"not trained on {it}."
        )
    else:
        how = "; ".join(f"{side.name}: {count_noun(side.cases, 'case')}" for side in audit.sides)
        how = f"It was split into {how}." if how else ""
    trust = f"No {noun} is on two sides of a split." if audit.verdict == "yes" else ""
    return " ".join(filter(None, (whole.strip(), how, trust)))


def describe_preparation(run: Run) -> str:
    """Describe how images are brought to the network."""
    model = get_section(run, "model")
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
    model = get_section(run, "model")
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
        f"({labels.get('task', 'labels')}). Preparation: {describe_preparation(run)}.{_describe_averaged_views(model)}"
    )


_VIEWS = {
    "horizontal": "the image and its horizontal flip",
    "vertical": "the image and its vertical flip",
    "flips": "the image and its three flips",
    "all": "the eight flips and turns of the image",
}


def _describe_averaged_views(model: Mapping[str, Any]) -> str:
    """Describe test-time augmentation, if there is any."""
    views = _VIEWS.get(str(model.get("tta")))
    return f" Its probabilities are means over {views}." if views else ""


def describe_start(run: Run) -> str:
    """Describe the weights that training began with."""
    model = get_section(run, "model")
    if not model:
        return ""
    arguments = (model.get("network") or {}).get("init_args") or {}
    in_encoder = "in the encoder, random ones in the decoder"
    # Not of the redacted settings, in which there is no file.
    if pretrained := (run.config or {})["model"].get("pretrained"):
        package = str(pretrained).removeprefix("medseg:")
        return "weights of a file" if package == pretrained else f"ImageNet weights ({package}) {in_encoder}"
    weights = arguments.get("encoder_weights")
    return f"{weights} weights {in_encoder}" if weights else "random weights"


def describe_training(run: Run) -> str:
    """Describe initial weights, length, crops, optimizer, loss and seed."""
    model, data, trainer = (get_section(run, name) for name in ("model", "data", "trainer"))
    if not model or not data:
        return ""
    arguments = (model.get("optimizer") or {}).get("init_args") or {}
    rate = f" (learning rate {arguments['lr']:g})" if isinstance(arguments.get("lr"), int | float) else ""
    schedule = f", {_name_class(model['lr_scheduler'])}" if model.get("lr_scheduler") else ""
    augmented = f" with {_name_class(data['augmentation'])}" if data.get("augmentation") else " without augmentation"
    training = (run.environment or {}).get("training") or {}
    batch = training.get("effective_batch") or data.get("batch_size")
    return (
        f"It started from {describe_start(run)}. It was trained{describe_length(run)} on "
        f"{_describe_patches(run, model)}{augmented}, in batches of {batch}, with "
        f"{_name_class(model.get('optimizer'))}{rate}{schedule} and {_name_class(model.get('loss'))}, in precision "
        f"{trainer.get('precision', 'not known')}, seed {(run.config or {}).get('seed_everything', 'not known')};"
        f" {describe_choice(run)}.{_describe_averaged_weights(trainer)}"
    )


def _describe_patches(run: Run, model: Mapping[str, Any]) -> str:
    """Describe what the network sees of an image in training."""
    size = f"{_join_size(model)} pixels"
    if model.get("resize") == "fit":
        return f"whole images scaled into {size}"
    # Sizes are those before pixels are resampled to a spacing.
    sizes = None if model.get("spacing_mm") else get_survey(run).get("sizes")
    fits = sizes and all(side <= most for side, most in zip(sizes[1], model.get("input_size") or (0, 0), strict=True))
    return f"slices padded or cropped to {size}" if fits else f"crops of {size}"


def _describe_averaged_weights(trainer: Mapping[str, Any]) -> str:
    """Describe the exponential moving average of the weights, if there is one."""
    callbacks = trainer.get("callbacks") or []
    for callback in callbacks if isinstance(callbacks, list) else [callbacks]:
        if _name_class(callback) in ("WarmupEMA", "EMAWeightAveraging"):
            decay = (callback.get("init_args") or {}).get("decay")
            return f" Its weights are an exponential moving average{f' (decay {decay:g})' if decay else ''}."
    return ""


def describe_choice(run: Run) -> str:
    """Describe which cases chose the weights, and what follows for scores."""
    chosen = "the weights with the highest Dice on the validation cases were kept"
    # A reader has to know it: choosing by the scored cases makes scores better than they are.
    same = get_scored_side(run) in ("val", "crossval")
    return f"{chosen}, which are the cases that were scored, so the scores are a little too good" if same else chosen


def _describe_scores(run: Run) -> str:
    if not run.rows:
        return ""
    return (
        f"Scores are of the {_STAGES.get(get_scored_side(run), run.stage)} cases ({count_scored(run)}), on the grid of "
        f"each reference: {describe_metrics(run)}. {describe_interval(run)} {describe_performance(run)}"
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
        "hd95": f"95th percentile of the Hausdorff distance (the larger of both directions, {unit})",
        "assd": f"average symmetric surface distance ({unit})",
        "nsd": f"normalized surface Dice{within}",
    }
    shown = _join_words([name for metric, name in names.items() if means.get(metric) is not None])
    rule = "a label that is empty in reference and prediction has no score, a missed or false positive one the worst"
    return f"{shown}; {rule}"


def describe_interval(run: Run) -> str:
    """Describe the intervals, and what is wrong with those of few patients."""
    groups, noun = int(run.summary.get("n_groups", 0)), name_group(run.summary)
    if not _has_interval(run):
        return f"No interval is given: the scores of {count_noun(groups, noun)} do not say how much {noun}s differ."
    few = strip_remedy(note_few_groups(groups, noun, given=True))
    how = f"Intervals are 95 % bootstrap-t intervals of the mean over cases, drawn {RESAMPLES} times over {noun}s."
    return f"{how} {few}" if few else how


def _has_interval(run: Run) -> bool:
    """Check whether `describe_performance` shows an interval."""
    # Not by the number of patients: earlier releases gave intervals to fewer, and patients who are alike have none.
    stored = [(described.get("dice") or {}).get("ci95") for described in run.summary["labels"].values()]
    return any(ends is not None for ends in (*stored, compute_mean_interval(run)))


def describe_performance(run: Run) -> str:
    """List the mean Dice of each label with its interval."""
    labels = [
        f"{label} {format_number(fields['mean'])}{_append_interval(fields.get('ci95'))}"
        for label, described in run.summary["labels"].items()
        if (fields := described.get("dice") or {}).get("mean") is not None
    ]
    mean = format_number(run.summary.get("foreground_mean", {}).get("dice"))
    return f"Mean Dice {mean}{_append_interval(compute_mean_interval(run))}; {'; '.join(labels)}."


def _append_interval(ends: Sequence[float] | None) -> str:
    """Write an interval in parentheses behind its mean; nothing for none."""
    return f" ({format_interval(ends)})" if ends else ""


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
    return describe_scored_cases(run.summary, "") if run.rows else ""


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


class ChecklistItem(NamedTuple):
    """An item of CLAIM (2024 update) or TRIPOD+AI.

    Attributes:
        claim: Its number in CLAIM; empty where it has none.
        tripod: Its number in TRIPOD+AI; empty where it has none.
        subject: The subject that it asks for.
        answer: The answer of the run; empty where it is for the authors to say.
        evidence: The files that show it.
    """

    claim: str
    tripod: str
    subject: str
    answer: str = ""
    evidence: str = ""


def write_paper_notes(run: Run) -> str:
    """Write the methods paragraph and the checklist, as a Markdown page."""
    return "\n".join(
        [
            "# For the paper",
            "",
            "## Methods",
            "",
            write_methods(run),
            "",
            "## What CLAIM and TRIPOD+AI ask for",
            "",
            write_checklist(run),
            "",
        ]
    )


def write_checklist(run: Run) -> str:
    """Write the answered items with their evidence, then the open ones.

    References:
        Tejani et al., "Checklist for Artificial Intelligence in Medical Imaging (CLAIM): 2024 Update", Radiology:
        Artificial Intelligence 6(4), 2024; Collins et al., "TRIPOD+AI statement", BMJ 385:e078378, 2024.
    """
    items = list_items(run)
    known = [
        [each.claim or "–", each.tripod or "–", each.subject, escape(each.answer), each.evidence]
        for each in items
        if each.answer
    ]
    missing = [f"- {each.subject} ({_name_numbers(each)})" for each in items if not each.answer]
    table = format_table(["CLAIM 2024", "TRIPOD+AI", "item", "what the run says", "evidence"], known)
    return "\n".join([*table, "", "Open, for the authors to say:", "", *missing])


def list_items(run: Run) -> list[ChecklistItem]:
    """List the items of both guidelines, with the run's answers."""
    return [*_list_data_items(run), *_list_model_items(run), *_list_result_items(run), *_OPEN]


def _list_data_items(run: Run) -> list[ChecklistItem]:
    prefix = _find_prefix(run)
    audit = audit_split(run)
    survey = get_survey(run)
    sides = ", ".join(
        f"{side.name}: {count_noun(side.cases, 'case')}"
        + ("" if side.groups is None else f" of {count_noun(side.groups, 'patient')}")
        for side in audit.sides
    )
    origin = (run.summary.get("scored") or {}).get("split") or (run.splits or {}).get("origin") or ""
    shares = ", ".join(f"{label} {share:.2%}" for label, share in (survey.get("label_shares") or {}).items())
    splits = f"`{prefix}splits.json`" if run.splits or run.folds else ""
    environment = f"`{prefix}environment.json`" if run.environment else ""
    return [
        ChecklistItem("9", "7", "Data preparation", describe_preparation(run), f"`{prefix}config.yaml`"),
        ChecklistItem("19", "12a", "How data were shared out", str(origin), splits),
        ChecklistItem(
            "20", "12a", "Level at which the sides are disjoint", f"{audit.headline}. {audit.sentences[0]}", splits
        ),
        ChecklistItem("35", "20a", "Numbers of patients and cases", sides, splits),
        ChecklistItem("", "10", "Sample size", count_scored(run), f"`{_name_summary(run)}`"),
        ChecklistItem("", "13", "Class imbalance", shares and f"share of all voxels: {shares}", environment),
    ]


def _list_model_items(run: Run) -> list[ChecklistItem]:
    prefix = _find_prefix(run)
    config, environment = f"`{prefix}config.yaml`", f"`{prefix}environment.json`"
    folds = (
        f"mean of the probabilities of {count_noun(len(run.folds), 'model')}, one for each fold" if run.folds else ""
    )
    chosen = describe_choice(run) if run.config else ""
    output = "a probability for each voxel and label, and the mask decided from them" if run.config else ""
    return [
        ChecklistItem("22", "12c, 22", "The model", describe_model(run), config),
        ChecklistItem("23", "18f", "Software", list_software(run), environment),
        ChecklistItem("24", "", "Initial weights", describe_start(run), config),
        ChecklistItem("25", "12c", "Training", describe_training(run), f"{config}, {environment}"),
        ChecklistItem("26", "12c", "How the final model was chosen", chosen, f"`{prefix}checkpoints/best.ckpt`"),
        ChecklistItem("27", "12c", "Ensemble", folds, "`ensemble.json`"),
        ChecklistItem("", "15", "Output of the model", output, config),
    ]


def _list_result_items(run: Run) -> list[ChecklistItem]:
    summary, scores = f"`{_name_summary(run)}`", f"`{run.table.name}`" if run.table else ""
    if not run.rows:
        return [ChecklistItem("28, 37", "12e, 23a", "Performance and its uncertainty")]
    weak = find_weaknesses(run)
    subgroups = [*list_strata(run), *list_size_thirds(run)]
    kinds = ", ".join(dict.fromkeys(each.kind for each in subgroups if each.cases >= FEWEST_CASES))
    return [
        ChecklistItem("28", "12e", "Metrics", describe_metrics(run), summary),
        ChecklistItem("29", "12e", "Statistical uncertainty", describe_interval(run), summary),
        ChecklistItem("30", "23b", "Performance in subgroups", kinds and f"scored by {kinds}", summary),
        # Only a split knows that what was scored is of the same data set as what was trained on.
        ChecklistItem(
            "32", "16", "Evaluation on internal data", count_scored(run) if run.stage != "evaluate" else "", scores
        ),
        ChecklistItem("37, 38", "23a", "Performance", describe_performance(run), summary),
        ChecklistItem("39", "", "Failures", f"{weak.headline}. {' '.join(weak.sentences)}", scores),
    ]


# Named although no run can answer them: a list without them would look complete.
_OPEN = (
    ChecklistItem("1, 2", "1, 2", "Title and abstract"),
    ChecklistItem("3, 4", "3, 4", "Background, intended use and objectives"),
    ChecklistItem("5, 6", "6a", "Study design and setting"),
    ChecklistItem("7", "5", "Data sources and dates"),
    ChecklistItem("8, 10", "6b, 6c", "Inclusion, exclusion, selection of data"),
    ChecklistItem("11", "", "De-identification"),
    ChecklistItem("12", "11", "Missing data"),
    ChecklistItem("13", "", "Image acquisition"),
    ChecklistItem("14–18", "8, 9", "Reference standard: definition, annotators, variability between them"),
    ChecklistItem("21", "10", "Reason for the sample size"),
    ChecklistItem("31", "", "Explainability"),
    ChecklistItem("33", "", "Testing on external data"),
    ChecklistItem("34, 42", "18c, 18d", "Registration and protocol"),
    ChecklistItem("36", "20b, 20c", "Demographic and clinical characteristics"),
    ChecklistItem("", "14", "Fairness"),
    ChecklistItem("", "17", "Ethical approval"),
    ChecklistItem("", "19", "Involvement of patients and the public"),
    ChecklistItem("40, 41", "25–27", "Interpretation, limitations, use in practice"),
    ChecklistItem("43", "18e, 18f", "Availability of data, code and model"),
    ChecklistItem("44", "18a, 18b", "Funding and interests"),
)


def _find_prefix(run: Run) -> str:
    """Return where the files of a training lie below the run folder."""
    return f"{(run.summary.get('folds') or {}).get('runs', [''])[0]}/" if run.folds else ""


def _name_summary(run: Run) -> str:
    return run.table.name.replace("scores_", "summary_", 1).replace(".csv", ".json") if run.table else "summary"


def _name_numbers(item: ChecklistItem) -> str:
    """Name an item by its numbers in both guidelines.

    >>> _name_numbers(ChecklistItem("44", "18a", "Funding"))
    'CLAIM 44 · TRIPOD+AI 18a'
    """
    numbered = {"CLAIM": item.claim, "TRIPOD+AI": item.tripod}
    return " · ".join(f"{name} {number}" for name, number in numbered.items() if number)
