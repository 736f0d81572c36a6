"""`medseg postprocess`: which cleaning of its labels helps a model, chosen on its validation cases.

Each label is tried with holes filled, with its largest component alone, and without components that are smaller than
half of the smallest one ever annotated. What makes the mean Dice better, by a paired test over patients that is
corrected for all that was tried, is written into a copy of the checkpoint, with its gain.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser, Namespace

from medseg_pl.cli.arguments import add_json, add_model
from medseg_pl.cli.parser import split_names
from medseg_pl.core.errors import count_noun, make_printable

if TYPE_CHECKING:
    from medseg_pl.core.labels import LabelMap
    from medseg_pl.core.types import Case
    from medseg_pl.data.sources import Source
    from medseg_pl.inference.postprocess import DiceGain
    from medseg_pl.inference.predictor import Predictor
    from medseg_pl.training.checkpoints import CheckpointInfo


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what the command takes."""
    add = parser.add_argument
    add("--ckpt_path", required=True, metavar="FILE", help="a checkpoint that medseg fit wrote")
    add("-o", "--output", type=Path, required=True, metavar="FILE", help="the new checkpoint")
    add_model(parser)
    add_json(parser)


def run(arguments: Namespace) -> int:
    """Choose, and write the copy."""
    choose(arguments)
    return 0


def choose(arguments: Namespace) -> None:
    """Choose the post-processing of each label, and write a new checkpoint.

    Raises:
        OutputExistsError: The new file exists.
        DataError: A validation case is gone, or cannot be read.
    """
    from medseg_pl.data.prepared_data import open_source, select_recorded_cases
    from medseg_pl.inference.predictor import Predictor
    from medseg_pl.io.atomic_files import require_absent
    from medseg_pl.training.checkpoints import read_checkpoint

    require_absent(arguments.output)
    trained = read_checkpoint(arguments.ckpt_path)
    plugins = split_names(arguments.plugins)
    # Without what was chosen before, on which this choice would build.
    predictor = Predictor.from_checkpoint(
        trained.path, device=arguments.device, plugins=plugins, postprocess={}, on_foreign="ignore"
    )
    source = open_source(trained.settings, arguments.data_root, plugins).orient(trained.orientation)
    cases = select_recorded_cases(source.cases(), trained.data)
    gains = measure_gains(predictor, source, cases)
    write_checkpoint(trained, gains, arguments.output)
    if arguments.json:
        sys.stdout.write(f"{json.dumps({name: gain.as_dict() for name, gain in gains.items()}, indent=1)}\n")
        return
    sys.stdout.write("".join(f"{make_printable(_describe(name, gain))}\n" for name, gain in gains.items()))
    sys.stdout.write(f"Wrote {arguments.output}\n")


def measure_gains(predictor: Predictor, source: Source, cases: Sequence[Case]) -> dict[str, DiceGain]:
    """Measure the gain of each label's best post-processing.

    Returns:
        The gain by label.
    """
    import numpy as np

    from medseg_pl.inference.postprocess import choose_gains, list_candidates, score_candidates
    from medseg_pl.io.progress import show_progress

    labels = predictor.labels
    smallest = _measure_smallest(source, cases, labels)
    # A label that is never annotated has no smallest component to go by.
    tried = [list_candidates(size if np.isfinite(size) else None) for size in smallest]
    dices: list[list[list[float]]] = [[] for _ in labels.names]
    with show_progress("Predicting", len(cases)) as advance:
        for case in cases:
            volume = source.read(case, labels)
            assert volume.mask is not None, "only such cases are chosen"
            description = f"Case {case.case_id} ({case.images[0]})"
            mask = predictor.predict_volume(replace(volume, mask=None), description).mask
            for index, candidates in enumerate(tried):
                annotated = labels.find_annotated(case.annotated_labels)[index]
                scores = score_candidates(mask, volume.mask, volume.geometry, labels, index, candidates)
                # Where nobody looked for a label, no candidate is better than another.
                dices[index].append(scores if annotated else [1.0] * len(candidates))
            advance()
    gains = choose_gains(tried, [np.array(scores) for scores in dices], [case.group for case in cases])
    return dict(zip(labels.names, gains, strict=True))


def write_checkpoint(trained: CheckpointInfo, gains: dict[str, DiceGain], output: Path) -> None:
    """Write the checkpoint with its safe post-processing and all gains."""
    from medseg_pl.models.checkpoint import load_verified
    from medseg_pl.training.checkpoints import DurableCheckpointIO

    checkpoint: dict[str, Any] = load_verified(Path(trained.path))
    chosen = {name: asdict(gain.postprocess) for name, gain in gains.items() if gain.is_safe}
    checkpoint["hyper_parameters"] = {**checkpoint["hyper_parameters"], "postprocess": chosen or None}
    checkpoint["postprocess_gain"] = {name: gain.as_dict() for name, gain in gains.items()}
    DurableCheckpointIO().save_checkpoint(checkpoint, output)


def _measure_smallest(source: Source, cases: Sequence[Case], labels: LabelMap) -> list[float]:
    """Find the smallest annotated component of each label, over all cases."""
    from medseg_pl.inference.postprocess import measure_smallest_components
    from medseg_pl.io.progress import show_progress

    sizes = []
    with show_progress("Reading references", len(cases)) as advance:
        for case in cases:
            volume = source.read(case, labels)
            assert volume.mask is not None, "only such cases are chosen"
            sizes.append(measure_smallest_components(volume.mask, labels, volume.geometry))
            advance()
    return [min(column) for column in zip(*sizes, strict=True)]


def _describe(name: str, gain: DiceGain) -> str:
    """Describe the gain of a label in a line."""
    from medseg_pl.inference.postprocess import ALPHA, FEWEST_PATIENTS

    steps = ", ".join(f"{key} {value:g}" for key, value in asdict(gain.postprocess).items() if value)
    if not steps and gain.patients < FEWEST_PATIENTS:
        few, needed = count_noun(gain.patients, "patient"), count_noun(FEWEST_PATIENTS, "patient")
        return f"{name}: left as it is, since no gain can be shown with {few}; it takes {needed}"
    if not steps:
        return f"{name}: nothing helps (Dice {gain.before:.4f} on {count_noun(gain.cases, 'case')})"
    low, high = gain.interval
    interval = "" if math.isnan(low) else f", 95 % interval of the gain {low:+.4f} to {high:+.4f}"
    if gain.is_safe:
        verdict = "chosen"
    elif gain.patients < FEWEST_PATIENTS:
        verdict = f"not chosen, since fewer than {count_noun(FEWEST_PATIENTS, 'patient')} cannot show a gain"
    else:
        verdict = f"not chosen, since that may be chance (p above {ALPHA})"
    return (
        f"{name}: {steps}: Dice {gain.before:.4f} -> {gain.after:.4f} on {count_noun(gain.cases, 'case')} of "
        f"{count_noun(gain.patients, 'patient')}"
        f"{interval}, p {gain.p:.2g} with {gain.tried} tried; {verdict}"
    )
