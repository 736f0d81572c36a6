"""`medseg predict`: masks of a folder of images, case by case, by one checkpoint or an ensemble."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from jsonargparse import Namespace
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser

from medseg_pl.core.errors import DataError, SettingError, count_noun, count_part
from medseg_pl.core.image_findings import CODES, OnForeign
from medseg_pl.data.prepared_data import use_mask_values
from medseg_pl.data.sources import Source
from medseg_pl.data.sources.base import abbreviate
from medseg_pl.data.sources.unlabeled import ImageFolder
from medseg_pl.inference.comparison import read_profiles
from medseg_pl.inference.predictor import Predictor
from medseg_pl.io.atomic_files import hash_file
from medseg_pl.io.folders import FolderLocks, OutputFolder
from medseg_pl.models.segmentation_model import load_model, load_weights
from medseg_pl.training.callbacks import Inputs, PredictionWriter, ReviewQueue
from medseg_pl.training.checkpoints import CheckpointInfo
from medseg_pl.training.datamodule import SegmentationDataModule
from medseg_pl.training.module import SegmentationModule
from medseg_pl.training.prediction import Outcome, PredictionModule

_FAULTS_SHOWN = 10


class PredictOptions(NamedTuple):
    """The options of `predict`, see `add_options`."""

    images: Path
    folder: Path
    probabilities: bool
    overlays: bool
    review: bool
    review_top: int
    on_foreign: OnForeign

    @classmethod
    def from_namespace(cls, options: Namespace) -> PredictOptions:
        """Take the options of a command line.

        Raises:
            SettingError: The output lies inside the input.
        """
        images, folder = Path(options["input"]), Path(options["output"])
        if folder.resolve().is_relative_to(images.resolve()):
            raise SettingError(
                f"--output {folder} lies inside --input {images}: the next prediction would read its masks as images. "
                "Choose a folder outside."
            )
        return cls(images, folder, *(options[name] for name in cls._fields[2:]))


def add_options(parser: LightningArgumentParser) -> None:
    """Add the options of `predict` alone."""
    parser.add_argument(
        "--input", type=str, required=True, help="A folder of images in the data set's layout, or an image."
    )
    parser.add_argument("-o", "--output", type=str, required=True, help="A new folder for the masks.")
    # Without a value they are true; a value is taken as well, since a configuration has one.
    switch: dict[str, Any] = {"type": bool, "nargs": "?", "const": True, "default": False}
    parser.add_argument("--probabilities", **switch, help="Write the probabilities, too.")
    parser.add_argument("--overlays", **switch, help="Draw a picture of each case, too.")
    parser.add_argument("--review", **switch, help="Say which cases a person should look at.")
    parser.add_argument("--review_top", type=int, default=20, help="How many of them to draw.")
    foreign = "Images unlike those of training: mark them, refuse them without a mask, or ignore it."
    parser.add_argument("--on_foreign", type=OnForeign, default="mark", help=foreign)


def predict(
    options: PredictOptions,
    trainer: Trainer,
    module: SegmentationModule,
    data: SegmentationDataModule,
    checkpoints: Sequence[CheckpointInfo],
    locks: FolderLocks,
) -> list[Outcome]:
    """Predict the cases that are not finished.

    Args:
        options: The options of the command line.
        trainer: Shares the cases among its processes.
        module: The module of the first checkpoint, with the settings of the command line; its weights are loaded here.
        data: Its source knows the layout of the images.
        checkpoints: One, or those of an ensemble.
        locks: Locks the output folder for this process.

    Returns:
        The outcome of each input; see `raise_faults`.
    """
    output = OutputFolder(options.folder, _record(options, trainer, module, data.source, checkpoints), locks)
    output.check()  # before models are loaded, which takes longer
    source = data.source.open_unlabeled(options.images).orient(checkpoints[0].orientation)
    if isinstance(source, ImageFolder) and source.folders and trainer.is_global_zero:
        names = " and ".join(source.folders)
        sys.stdout.write(f"{options.images} is the root of a data set: images are read from its {names}.\n")
    predictor, cases = _make_predictor(module, checkpoints, data.eval_batch_size, options.on_foreign), source.cases()
    # Before any rank writes: what is finished later in this run is new.
    finished = frozenset(case.case_id for case in cases if output.is_finished(case.case_id, case.images))
    trained = frozenset(
        name for checkpoint in checkpoints for name in checkpoint.data.get("split", {}).get("train", ())
    )
    inputs = Inputs(options.images, cases, source.list_left_out(), finished, trained)
    queue = ReviewQueue(output, cases, predictor.labels.names, options.review_top) if options.review else None
    labels = use_mask_values(predictor.labels, checkpoints[0].mask_values)
    writer = PredictionWriter(output, source, inputs, labels, overlays=options.overlays, queue=queue)
    # Made here and not with the Trainer: it needs the cases, which the parsed source lists.
    trainer.callbacks.append(writer)  # type: ignore[attr-defined]
    prediction = PredictionModule(
        predictor,
        source,
        cases,
        is_finished=lambda case: case.case_id in finished,
        workers=data.num_workers,
        probabilities=options.probabilities,
        review=options.review,
    )
    trainer.predict(prediction, return_predictions=False)
    return list(writer.outcomes)


def describe_outcomes(outcomes: Sequence[Outcome], folder: Path) -> dict[str, Any]:
    """Return the content of `--json`.

    >>> outcomes = [Outcome("a.png", "a", "written"), Outcome("b.png", "b", "failed", "Damaged.")]
    >>> described = describe_outcomes(outcomes, Path("masks"))
    >>> described["counts"], described["inputs"][0]["status"], described["inputs"][0]["trained"]
    ({'written': 1, 'failed': 1}, 'written', False)
    """
    counts = dict(Counter(outcome.status for outcome in outcomes))
    return {"output": str(folder), "counts": counts, "inputs": [outcome._asdict() for outcome in outcomes]}


def raise_faults(outcomes: Sequence[Outcome], folder: Path) -> None:
    """Report inputs without a mask, or unlike the training images.

    A file that is no image at all is no input.

    Raises:
        DataError: There are such inputs.
    """
    marked = [outcome for outcome in outcomes if outcome.is_marked]
    inputs = sum(outcome.status != "no image" for outcome in outcomes)
    remark = _describe_marked(marked, inputs)
    faults = [outcome for outcome in outcomes if outcome.is_fault]
    if not faults and not marked:
        return
    if not faults:
        raise DataError(f"{remark} {folder / 'predictions.csv'} has the numbers.")
    alike = _group_alike(faults)
    reasons = [_describe_alike(group) for group in alike[:_FAULTS_SHOWN]]
    rest = sum(map(len, alike[_FAULTS_SHOWN:]))
    more = [f"And {rest} more."] if rest else []
    raise DataError(
        f"{len(faults)} of {count_noun(inputs, 'input')} could not be predicted{_count_predicted(outcomes)}. "
        f"{' '.join([*reasons, *more, *([remark] if marked else [])])} {folder / 'predictions.csv'} lists them all."
    )


def _count_predicted(outcomes: Sequence[Outcome]) -> str:
    """Say how many inputs were predicted beside those that could not be.

    >>> outcomes = [Outcome("a.png", "a", "failed"), Outcome("b.png", "b", "written"), Outcome("c.txt", "", "no image")]
    >>> _count_predicted(outcomes[:1]), _count_predicted(outcomes)
    ('', '; the others were')
    >>> _count_predicted([*outcomes, Outcome("d.png", "d", "not asked for")])
    '; 1 was'
    """
    predicted = sum(outcome.has_mask for outcome in outcomes)
    if not predicted:
        return ""
    is_rest = all(outcome.has_mask or outcome.is_fault or outcome.status == "no image" for outcome in outcomes)
    return "; the others were" if is_rest else f"; {predicted} {'was' if predicted == 1 else 'were'}"


def _group_alike(faults: Sequence[Outcome]) -> list[list[Outcome]]:
    """Group faults whose reasons differ in the case and its file alone."""
    groups: dict[str, list[Outcome]] = {}
    for fault in faults:
        path, name = re.escape(fault.path.partition(";")[0]), re.escape(fault.case_id)
        subject = rf"^(.*?{path}[^\s)]*\)?|Case {name}(?= |:))" if fault.case_id else "^(?!)"
        groups.setdefault(re.sub(subject, "", fault.reason), []).append(fault)
    return list(groups.values())


def _describe_alike(faults: Sequence[Outcome]) -> str:
    """Describe the first of some faults, and name the others.

    >>> outcomes = [Outcome(f"{name}.png", name, "failed", f"Case {name}: damaged.") for name in "abcde"]
    >>> _describe_alike(outcomes)
    'Case a: damaged. The same holds for b.png, c.png, d.png and 1 more.'
    """
    first, *others = faults
    reason = first.reason if first.case_id else f"{first.path}: {first.reason}"
    return f"{reason} The same holds for {abbreviate([each.path for each in others])}." if others else reason


def _describe_marked(marked: Sequence[Outcome], inputs: int) -> str:
    """Describe inputs unlike the training images, by what is found of them."""
    alike: dict[str, list[str]] = {}
    for outcome in marked:
        alike.setdefault(_explain_codes(outcome.reason), []).append(outcome.path)
    named = [f"{abbreviate(paths)}: {meaning}." for meaning, paths in list(alike.items())[:_FAULTS_SHOWN]]
    rest = sum(map(len, list(alike.values())[_FAULTS_SHOWN:]))
    more = [f"And {rest} more."] if rest else []
    return (
        f"{count_part(len(marked), inputs, 'input', 'is', 'are')} unlike what the model was trained on, and predicted "
        f"all the same, so look at the masks. {' '.join([*named, *more])}"
    )


def _explain_codes(reason: str) -> str:
    """Say in words what findings are about; their numbers are in the table.

    >>> _explain_codes("F102 The spacing was not compared. F201 a: it is empty. F201 b: it is empty.")
    'nothing of a label that every training case has (F201)'
    """
    said = re.findall(r"\b(F\d{3}) (.*?)(?= F\d{3} |$)", reason)
    # A note is no reason for a mark: it says what could not be compared.
    codes = dict.fromkeys(code for code, text in said if code in CODES and not text.endswith("not compared."))
    return "; ".join(f"{CODES[code].meaning} ({code})" for code in codes)


def _make_predictor(
    module: SegmentationModule, checkpoints: Sequence[CheckpointInfo], batch_size: int, on_foreign: OnForeign
) -> Predictor:
    """Combine the first model, with given settings, with further checkpoints' models."""
    first, *others = checkpoints
    load_weights(module.model, first.path)
    models = [module.model.eval(), *(load_model(trained) for trained in others)]
    profiles = [] if on_foreign == "ignore" else read_profiles(checkpoints)
    return Predictor(models, batch_size, tta=module.model.tta, profiles=profiles, on_foreign=on_foreign)


def _record(
    options: PredictOptions,
    trainer: Trainer,
    module: SegmentationModule,
    source: Source,
    checkpoints: Sequence[CheckpointInfo],
) -> dict[str, Any]:
    """Record what masks depend on, which a resumed prediction must share."""
    settings = {key: value for key, value in module.hparams.items() if key != "_instantiator"}
    return {
        "input": str(options.images.resolve()),
        "checkpoints": [hash_file(Path(each.path)) for each in checkpoints],
        "model": yaml.safe_load(yaml.safe_dump(settings)),
        "source": [repr(part) for part in (*source.reading_settings(), *source.writing_settings())],
        "precision": str(trainer.precision),
        "probabilities": options.probabilities,
        "overlays": options.overlays,
        "review": options.review,
        # Masks that are there were then compared with nothing.
        **({"on_foreign": "ignore"} if options.on_foreign == "ignore" else {}),
    }
