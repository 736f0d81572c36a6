"""`medseg review`: which training labels are probably wrong, by models that were not trained on them.

Each case is predicted by those of the checkpoints, such as the best ones of all folds, that no case of its patient was
trained on; several of them are averaged. What they expect of their own mask is compared with what they expect of the
label: where they are sure of something else, a person should look. When the command is repeated, cases whose labels
were corrected are looked at again, and no others.
"""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser, Namespace

from medseg_pl.cli.arguments import add_json, add_model, make_whole_number_type
from medseg_pl.cli.parser import split_names
from medseg_pl.core.errors import DataError, SettingError, count_noun, count_part

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from medseg_pl.core.image_findings import OnForeign
    from medseg_pl.core.labels import LabelMap
    from medseg_pl.core.types import Case, Volume
    from medseg_pl.data.sources import Source
    from medseg_pl.inference.predictor import Predictor
    from medseg_pl.io.folders import OutputFolder
    from medseg_pl.training.callbacks import ReviewQueue
    from medseg_pl.training.checkpoints import CheckpointInfo


def add_arguments(parser: ArgumentParser) -> None:
    """Declare what the command takes."""
    add = parser.add_argument
    checkpoints = "checkpoints that medseg fit wrote: those of all folds review every case"
    add("--ckpt_path", nargs="+", action="extend", required=True, metavar="FILE", help=checkpoints)
    add("-o", "--output", type=Path, required=True, metavar="DIR", help="new, or where this command was interrupted")
    add(
        "--top",
        type=make_whole_number_type(0, 100_000),
        default=20,
        metavar="N",
        help="how many cases to draw, default: %(default)s",
    )
    foreign = "cases unlike the training images: mark them, refuse them, or ignore it; default: %(default)s"
    add("--on_foreign", choices=("mark", "refuse", "ignore"), default="mark", help=foreign)
    add_model(parser)
    add_json(parser)


def run(arguments: Namespace) -> int:
    """Put the cases in order."""
    review(arguments)
    return 0


_MARKED_SHOWN = 10


def review(arguments: Namespace) -> None:
    """Review cases that a checkpoint was not trained on; write the queue.

    Raises:
        SettingError: A checkpoint does not record its training patients.
        DataError: There is no case to review; or some could not be read, and the others were reviewed.
    """
    from medseg_pl.data.prepared_data import open_source
    from medseg_pl.io.folders import FolderLocks, OutputFolder
    from medseg_pl.models.ensemble_file import expand_ensembles
    from medseg_pl.training.callbacks import ReviewQueue
    from medseg_pl.training.checkpoints import read_checkpoint

    trained = [read_checkpoint(path) for path in expand_ensembles(arguments.ckpt_path)]
    plugins = split_names(arguments.plugins)
    predictor = CrossFoldPredictor(trained, arguments.device, plugins, arguments.on_foreign)
    source = open_source(trained[0].settings, arguments.data_root, plugins).orient(trained[0].orientation)
    cases = select_cases(source.cases(), predictor)
    with FolderLocks() as locks:
        output = OutputFolder(arguments.output, _record(trained, source), locks)
        output.begin()
        queue = ReviewQueue(output, cases, predictor.labels.names, arguments.top)
        errors = _review_all(cases, source, predictor, queue)
        where = queue.write()
        if arguments.json:
            table = arguments.output / "review.csv"
            rows = list(csv.DictReader(io.StringIO(table.read_text(encoding="utf-8")))) if table.is_file() else []
            sys.stdout.write(f"{json.dumps(rows, indent=1)}\n")
        else:
            sys.stdout.write(f"{where}\n")
        marked = _list_marked(cases, output)
    if errors:
        others = "; the others were" if len(errors) < len(cases) else ""
        raise DataError(
            f"{count_noun(len(errors), 'case')} could not be reviewed{others}. {' '.join([*errors, *marked])}"
        )
    if marked:
        raise DataError(
            f"{count_part(len(marked), len(cases), 'case', 'is', 'are')} unlike what the models were trained on, and "
            f"reviewed all the same. {' '.join(marked[:_MARKED_SHOWN])}"
        )


def _list_marked(cases: Sequence[Case], output: OutputFolder) -> list[str]:
    """List the cases that are unlike the training images, with their findings."""
    from medseg_pl.core.image_findings import describe_findings, has_warning
    from medseg_pl.training.prediction import FINDINGS, read_findings

    notes = {case.case_id: output.directory / output.note(case.case_id, FINDINGS) for case in cases}
    found = {name: read_findings(path) for name, path in notes.items()}
    return [f"{name}: {describe_findings(findings)}" for name, findings in found.items() if has_warning(findings)]


