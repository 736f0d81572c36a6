"""Runs in Markdown: data set, model, configuration, training and evaluation, and how they fill a README."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from medseg_pl.core.errors import MissingDataError, SettingError
from medseg_pl.io.atomic_files import write_atomically
from medseg_pl.io.privacy import redact_config
from medseg_pl.io.scores import describe_scored_cases, name_group
from medseg_pl.metrics.statistics.intervals import NOTHING, format_interval, format_number
from medseg_pl.reporting.run import Run, compare_environments, compare_settings
from medseg_pl.reporting.summary import assess_certainty, audit_split, compute_mean_interval, find_weaknesses
from medseg_pl.reporting.training_length import describe_best_weights, describe_length

_MODEL = ("model.network", "model.labels", "model.channels", "model.context_slices", "model.resize", "model.input_size")

_MODEL_TOO = ("model.spacing_mm", "model.normalization", "model.loss", "model.tta", "model.postprocess")

_CHOSEN = ("seed_everything", "model.optimizer", "model.lr_scheduler", "data.batch_size", "data.augmentation")

_CHOSEN_TOO = ("data.foreground_fraction", "trainer.max_epochs", "trainer.precision", "trainer.devices")


def write_blocks(run: Run) -> dict[str, str]:
    """Write the blocks by the names of their markers."""
    return {
        "dataset": _write_dataset(run),
        "model": _write_settings(run, (*_MODEL, *_MODEL_TOO)),
        "configuration": _write_configuration(run),
        "train": _write_training(run),
        "evaluate": _write_evaluation(run),
    }


def _write_dataset(run: Run) -> str:
    proof = audit_split(run)
    source = redact_config(run.config or {}).get("data", {}).get("source")
    lines = [f"Read by `{source}`.", ""] if source else []
    if proof.sides:
        lines += format_table(
            ["side", "cases", "patients"],
            [[s.name, s.cases, NOTHING if s.groups is None else s.groups] for s in proof.sides],
        )
        lines.append("")
    lines.append(" ".join(escape(sentence) for sentence in proof.sentences))
    if digest := ((run.environment or {}).get("data") or {}).get("sha256"):
        covered = "what files hold, how they are read, on which side they are"
        lines += ["", f"Fingerprint of the data and its split ({covered}): `{digest}`"]
    return "\n".join(lines)


def write_survey(run: Run) -> list[str]:
    """Write a table of what the data is like."""
    seen = get_survey(run)
    if not seen:
        return ["What the data is like was not recorded."]
    low, middle, high = (" × ".join(map(str, size)) for size in seen["sizes"])
    spacing = seen["spacing_mm"]
    rows = [
        ["cases", seen["cases"]],
        ["patients", seen["groups"] if name_group(run.summary) == "patient" else NOTHING],
        ["slices", seen["slices"]],
        ["slices of a case, median", seen["depth"]],
        ["size of a slice, median (5th to 95th percentile)", f"{middle} ({low} to {high})"],
        ["spacing, median z × y × x", " × ".join(f"{mm:.3g}" for mm in spacing) + " mm" if spacing else "not known"],
        ["channels", seen["channels"]],
        ["values", ", ".join(seen["types"])],
    ]
    return format_table(["", ""], rows)


def write_label_shares(run: Run) -> list[str]:
    """Write a table of how much there is of each label."""
    seen = get_survey(run)
    if not seen:
        return ["How much there is of each label was not recorded."]
    counted = seen["label_cases"].items()
    of_all, share = seen["cases"], seen["label_shares"]
    rows = [[escape(name), f"{cases} of {of_all}", f"{share[name]:.2%}"] for name, cases in counted]
    return format_table(["label", "cases that have it", "share of all voxels"], rows)


def get_survey(run: Run) -> Mapping[str, Any]:
    """Return the survey of the data set, empty if not recorded."""
    return ((run.environment or {}).get("data") or {}).get("survey") or {}


def _write_settings(run: Run, names: Sequence[str]) -> str:
    lines = [
        [f"`{line.name}`", escape(line.values[0])] for line in compare_settings([run]) if _is_below(line.name, names)
    ]
    return "\n".join(format_table(["setting", "value"], lines)) if lines else "The configuration was not recorded."


def _is_below(name: str, names: Sequence[str]) -> bool:
    return any(name == each or name.startswith(f"{each}.") for each in names)


def _write_configuration(run: Run) -> str:
    shown = redact_config(run.config or {})
    if not shown:
        return "The configuration was not recorded."
    text = yaml.safe_dump(shown, sort_keys=False, allow_unicode=True, width=120)
    # CommonMark ends a block at the first fence that is as long, so ours is longer than any in the text.
    fence = "`" * max([3, *(len(ticks) + 1 for ticks in re.findall("`+", text))])
    whole = [
        "<details><summary>Every setting but folders and accounts</summary>",
        "",
        f"{fence}yaml",
        text.strip(),
        fence,
    ]
    return "\n".join([_write_settings(run, (*_CHOSEN, *_CHOSEN_TOO)), "", *whole, "", "</details>"])


def _write_training(run: Run) -> str:
    length = describe_length(run).rstrip(",")
    best = [float(row["val/dice"]) for row in run.log if "val/dice" in row]
    sentences = [f"Trained{length}." if length else "", describe_best_weights(run)]
    lines = [" ".join(filter(None, sentences)), ""] if any(sentences) else []
    lines += [f"Best validation Dice: {max(best):.3f}.", ""] if best else []
    facts = [[f"`{line.name}`", escape(line.values[0])] for line in compare_environments([run])]
    return "\n".join(
        lines + (format_table(["environment", "value"], facts) if facts else ["The training was not recorded."])
    )


def _write_evaluation(run: Run) -> str:
    labels: Mapping[str, Any] = run.summary["labels"]
    unit = " and ".join(run.summary.get("units", []))
    header = ["label", "Dice", "95 % interval", f"HD95, {unit}", "NSD", "cases", "entirely missed", "invented"]
    rows = [_make_row(label, described) for label, described in labels.items()]
    means = run.summary.get("foreground_mean", {})
    last = [
        "**mean of labels**",
        format_number(means.get("dice")),
        format_interval(compute_mean_interval(run)),
        format_number(means.get("hd95"), 1),
    ]
    # Counts of labels are not added up: a case that misses two labels would count twice.
    if len(rows) > 1:
        rows.append([*last, format_number(means.get("nsd")), run.summary.get("n_cases"), "", ""])
    what = f"{run.stage}: {describe_scored_cases(run.summary, run.stage)}."
    sentences = [*assess_certainty(run).sentences, *find_weaknesses(run).sentences]
    return "\n".join([what, "", *format_table(header, rows), "", " ".join(escape(sentence) for sentence in sentences)])


def _make_row(label: str, described: Mapping[str, Any]) -> list[Any]:
    dice, counts = described.get("dice", {}), described.get("counts", {})
    others = [format_number(described.get(name, {}).get("mean"), digits) for name, digits in (("hd95", 1), ("nsd", 3))]
    cells = [escape(label), format_number(dice.get("mean")), format_interval(dice.get("ci95")), *others]
    return [*cells, dice.get("n"), counts.get("n_missed"), counts.get("n_false_alarm")]


def format_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """Format the lines of a table; cells have `|` escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return ["| " + " | ".join("" if cell is None else str(cell) for cell in line) + " |" for line in lines]


