"""Prediction of many cases under a Trainer, shared among ranks, and what became of each input."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import torch
from lightning.pytorch import LightningModule
from torch import nn
from torch.utils.data import DataLoader

from medseg_pl.core.errors import MedsegError, count_noun
from medseg_pl.core.image_findings import ImageFinding, describe_findings, has_warning
from medseg_pl.core.types import Case, Prediction, Volume
from medseg_pl.data.datasets import LoadedCase, make_case_loader
from medseg_pl.data.sources import Source
from medseg_pl.inference.evidence import CaseEvidence, assess_prediction
from medseg_pl.inference.predictor import Predictor
from medseg_pl.io.atomic_files import write_text
from medseg_pl.io.paths import LeftOut
from medseg_pl.io.scores import write_rows

Status = Literal[
    "written",
    "marked",
    "failed",
    "not reached",
    "not asked for",
    "not read",
    "no image",
]
FINDINGS = ".findings.json"
"""Ending of the note in which the findings of a case are kept."""


# Channels in files of their own are few; slices of a series are many.
_MOST_FILES = 4
"""A case of more files, such as a series, is named by its folder."""


class Outcome(NamedTuple):
    """An input and its status.

    Attributes:
        path: The file, or the folder of many.
        case_id: Empty if the input is no case.
        status: `marked` has a mask and is unlike the training images; `not read`, `failed` and `not reached` are
            faults, `not asked for` is beyond `trainer.limit_predict_batches`, `no image` is a text and the like.
        reason: Why it has no mask, or the findings of one that has.
        before: Whether the mask is of an earlier run. Tables leave it out: a repeated command changes no row.
        trained: Whether a case of this name was trained on.
    """

    path: str
    case_id: str
    status: Status
    reason: str = ""
    before: bool = False
    trained: bool = False

    @property
    def is_fault(self) -> bool:
        """Tell whether a mask should be there and is not."""
        return self.status in ("failed", "not reached", "not read")

    @property
    def has_mask(self) -> bool:
        """Tell whether a mask is there, of this run or an earlier one."""
        return self.status in ("written", "marked")

    @property
    def is_marked(self) -> bool:
        """Tell whether the input is unlike what the model was trained on."""
        return self.status == "marked"


def list_outcomes(
    cases: Sequence[Case],
    left_out: Sequence[LeftOut],
    finished: frozenset[str],
    faults: Mapping[str, str],
    written: frozenset[str],
    root: Path,
    *,
    limited: bool = False,
    findings: Mapping[str, Sequence[ImageFinding]] | None = None,
) -> list[Outcome]:
    """List the outcome of each input by its path below the root.

    Args:
        cases: All cases.
        left_out: Files of no case.
        finished: Cases with masks of an earlier run.
        faults: Error messages of cases that could not be predicted.
        written: Cases with new masks.
        root: The value of `--input`.
        limited: Whether `trainer.limit_predict_batches` left cases out.
        findings: Of the cases with masks.

    >>> a, b = Case("a", "a", (Path("in/a.png"),)), Case("b", "b", (Path("in/b.png"),))
    >>> for outcome in list_outcomes([a, b], [], frozenset("a"), {"b": "Damaged."}, frozenset(), Path("in")):
    ...     print(*outcome)
    a.png a written  True False
    b.png b failed Damaged. False False
    """
    outcomes = []
    for case in cases:
        path, name = _shorten(case.images, root), case.case_id
        found = (findings or {}).get(name, ())
        made: Status = "marked" if has_warning(found) else "written"
        # A fault of this run comes first: the mask of an earlier run may be of other files.
        if name in faults:
            outcomes.append(Outcome(path, name, "failed", faults[name]))
        elif name in finished or name in written:
            outcomes.append(Outcome(path, name, made, describe_findings(found), before=name in finished))
        elif limited:
            outcomes.append(Outcome(path, name, "not asked for", "Beyond trainer.limit_predict_batches."))
        else:
            outcomes.append(Outcome(path, name, "not reached", f"{path} was not reached before the run ended."))
    for file in left_out:
        status: Status = "not read" if file.is_lost else "no image"
        outcomes.append(Outcome(_shorten([file.path], root), "", status, file.reason))
    return sorted(outcomes)


def mark_trained(outcomes: Sequence[Outcome], trained: Collection[str]) -> list[Outcome]:
    """Mark the masks of cases that have the names of training cases."""
    return [outcome._replace(trained=outcome.has_mask and outcome.case_id in trained) for outcome in outcomes]


def note_trained(outcomes: Sequence[Outcome]) -> str:
    """Note how many masks are of training cases; empty for none.

    >>> note_trained([Outcome("a.png", "a", "written", trained=True), Outcome("b.png", "b", "written")])
    '1 of 2 cases has the name of a training case: its score says nothing of new images.'
    """
    trained, masks = (sum(chosen) for chosen in ([o.trained for o in outcomes], [o.has_mask for o in outcomes]))
    has, their = (
        ("has the name of a training case", "its score says")
        if trained == 1
        else ("have the names of training cases", "their scores say")
    )
    return f"{trained} of {count_noun(masks, 'case')} {has}: {their} nothing of new images." if trained else ""


def write_outcomes(path: Path, outcomes: Sequence[Outcome]) -> None:
    """Write the table in place of that of an earlier run."""
    rows = [
        {
            "input": outcome.path,
            "case_id": outcome.case_id,
            "status": outcome.status,
            "reason": outcome.reason,
            "trained": "yes" if outcome.trained else "",
        }
        for outcome in outcomes
    ]
    write_rows(path, rows, replace=True)


def summarize_outcomes(outcomes: Sequence[Outcome], folder: Path) -> str:
    """Count the outcomes, in a line.

    >>> summarize_outcomes([Outcome("a.png", "a", "written", before=True)], Path("out"))
    '0 new cases written to out; 1 finished before'
    """
    counts = Counter(outcome.status for outcome in outcomes)
    before = sum(outcome.before for outcome in outcomes)
    written = count_noun(counts["written"] + counts["marked"] - before, "new case" if before else "case")
    # What was written comes first, and what never was an input last.
    others = [status for status in get_args(Status) if status not in ("written", "no image")]
    parts = [f"{counts[status]} {status}" for status in others if counts[status]]
    parts += [f"{before} finished before"] if before else []
    # Their number alone: a volume of two files has one of them.
    unused = counts["no image"]
    parts += [f"{count_noun(unused, 'file')} left out, see predictions.csv"] if unused else []
    return "; ".join([f"{written} written to {folder}", *parts])


def write_findings(path: Path, findings: Sequence[ImageFinding]) -> None:
    """Write the findings of a case for a repeated prediction."""
    write_text(path, json.dumps(findings) + "\n", replace=True)


def read_findings(path: Path) -> list[ImageFinding]:
    """Read a file of `write_findings`.

    A case of an older release has no findings.
    """
    if not path.is_file():
        return []
    return [ImageFinding(*finding) for finding in json.loads(path.read_text(encoding="utf-8"))]


def _shorten(paths: Sequence[Path], root: Path) -> str:
    """Name files below the root, and the folder of many."""
    base = root.parent if root.is_file() else root
    several = paths if len(paths) <= _MOST_FILES else [paths[0].parent]
    names = [path.relative_to(base).as_posix() if path.is_relative_to(base) else str(path) for path in several]
    return ";".join(names)


class CaseResult(NamedTuple):
    """A case with its prediction, or the reason why it has none.

    Attributes:
        case: The case.
        volume: Its image; `None` if it cannot be read.
        prediction: `None` if the case could not be predicted.
        error: Why it could not.
        evidence: Evidence against the prediction, if a review was asked for.
    """

    case: Case
    volume: Volume | None
    prediction: Prediction | None
    error: str = ""
    evidence: CaseEvidence | None = None


class PredictionModule(LightningModule):
    """Predict the cases of a source.

    A case that cannot be predicted does not stop the others.

    Args:
        predictor: The models.
        source: Reads the cases.
        cases: All cases, over all ranks.
        is_finished: Tells whether a case was predicted before and is left out.
        workers: Processes that decode; 0 decodes in the main one.
        probabilities: Whether predictions keep their probabilities.
        review: Whether evidence against each prediction is collected.
    """

    def __init__(
        self,
        predictor: Predictor,
        source: Source,
        cases: Sequence[Case],
        is_finished: Callable[[Case], bool],
        workers: int,
        probabilities: bool = False,
        review: bool = False,
    ) -> None:
        super().__init__()
        self.predictor = predictor
        self.models = nn.ModuleList(predictor.models)  # so that the trainer moves them to its device
        self.source = source
        self.cases = list(cases)
        self.is_finished = is_finished
        self.workers = workers
        self.keeps_probabilities = probabilities
        self.reviews = review

    def predict_dataloader(self) -> DataLoader[Any]:
        """Serve the cases of this rank that are not finished."""
        # Of all cases, finished ones among them: each rank then keeps its cases in a resumed prediction.
        assigned = self.cases[self.trainer.global_rank :: self.trainer.world_size]
        remaining = [case for case in assigned if not self.is_finished(case)]
        if not remaining:  # without a batch Lightning would leave this rank out of what all ranks do together
            return DataLoader([None], batch_size=None, collate_fn=lambda item: item)  # type: ignore[arg-type]
        return make_case_loader(remaining, self.source, self.predictor.labels, self.workers)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Leave the case on the CPU: the predictor moves single slices."""
        return batch

    def predict_step(self, batch: LoadedCase | None, batch_idx: int) -> list[CaseResult]:
        """Predict a case, or nothing if all were finished before.

        Lightning warns of a step that returns `None`.

        Returns:
            The result of the case, which may be an error.
        """
        if batch is None:
            return []
        if batch.volume is None:
            return [CaseResult(batch.case, None, None, batch.fault)]
        description = f"Case {batch.case.case_id} ({batch.case.images[0]})"
        try:
            prediction, evidence = self._predict(batch.volume, description)
        except MedsegError as error:
            return [CaseResult(batch.case, batch.volume, None, str(error))]
        return [CaseResult(batch.case, batch.volume, prediction, evidence=evidence)]

    def _predict(self, volume: Volume, description: str) -> tuple[Prediction, CaseEvidence | None]:
        if not self.reviews:
            return self.predictor.predict_volume(volume, description, probabilities=self.keeps_probabilities), None
        prediction, member_masks = self.predictor.predict_members(volume, description)
        assert prediction.probabilities is not None, "an ensemble prediction keeps them"
        evidence = assess_prediction(
            self.predictor.labels, prediction.mask, prediction.probabilities, member_masks, volume.geometry
        )
        kept = prediction.probabilities if self.keeps_probabilities else None
        return replace(prediction, probabilities=kept), evidence