class CrossFoldPredictor:
    """Predict each patient with models that were not trained on them.

    Args:
        trained: The checkpoints.
        device: A GPU by default, if there is one.
        plugins: Packages that the checkpoints' settings may name.
        on_foreign: What happens to a case that is unlike the training images.

    Raises:
        SettingError: A checkpoint does not record its training patients, or the models do not go together.
    """

    def __init__(
        self,
        trained: Sequence[CheckpointInfo],
        device: str | None,
        plugins: Sequence[str],
        on_foreign: OnForeign = "mark",
    ) -> None:
        from medseg_pl.data.sources.base import abbreviate
        from medseg_pl.inference.predictor import Predictor

        # Checkpoints of other programs, and of scripts that named no patients, cannot prove whom they have not seen.
        unknown = [each.path for each in trained if "groups" not in each.data]
        if unknown:
            raise SettingError(
                f"{abbreviate(unknown)} does not record its training patients and cannot be used for review. Give "
                "checkpoints of medseg fit."
            )
        self.predictor = Predictor.from_checkpoint(
            [each.path for each in trained], device=device, plugins=plugins, on_foreign=on_foreign
        )
        self.labels = self.predictor.labels
        self.trained_groups = [frozenset(each.data["groups"]) for each in trained]

    def select_untrained(self, group: str) -> Predictor | None:
        """Select the models that were not trained on a patient.

        Returns:
            `None` if all were.
        """
        indices = [index for index, groups in enumerate(self.trained_groups) if group not in groups]
        return self.predictor.select_models(indices) if indices else None


def select_cases(cases: Sequence[Case], predictor: CrossFoldPredictor) -> list[Case]:
    """Select labeled cases that a model can review.

    It prints how many are left out.

    Raises:
        DataError: No case can be reviewed.
    """
    selected = [case for case in cases if case.masks and predictor.select_untrained(case.group) is not None]
    if not selected:
        raise DataError(
            f"None of the {count_noun(len(cases), 'case')} can be reviewed: every checkpoint was trained on all of "
            "their patients. Give the checkpoints of several folds."
        )
    if len(selected) < len(cases):
        sys.stdout.write(
            f"{count_part(len(cases) - len(selected), len(cases), 'case', 'is', 'are')} left out, for want of labels "
            "or since every checkpoint was trained on the patient. Checkpoints of all folds review every case.\n"
        )
    return selected


def _review_all(cases: Sequence[Case], source: Source, predictor: CrossFoldPredictor, queue: ReviewQueue) -> list[str]:
    """Review all cases; return the errors of unreadable ones."""
    from medseg_pl.io.progress import show_progress

    errors = []
    with show_progress("Reviewing", len(cases)) as advance:
        for case in cases:
            try:
                _review(case, source, predictor, queue)
            except DataError as error:
                errors.append(str(error))
            advance()
    return errors


def _review(case: Case, source: Source, predictor: CrossFoldPredictor, queue: ReviewQueue) -> None:
    """Compare a case's labels with its prediction, unless done before."""
    from medseg_pl.inference.evidence import assess_reference
    from medseg_pl.training.prediction import FINDINGS, write_findings

    if queue.is_finished(case):
        return
    models = predictor.select_untrained(case.group)
    volume = source.read(case, predictor.labels)
    assert models is not None and volume.mask is not None, "only such cases are selected"
    description = f"Case {case.case_id} ({case.images[0]})"
    # Without its mask, so that no label can reach the prediction.
    prediction = models.predict_volume(replace(volume, mask=None), description, probabilities=True)
    assert prediction.probabilities is not None, "asked for"
    evidence = assess_reference(
        *(predictor.labels, volume.mask, prediction.mask, prediction.probabilities, volume.geometry),
        annotated=case.annotated_labels,
    )
    picture = _draw(volume, volume.mask, prediction.mask, predictor.labels, evidence.slice)
    with queue.open_case(case) as stage:
        queue.note(stage, case.case_id, evidence, picture)
        write_findings(stage / queue.output.note(case.case_id, FINDINGS), prediction.findings)


def _draw(
    volume: Volume, reference: NDArray[np.uint8], mask: NDArray[np.uint8], labels: LabelMap, depth: int
) -> NDArray[np.uint8]:
    """Draw a slice with its reference and its prediction."""
    from medseg_pl.core.intensity import compute_channel_statistics
    from medseg_pl.io.case_pictures import draw_side_by_side
    from medseg_pl.training.callbacks.prediction_writer import rgb_of

    drawn, predicted = labels.planes(reference), labels.planes(mask)
    rgb = rgb_of(volume.image, compute_channel_statistics(volume.image), drawn, depth)
    return draw_side_by_side(rgb, drawn[:, depth], predicted[:, depth])


def _record(trained: Sequence[CheckpointInfo], source: Source) -> dict[str, Any]:
    """Record what a review depends on, which a resumed one must share."""
    from medseg_pl.io.atomic_files import hash_file

    return {
        # By content: a checkpoint that was trained further reviews anew.
        "review": [hash_file(Path(each.path)) for each in trained],
        "source": [repr(part) for part in source.reading_settings()],
    }
