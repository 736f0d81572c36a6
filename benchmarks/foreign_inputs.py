"""Images that a model was not trained on: how many are found, by image or mask, and how many false alarms there are.

Five models are trained by `medseg fit`: phantoms as MRI and as CT are made here; hippocampus, CHASE_DB1 and nuclei are
read from the folder in MEDSEG_TEST_DATA. Held-out images are predicted as they are and perturbed, by `Predictor`, by
`medseg predict` and by the exported `run.py`, and all three have to say the same.

    python benchmarks/foreign_inputs.py [--work FOLDER] [FILE.json] [--models nuclei ...]

The folder keeps the trained models: what is there is not trained again.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
from _foreign_models import RECIPES, DataSet, build_planned_model, list_data_sets, train_model
from _perturbations import (
    COLOR_FOR_GRAY,
    COLORS,
    INTENSITIES,
    SPACINGS,
    TURNS,
    VOLUME_TURNS,
    apply_change,
    borrow_content,
    draw_head,
    scale_spacing,
)
from _report import Claim, finish, taken
from _verdicts import Verdict, ask_command, ask_export, ask_predictor, list_differences, write_image

from medseg_pl import Predictor
from medseg_pl.core.types import Volume
from medseg_pl.data.sources.files import read_image_file
from medseg_pl.models.segmentation_model import SegmentationModel

PHANTOMS, STEPS = 60, 1200
PERTURBED, ROUNDS = 8, 3
FOUND, FALSE, COST = 0.95, 0.02, 0.03
"""What was promised: least share found, largest share of false alarms, and of the time of a prediction."""

SEEN: Mapping[str, Mapping[str, str]] = {
    "phantom MRI": {"times 10": "ranges differ tenfold", "divided by 10": "ranges differ tenfold"},
    "hippocampus": {
        "times 10": "ranges differ a thousandfold",
        "divided by 10": "ranges differ a thousandfold",
        "16-bit export": "ranges differ a thousandfold",
        "mirrored": "left and right sides of the brain are in the data set",
    },
    "CHASE_DB1": dict.fromkeys(TURNS, "left and right eyes, and training mirrors and turns"),
    "nuclei": dict.fromkeys(TURNS, "no side is up"),
}
"""Perturbations that are none for a model, because its training images are like that, and why."""

OTHER_PARTS = {
    "phantom MRI": "hippocampus",
    "phantom CT": "hippocampus",
    "hippocampus": "phantom MRI",
    "CHASE_DB1": "nuclei",
    "nuclei": "CHASE_DB1",
}
"""The data set whose content is another part of the body; where it is not there, a drawn head."""

Change = Callable[[Volume, np.random.Generator], Volume]


class Inputs(NamedTuple):
    """Files that a model predicts.

    Attributes:
        held_out: Images like those of training.
        perturbed: By the name of the perturbation.
    """

    held_out: Sequence[Path]
    perturbed: Mapping[str, Sequence[Path]]

    @property
    def paths(self) -> list[Path]:
        """List all of them."""
        return [*self.held_out, *(path for paths in self.perturbed.values() for path in paths)]


def list_changes(volume: Volume, others: Sequence[Volume]) -> dict[str, Change]:
    """List the perturbations that an image can have."""
    pixels = {**INTENSITIES, **(COLORS if len(volume.image) > 1 else COLOR_FOR_GRAY), **TURNS}
    if volume.image.shape[1] > 1:
        pixels |= VOLUME_TURNS
    if volume.image.dtype == np.uint8:
        del pixels["8-bit export"]
    changes: dict[str, Change] = {
        name: lambda own, rng, c=change: apply_change(own, c, rng) for name, change in pixels.items()
    }
    if volume.geometry.spacing_mm is not None:
        changes |= {name: lambda own, _, f=factors: scale_spacing(own, f) for name, factors in SPACINGS.items()}
    return {
        **changes,
        "another part of the body": lambda own, rng: borrow_content(own, others[rng.integers(len(others))]),
    }


def write_inputs(data: DataSet, others: Sequence[Volume], folder: Path) -> Inputs:
    """Write held-out images as they are, and the first of them with each perturbation."""
    rng = np.random.default_rng(0)
    volumes = [data.read(index) for index in range(len(data.held_out))]
    held_out = [write_image(folder / f"held-out-{index}", volume) for index, volume in enumerate(volumes)]
    perturbed: dict[str, list[Path]] = {}
    for name, change in list_changes(volumes[0], others).items():
        if name in SEEN.get(data.name, ()):
            continue
        for index, volume in enumerate(volumes[:PERTURBED]):
            changed = change(volume, rng)
            # Gray images in three channels stay what they are when these are exchanged.
            if changed.geometry != volume.geometry or not np.array_equal(changed.image, volume.image):
                path = write_image(folder / f"{name.replace(' ', '-')}-{index}", changed)
                perturbed.setdefault(name, []).append(path)
    return Inputs(held_out, perturbed)


def measure_costs(trained: Predictor, planned: SegmentationModel, paths: Sequence[Path]) -> tuple[float, float]:
    """Measure the share of the comparison in the time of a prediction, a median over images and rounds.

    Returns:
        Of a prediction with the small network that was trained here, and with the one that `medseg plan` chooses.
    """
    shares: tuple[list[float], list[float]] = ([], [])
    networks = [Predictor([model], orientation=trained.orientation) for model in (trained.models[0], planned)]
    for number in range(ROUNDS + 1):
        for path in paths[:PERTURBED]:
            prediction = trained.predict(path, probabilities=False)
            volume = Volume(read_image_file(path)[0], None, prediction.geometry)
            for predictor, collected in zip(networks, shares, strict=True):
                whole = taken(lambda p=predictor, f=path: p.predict(f, probabilities=False))
                compared = taken(lambda v=volume: trained.comparison.compare_image(v, ""))
                compared += taken(lambda p=prediction: trained.comparison.compare_prediction(p, ""))
                if number:  # the first round warms up
                    collected.append(compared / (whole + compared))
    return statistics.median(shares[0]), statistics.median(shares[1])


def report(name: str, inputs: Inputs, verdicts: Mapping[str, Verdict], dice: float, costs: tuple[float, float]) -> None:
    """Print what was found of the images of one model, and name what was missed."""
    marks = {change: [verdicts[path.name] for path in paths] for change, paths in inputs.perturbed.items()}
    hits = sum(verdict.is_marked for each in marks.values() for verdict in each)
    tried = sum(map(len, marks.values()))
    by_mask = sum(not v.has_image_warning and v.has_mask_warning for each in marks.values() for v in each)
    alarms = [path.name for path in inputs.held_out if verdicts[path.name].is_marked]
    print(f"{name} (Dice {dice:.2f}): {len(marks)} perturbations, {hits} of {tried} images found, {by_mask} of them by "
          f"their masks alone; {len(alarms)} false alarms in {len(inputs.held_out)}")  # fmt: skip
    print(f"  comparing takes {costs[0]:.1%} of a prediction, {costs[1]:.1%} with the network that medseg plan chooses")
    for change, each in marks.items():
        if missed := sum(not verdict.is_marked for verdict in each):
            print(f"  missed: {change}, {missed} of {len(each)}")
    for alarm in alarms:
        print(f"  false alarm: {alarm}, {', '.join(code for code, _ in verdicts[alarm].findings) or 'not predicted'}")
    for change, why in SEEN.get(name, {}).items():
        print(f"  not tried: {change}, {why}")


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--work", type=Path, help="keeps the trained models; default: a folder that vanishes")
    parser.add_argument("--models", nargs="+", choices=list(RECIPES), default=list(RECIPES))
    parser.add_argument("result", nargs="?", help="a JSON file")
    options = parser.parse_args()
    with TemporaryDirectory() as scratch:
        work = options.work or Path(scratch, "models")
        sets = list_data_sets(work, PHANTOMS)
        if left_out := [name for name in RECIPES if name not in sets]:
            print(f"left out: {', '.join(left_out)}; their data is not in MEDSEG_TEST_DATA")
        chosen = [data for name, data in sets.items() if name in options.models]
        claims, details = run(chosen, sets, work, Path(scratch))
    finish(claims, details)


def run(
    chosen: Sequence[DataSet], sets: Mapping[str, DataSet], work: Path, scratch: Path
) -> tuple[list[Claim], dict[str, object]]:
    """Train, predict and compare, model by model."""
    totals, costs, details, differences = np.zeros(4, int), [], {}, []
    for data in chosen:
        trained = train_model(data, work, STEPS)
        other = sets.get(OTHER_PARTS[data.name])
        folder = scratch / data.name.replace(" ", "_")
        others = [draw_head()] if other is None else [other.read(index) for index in range(len(other.held_out))]
        inputs = write_inputs(data, others, folder / "images")
        predictor = Predictor.from_checkpoint(trained.checkpoint, device="cpu")
        answers = {
            "Predictor": ask_predictor(predictor, inputs.paths),
            "predict": ask_command(trained.checkpoint, folder / "images", folder / "masks"),
            "run.py": ask_export(trained.checkpoint, inputs.paths, folder),
        }
        costs.append(measure_costs(predictor, build_planned_model(data, folder), inputs.held_out))
        verdicts = answers["Predictor"]
        report(data.name, inputs, verdicts, trained.dice, costs[-1])
        differing = list_differences(answers)
        print(f"  {len(differing)} of {len(inputs.paths)} verdicts differ between Predictor, predict and run.py")
        print("".join(f"    {line}\n" for line in differing), end="")
        differences += differing
        found = [verdicts[path.name].is_marked for paths in inputs.perturbed.values() for path in paths]
        alarms = [verdicts[path.name].is_marked for path in inputs.held_out]
        totals += (sum(found), len(found), sum(alarms), len(alarms))
        details[data.name] = {
            "dice": trained.dice,
            "costs": costs[-1],
            "verdicts": {name: [*verdict.findings, verdict.failed] for name, verdict in verdicts.items()},
        }
        shutil.rmtree(folder)
    hits, tried, alarms, held_out = totals.tolist()
    share, wrong, against = hits / tried, alarms / held_out, f"{len(chosen)} trained models"
    differ, cost = f"{len(differences)} of {tried + held_out}", max(planned for _, planned in costs)
    claims = [
        Claim("foreign images found", against, f"≥ {FOUND:.0%}", f"{share:.1%} of {tried}", share >= FOUND),
        Claim("false alarms", against, f"≤ {FALSE:.0%}", f"{wrong:.1%} of {held_out} held-out images", wrong <= FALSE),
        Claim("verdicts that differ", "predict, Predictor and run.py", "0", differ, not differences),
        Claim("comparison", "a prediction by a planned network", f"≤ {COST:.0%}", f"{cost:.1%} at most", cost <= COST),
    ]
    return claims, details


if __name__ == "__main__":
    main()