def escape(text: str) -> str:
    r"""Escape a stranger's text so that it is no markup.

    >>> print(escape("large_bowel a|b <c>"))
    large_bowel a\|b &lt;c>
    """
    # An underscore within a word is no markup on GitHub, and names of labels are full of them.
    plain = re.sub(r"([\\`*{}\[\]|#]|(?<!\w)_|_(?!\w))", r"\\\1", " ".join(text.split()))
    return plain.replace("&", "&amp;").replace("<", "&lt;")


def fill_readme(path: Path, run: Run) -> tuple[bool, list[str]]:
    """Write a run's blocks between the marks of a README.

    Nothing else in it changes.

    Returns:
        Whether the file changed, and the blocks that it has no marks for.

    Raises:
        MissingDataError: There is no such file.
        SettingError: It is no UTF-8, or its marks are missing or damaged.
    """
    if not path.is_file():
        raise MissingDataError(f"There is no {path}. Name a README with marks, such as that of medseg new.")
    try:
        # As bytes, since text mode would turn CRLF into LF all over a file that is not ours.
        before = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise SettingError(f"{path} is not in UTF-8: {error}. Save it as UTF-8.") from None
    blocks = write_blocks(run)
    after = fill_markers(before, blocks, str(path))
    if after != before:
        target = path.resolve()  # a link stays a link
        with write_atomically(target, replace=True) as temporary:
            temporary.write_bytes(after.encode())
            # The new file takes the place of the old one, and would else have the rights of the umask.
            temporary.chmod(target.stat().st_mode)
    return after != before, find_missing_markers(before, blocks)


