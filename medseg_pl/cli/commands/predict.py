"""`medseg predict`: the models of some checkpoints on a folder of images, case by case, into a folder of masks."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from jsonargparse import Namespace
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser

from medseg_pl.core.errors import DataError, SettingError
from medseg_pl.data.prepared_data import use_mask_values
from medseg_pl.data.sources import Source
from medseg_pl.data.sources.unlabeled import ImageFolder
from medseg_pl.inference.outcomes import Outcome
from medseg_pl.inference.predictor import Predictor
from medseg_pl.io.atomic_files import hash_file
from medseg_pl.io.locks import FolderLocks
from medseg_pl.io.output_folder import OutputFolder
from medseg_pl.models.segmentation_model import load_model, load_weights
from medseg_pl.training.callbacks import Inputs, PredictionWriter, ReviewQueue
from medseg_pl.training.checkpoints import CheckpointInfo
from medseg_pl.training.datamodule import SegmentationDataModule
from medseg_pl.training.module import SegmentationModule
from medseg_pl.training.prediction_module import PredictionModule

_FAULTS_SHOWN = 10


class PredictOptions(NamedTuple):
    """What is to be predicted, and what is wanted beside the masks; see `add_options`."""

    images: Path
    folder: Path
    probabilities: bool
    overlays: bool
    review: bool
    review_top: int

    @classmethod
    def of(cls, options: Namespace) -> PredictOptions:
        """What the command line says."""
        images, folder = Path(options["input"]), Path(options["output"])
        if folder.resolve().is_relative_to(images.resolve()):
            raise SettingError(
                f"--output {folder} lies inside --input {images}: the next prediction would read its masks as images. "
                "Choose a folder outside."
            )
        return cls(images, folder, *(options[name] for name in cls._fields[2:]))


def add_options(parser: LightningArgumentParser) -> None:
    """Add what `predict` alone is told."""
    parser.add_argument(
        "--input", type=str, required=True, help="A folder of images in the data set's layout, or an image."
    )
    parser.add_argument("-o", "--output", type=str, required=True, help="A new folder for the masks.")
    parser.add_argument("--probabilities", type=bool, default=False, help="Write the probabilities, too.")
    parser.add_argument("--overlays", type=bool, default=False, help="Draw a picture of each case, too.")
    parser.add_argument("--review", type=bool, default=False, help="Say which cases a person should look at.")
    parser.add_argument("--review_top", type=int, default=20, help="How many of them to draw.")


def predict(
    order: PredictOptions,
    trainer: Trainer,
    module: SegmentationModule,
    data: SegmentationDataModule,
    checkpoints: Sequence[CheckpointInfo],
    locks: FolderLocks,
) -> None:
    """Predict whatever is not finished.

    Args:
        order: What.
        trainer: Shares the cases among its processes.
        module: The model of the first checkpoint, with the settings that were given; its weights are loaded here.
        data: Its source says the layout.
        checkpoints: One, or those of an ensemble.
        locks: Takes the folder for this process.

    Raises:
        DataError: Some cases could not be predicted; the others were.
    """
    output = OutputFolder(order.folder, _record(order, trainer, module, data.source, checkpoints), locks)
    output.check()
    source = data.source.open_unlabeled(order.images)
    if isinstance(source, ImageFolder) and source.folders and trainer.is_global_zero:
        names = " and ".join(source.folders)
        sys.stdout.write(f"{order.images} is the root of a data set: images are read from its {names}.\n")
    predictor, cases = _make_predictor(module, checkpoints, data.eval_batch_size), source.cases()
    # Before any rank writes: what is finished later in this run is new.
    finished = frozenset(case.case_id for case in cases if output.is_finished(case.case_id, case.images))
    inputs = Inputs(order.images, cases, source.list_left_out(), finished)
    queue = ReviewQueue(output, cases, predictor.labels.names, order.review_top) if order.review else None
    labels = use_mask_values(predictor.labels, checkpoints[0].mask_values)
    writer = PredictionWriter(output, source, inputs, labels, overlays=order.overlays, queue=queue)
    trainer.callbacks.append(writer)  # type: ignore[attr-defined]
    prediction = PredictionModule(
        predictor,
        source,
        cases,
        is_finished=lambda case: case.case_id in finished,
        workers=data.num_workers,
        probabilities=order.probabilities,
        review=order.review,
    )
    trainer.predict(prediction, return_predictions=False)
    _raise_faults(writer.outcomes, order.folder)


def _raise_faults(outcomes: Sequence[Outcome], folder: Path) -> None:
    """Raise `DataError` where an input has no mask that should have one."""
    faults = [each for each in outcomes if each.is_fault]
    if not faults:
        return
    named = [each.reason if each.case_id else f"{each.path}: {each.reason}" for each in faults[:_FAULTS_SHOWN]]
    more = [f"And {len(faults) - _FAULTS_SHOWN} more."] if len(faults) > _FAULTS_SHOWN else []
    raise DataError(
        f"{len(faults)} of {len(outcomes)} inputs could not be predicted; the others were. {' '.join([*named, *more])} "
        f"{folder / 'predictions.csv'} lists them all."
    )


def _make_predictor(module: SegmentationModule, checkpoints: Sequence[CheckpointInfo], batch_size: int) -> Predictor:
    """Take the first model with the settings that were given, and those of further checkpoints with its flips."""
    first, *others = checkpoints
    load_weights(module.model, first.path)
    models = [module.model.eval(), *(load_model(trained) for trained in others)]
    return Predictor(models, batch_size, tta=module.model.tta)


def _record(
    order: PredictOptions,
    trainer: Trainer,
    module: SegmentationModule,
    source: Source,
    checkpoints: Sequence[CheckpointInfo],
) -> dict[str, Any]:
    """What masks follow from: where they are taken up again, it has to be the same."""
    settings = {key: value for key, value in module.hparams.items() if key != "_instantiator"}
    return {
        "input": str(order.images.resolve()),
        "checkpoints": [hash_file(Path(each.path)) for each in checkpoints],
        "model": yaml.safe_load(yaml.safe_dump(settings)),
        "source": [repr(part) for part in (*source.reading_settings(), *source.writing_settings())],
        "precision": str(trainer.precision),
        "probabilities": order.probabilities,
        "overlays": order.overlays,
        "review": order.review,
    }
