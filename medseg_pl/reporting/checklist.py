"""What the guidelines CLAIM and TRIPOD+AI ask for, and how far a run can answer it."""

from __future__ import annotations

from typing import NamedTuple

from medseg_pl.reporting.markdown import escape, format_table
from medseg_pl.reporting.methods import (
    count_scored,
    describe_choice,
    describe_interval,
    describe_metrics,
    describe_model,
    describe_performance,
    describe_preparation,
    describe_start,
    describe_training,
    get_survey,
    list_software,
    write_methods,
)
from medseg_pl.reporting.run import Run
from medseg_pl.reporting.summary import audit_split, find_weaknesses, list_size_thirds, list_strata


class ChecklistItem(NamedTuple):
    """An item of CLAIM (2024 update) or TRIPOD+AI.

    Attributes:
        claim: Its number in CLAIM; empty where it has none.
        tripod: Its number in TRIPOD+AI; empty where it has none.
        subject: What is asked for.
        answer: What the run says; empty where it is for the authors to say.
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
    """Write the items with an answer, each with its evidence, then those that are open.

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
        f"{side.name}: {side.cases} cases" + ("" if side.groups is None else f" of {side.groups} patients")
        for side in audit.sides
    )
    origin = (run.summary.get("scored") or {}).get("split") or (run.splits or {}).get("origin") or ""
    shares = ", ".join(f"{label} {share:.2%}" for label, share in (survey.get("label_shares") or {}).items())
    splits, environment = f"`{prefix}splits.json`", f"`{prefix}environment.json`"
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
    folds = f"mean of the probabilities of {len(run.folds)} models, one for each fold" if run.folds else ""
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
    kinds = ", ".join(dict.fromkeys(each.kind for each in subgroups))
    return [
        ChecklistItem("28", "12e", "Metrics", describe_metrics(run), summary),
        ChecklistItem("29", "12e", "Statistical uncertainty", describe_interval(), summary),
        ChecklistItem("30", "23b", "Performance in subgroups", kinds and f"scored by {kinds}", summary),
        ChecklistItem("32", "16", "Evaluation on internal data", count_scored(run), scores),
        ChecklistItem("37, 38", "23a", "Performance", describe_performance(run), summary),
        ChecklistItem("39", "", "Failures", f"{weak.headline}. {' '.join(weak.sentences)}", scores),
    ]


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