_MARK = re.compile(r"<!-- (/?)medseg:(\w+) -->")


def fill_markers(text: str, blocks: Mapping[str, str], what: str) -> str:
    r"""Put each block between its marks.

    All else stays as it is, to the last byte.

    Args:
        text: With at least one pair of marks.
        blocks: The text to put between the marks of each name. Those without marks are left out.
        what: The text's name in errors.

    Raises:
        SettingError: There are no marks, or they do not come in pairs, or have a name that no block has.

    >>> fill_markers("My words.\n<!-- medseg:model -->old<!-- /medseg:model -->\n", {"model": "new"}, "README.md")
    'My words.\n<!-- medseg:model -->\nnew\n<!-- /medseg:model -->\n'
    """
    marks = list(_MARK.finditer(text))
    _check_marks([(not mark[1], mark[2]) for mark in marks], blocks, what)
    line_end = "\r\n" if "\r\n" in text else "\n"
    # From the end, so that the places of the marks before stay right.
    for begin, end in reversed(list(zip(marks[::2], marks[1::2], strict=True))):
        block = line_end.join(["", *_strip_marks(blocks[begin[2]]).strip("\n").split("\n"), ""])
        text = f"{text[: begin.end()]}{block}{text[end.start() :]}"
    return text


def find_missing_markers(text: str, blocks: Mapping[str, str]) -> list[str]:
    """Find the blocks for which the text has no markers."""
    marked = {mark[2] for mark in _MARK.finditer(text)}
    return [name for name in blocks if name not in marked]


def _check_marks(marks: list[tuple[bool, str]], blocks: Mapping[str, str], what: str) -> None:
    example = "<!-- medseg:{0} --> and <!-- /medseg:{0} -->"
    if not marks:
        raise SettingError(
            f"{what} has no place for what the run says. Put lines such as {example.format('evaluate')} where it is to "
            f"stand; there can be a pair for each of {', '.join(blocks)}."
        )
    for _, name in marks:
        if name not in blocks:
            near = difflib.get_close_matches(name, blocks, n=1)
            hint = f"Did you mean {near[0]}?" if near else f"Choose from {', '.join(blocks)}."
            raise SettingError(f"{what} has marks for {name!r}, of which a run says nothing. {hint}")
    names = [name for begins, name in marks if begins]
    for name in dict.fromkeys(name for _, name in marks):
        order = [begins for begins, other in marks if other == name]
        if order != [True, False]:
            raise SettingError(
                f"{what} needs {example.format(name)} once each, in this order; found {order.count(True)} of the first "
                f"and {order.count(False)} of the second. Correct the marks; nothing was written."
            )
    if [name for _, name in marks] != [name for name in names for _ in range(2)]:
        raise SettingError(
            f"The marks of {what} are inside each other. Close each before the next; nothing was written."
        )


def _strip_marks(block: str) -> str:
    """Strip text that would be read as a marker."""
    # A label may be named like a mark, and the next run would find three where there were two.
    return block.replace("<!--", "<! --").replace("-->", "-- >")
