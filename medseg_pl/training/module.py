"""SegmentationModule: a Lightning shell around the model, with loss, optimizer, schedule and evaluator."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Shaped
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn

from medseg_pl.core.errors import SettingError
from medseg_pl.core.labels import IGNORE, LabelMap
from medseg_pl.core.types import Batch, EvaluationBatch, PostProcessing, Prediction, ResizeMode, TtaMode
from medseg_pl.metrics import CaseMetric, OverlapMetric, SurfaceMetric, VolumeMetric
from medseg_pl.models.annotated_losses import check_loss, exclude_ignored, leave_out_labels
from medseg_pl.models.checkpoint import forget_downloads
from medseg_pl.models.fine_tuning import FineTuning
from medseg_pl.models.networks import NetworkFactory, Shape, find_untrained, refuse_probabilities, rehearse
from medseg_pl.models.normalization import Normalization
from medseg_pl.models.optimizers import (
    Interval,
    find_learning_rate,
    follow_scores,
    include_added_groups,
    is_score_driven,
    make_optimization,
    rescale_schedules,
)
from medseg_pl.models.segmentation_model import SegmentationModel
from medseg_pl.training.checkpoints.callbacks import fix_epoch_restart, make_resumable, pending_accumulation_batches
from medseg_pl.training.evaluator import Evaluator, Stage
from medseg_pl.training.progress import (
    count_run_steps,
    plan_schedules,
    restore_accumulation,
    step_schedule,
    validate_at_end,
)
from medseg_pl.training.recording import keep_settings
from medseg_pl.training.restored_settings import (
    apply_changed_numbers,
    apply_changed_optimization,
    describe_optimization,
    has_same_learning_rate,
)
from medseg_pl.training.training_checks import (
    check_trainer,
    exclude_from_ddp,
    find_unused_parameters,
    refuse_gradients,
    require_validation,
    warn_about_slow_average,
)

log = logging.getLogger(__name__)


@runtime_checkable
class MetricFactory(Protocol):
    """A `CaseMetric` that is still to be made with the labels."""

    def __call__(self, *, labels: LabelMap) -> CaseMetric:
        """Make the metric."""


@dataclass
class FitState:
    """State of a training that Lightning's hooks change.

    Attributes:
        validated: After how many batches, of all epochs, the last validation was complete.
        lr_factor: The factor by which a search multiplied the optimizer's learning rate.
        restored_metrics: The last scores before a resume.
        without_gradient: Parameters that DDP does not wait for.
    """

    validated: int = -1
    lr_factor: float = 1.0
    restored_metrics: dict[str, Tensor] = field(default_factory=dict)
    without_gradient: list[str] = field(default_factory=list)


class SegmentationModule(LightningModule):
    """A segmentation network with its training and its scores.

    Args:
        network: Any class of segmentation-models-pytorch, or your own, or `functools.partial` of one; called with
            `in_channels` and `classes`. Or a ready network.
        labels: The structures to find.
        loss: Any `nn.Module(logits, target)`.
        normalization: What happens to raw values before the network.
        optimizer: Made with the network's parameters.
        channels: Channels of an image: 1 for gray, 3 for color.
        context_slices: Neighboring slices on each side that the network sees as further channels.
        resize: `none` trains on crops and keeps pixels as they are; `fit` scales whole images into `input_size`.
        input_size: `(height, width)` of what the network sees in training.
        spacing_mm: Distances `(y, x)` between pixels that slices are brought to first, with `resize: none`; scores
            and predictions are on the native grid all the same.
        lr_scheduler: Made with the optimizer; torch's `ReduceLROnPlateau` is stepped after every validation.
        lr_interval: Whether the schedule is stepped after every `step` of the optimizer or after every `epoch`. By
            default WarmupPolynomialLR, OneCycleLR and CyclicLR count steps, and all others epochs, as in Lightning.
        surface_metrics: Whether `validate` and `test` measure HD, HD95, ASSD and NSD; a training's own
            validations do not.
        nsd_tolerance: How far apart borders may be that count as the same for NSD, in mm, or in pixels where the
            spacing is unknown: one number, or one for each label.
        metrics: Further metrics, beside overlap, distances and volumes; each adds columns to the table of scores.
        size_divisor: Sides of an image that the network accepts divide by this; by default what its encoder needs.
        window_overlap: How much neighboring windows share, where an image is too large to run whole.
        whole_image_max_pixels: Images with more pixels run in windows.
        tta: Test-time augmentation, the mean over flips or turns of the image, in `validate`, `test` and `predict`.
            Only what training has flipped too: where a label is the left one of two, nothing that exchanges sides.
        postprocess: How each label of a predicted case is cleaned up, by its name.
        pretrained: Weights to start from, of the network or its encoder: a file, or `medseg:efficientnet_lite0`.
        freeze: `encoder` keeps the encoder as it is, with its batch normalization's stored statistics.
        unfreeze_epoch: The epoch, from 0, in which a frozen encoder begins to train; by default it never does.
        encoder_lr_factor: Multiplies the encoder's learning rate: below 1 keeps more of pretrained weights.
        decay_all: Whether weight decay acts on biases and the scales of normalization layers as well.
        channels_last: Memory format; faster with mixed precision.
        compile_network: Whether `torch.compile` is used: slow to start, faster to run.
        seed: Dropout and all else that is random in a training step; linked from `seed_everything` on the command line.
    """

    def __init__(
        self,
        network: NetworkFactory,
        labels: LabelMap,
        loss: nn.Module,
        normalization: Normalization,
        optimizer: OptimizerCallable,
        channels: int = 1,
        context_slices: int = 0,
        resize: ResizeMode = "none",
        input_size: tuple[int, int] = (256, 256),
        spacing_mm: tuple[float, float] | None = None,
        lr_scheduler: LRSchedulerCallable | None = None,
        lr_interval: Interval | None = None,
        surface_metrics: bool = True,
        nsd_tolerance: float | dict[str, float] = 1.0,
        metrics: Sequence[MetricFactory] = (),
        size_divisor: int | None = None,
        window_overlap: float = 0.5,
        whole_image_max_pixels: int = 1 << 20,
        tta: TtaMode = "none",
        postprocess: dict[str, PostProcessing] | None = None,
        pretrained: str | None = None,
        freeze: Literal["encoder"] | None = None,
        unfreeze_epoch: int | None = None,
        encoder_lr_factor: float = 1.0,
        decay_all: bool = False,
        channels_last: bool = False,
        compile_network: bool = False,
        seed: int = 0,
    ) -> None:
        settings = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        super().__init__()
        # Settings lie flat on the command line; those that travel with the weights are the model's own.
        self.model = SegmentationModel(
            **{name: settings[name] for name in inspect.signature(SegmentationModel).parameters}
        )
        self._unrecorded = keep_settings(self, settings, "model", network=(self.model.in_channels, labels.classes))
        self.labels = labels
        self.loss = exclude_ignored(loss, labels)
        check_loss(self.loss, labels)
        self.make_optimizer = optimizer
        self.make_scheduler = lr_scheduler
        self.lr_interval = lr_interval
        surface = SurfaceMetric(labels, nsd_tolerance)
        built_in = [OverlapMetric(labels), *([surface] if surface_metrics else []), VolumeMetric(labels)]
        facts = {"nsd_tolerance": surface.tolerance} if surface_metrics else {}
        self.evaluator = Evaluator(self.model, [*built_in, *(make(labels=labels) for make in metrics)], facts)
        self.fine_tuning = FineTuning(freeze is not None, unfreeze_epoch, encoder_lr_factor, decay_all)
        self.fine_tuning.check(self.model.network)
        self.fit_state = FitState()
        # What torch refuses is refused here, and not when the data is read and a run folder made.
        optimization = self.configure_optimizers()
        self._optimization = describe_optimization(optimization)
        self._lr = find_learning_rate(optimization)
        self.seed = seed

    def forward(self, image: Shaped[Tensor, "b c h w"], statistics: Float[Tensor, "b c 4"]) -> Float[Tensor, "b k h w"]:
        """Compute the logits of raw images.

        Args:
            image: `(B, C * (2k + 1), H, W)`; the neighbor is the outer index, the channel the inner one.
            statistics: `(B, C * (2k + 1), 4)` of each channel over its whole case, see `compute_channel_statistics`.
        """
        logits: Tensor = self.model(image, statistics)
        return logits

    def on_fit_start(self) -> None:
        """Refuse callbacks and schedules that wait for scores that never come."""
        require_validation(self.trainer, self._list_schedules())

    @property
    def backbone(self) -> nn.Module:
        """Encoder of the network, under the name that Lightning's `BackboneFinetuning` looks for."""
        return self.model.network.get_submodule("encoder")

    @property
    def lr(self) -> float:
        """Learning rate of the optimizer, under the name that Lightning's `LearningRateFinder` sets."""
        return self._lr * self.fit_state.lr_factor

    @lr.setter
    def lr(self, value: float) -> None:
        if self._trainer is not None:  # the finder is done with the optimizer that goes on training
            rescale_schedules(self._list_schedules(), value / self.lr)
        log.warning("The learning rate is set to %.3g; it was %.3g.", value, self.lr)
        self.fit_state.lr_factor = value / self._lr

    def prepare_data(self) -> None:
        """Refuse what cannot be trained, before a run folder is made."""
        if self.trainer.state.fn == TrainerFn.FITTING:
            check_trainer(self.trainer, self)
            if self._unrecorded and self.trainer.checkpoint_callbacks:
                raise SettingError(self._unrecorded)
            rehearse(self.model.network, self._find_batch_shape(), self.labels.classes)

    def setup(self, stage: str) -> None:
        """Let DDP wait for no parameter that never gets a gradient."""
        if stage == TrainerFn.FITTING and isinstance(self.trainer.strategy, DDPStrategy):
            if self.fine_tuning.freezes_encoder:
                find_unused_parameters(self.trainer.strategy)
            untrained = find_untrained(self.model.network, self._find_batch_shape())
            names = [f"model.network.{name}" for name in untrained]
            self.fit_state.without_gradient = exclude_from_ddp(self.trainer.strategy, self, names)

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        """Refuse a gradient of a parameter that DDP does not share."""
        if self.fit_state.without_gradient:
            refuse_gradients(self, self.fit_state.without_gradient)

    def _find_batch_shape(self) -> Shape:
        """Return the shape of a training batch, two images at most."""
        batch = min(2, getattr(self.trainer.datamodule, "batch_size", 2))  # type: ignore[attr-defined]
        return (batch, self.model.in_channels, *self.model.input_size)

    def on_train_start(self) -> None:
        """Plan the schedule, and restore what Lightning does not on a resume."""
        fix_epoch_restart(self.trainer)
        # Lightning leaves out the hook of an epoch that a resumed run goes on within.
        self.fine_tuning.freeze(self.model.network, self.current_epoch)
        # Early stopping and others who look at a score between two validations find the last one.
        self.trainer.callback_metrics.update(self.fit_state.restored_metrics)
        restore_accumulation(self.trainer)
        # Not earlier: Lightning would make the loader, and begin to load, before it knows where a resumed run is.
        plan_schedules(self.trainer)
        warn_about_slow_average(self.trainer, count_run_steps(self.trainer))

    def on_train_epoch_start(self) -> None:
        """Thaw the encoder when it is time.

        Parameters that a finetuning callback has thawed join the schedules.
        """
        self.fine_tuning.freeze(self.model.network, self.current_epoch)
        include_added_groups(self._list_schedules())

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed the step by seed, epoch, batch and rank."""
        # A resumed run needs no state of a random generator for it.
        entropy = (self.seed, self.current_epoch, batch_idx, self.global_rank)
        torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0]))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Compute the loss of a batch of patches."""
        logits = self(batch.image, batch.statistics)
        refuse_probabilities(logits)
        loss: Tensor = self.loss(*leave_out_labels(logits, self.labels.target(batch.mask), batch.annotated))
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch.image))
        return loss

    def validation_step(self, batch: EvaluationBatch, batch_idx: int) -> dict[str, list[Prediction]]:
        """Score the cases that this batch completes."""
        return {"cases": self._evaluate(batch)}

    def test_step(self, batch: EvaluationBatch, batch_idx: int) -> dict[str, list[Prediction]]:
        """Score the cases that this batch completes."""
        return {"cases": self._evaluate(batch)}

    def on_train_epoch_end(self) -> None:
        """Validate the weights that training ends with."""
        validate_at_end(self.trainer, self.fit_state.validated)

    def on_validation_epoch_start(self) -> None:
        """Start with empty tables."""
        self._reset_scores()

    def on_test_epoch_start(self) -> None:
        """Start with empty tables."""
        self._reset_scores()

    def on_validation_epoch_end(self) -> None:
        """Summarize the cases of all ranks; step schedules that follow scores."""
        self._summarize("val")
        if self.trainer.state.fn == TrainerFn.FITTING and not self.trainer.sanity_checking:
            # Before anyone saves a checkpoint at the end of this validation; Lightning's own step would come after it.
            for schedule in self._list_schedules():
                follow_scores(schedule, self.trainer.callback_metrics)
            self.fit_state.validated = self.trainer.fit_loop.total_batch_idx + 1

    def on_test_epoch_end(self) -> None:
        """Summarize all cases of all ranks."""
        self._summarize("test")

    def configure_optimizers(self) -> Any:
        """Make the optimizer and its schedule."""
        return make_optimization(
            self.make_optimizer,
            self.make_scheduler,
            self.fine_tuning.group(self, self.model.network),
            self.lr_interval,
            self.fit_state.lr_factor,
            self.fine_tuning.encoder_lr_factor,
        )

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Step the schedules that follow steps or epochs."""
        if not is_score_driven(scheduler):
            step_schedule(self.trainer, scheduler)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Record precision and counters in a checkpoint.

        Evaluations use the precision; a resumed fit goes on from the counters.
        """
        if self._unrecorded:
            raise SettingError(self._unrecorded)
        checkpoint["precision"] = str(self.trainer.precision)
        forget_downloads(checkpoint["hyper_parameters"])
        if self.trainer.state.fn != TrainerFn.FITTING:
            return
        if waiting := pending_accumulation_batches(self.trainer):
            log.warning(
                "A checkpoint is written between two steps of the optimizer: %d batches of which no gradient is kept "
                "are run again on a resume, and count twice in the statistics of batch normalization.",
                waiting,
            )
        loops = checkpoint["loops"]
        loops["fit_loop"] = make_resumable(self.trainer, loops["fit_loop"], self.fit_state.validated)
        checkpoint["validated"] = self.fit_state.validated
        checkpoint["optimization"] = self._optimization
        checkpoint["lr_factor"] = self.fit_state.lr_factor
        checkpoint["metrics"] = {name: value.detach().cpu() for name, value in self.trainer.callback_metrics.items()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the last scores, with changed settings replacing the checkpoint's."""
        self.fit_state.restored_metrics = checkpoint.get("metrics", {})
        self.fit_state.validated = checkpoint.get("validated", -1)
        if self._trainer is None or self.trainer.state.fn != TrainerFn.FITTING:
            return
        # The rate of a LearningRateFinder holds, unless another rate is set on purpose.
        if has_same_learning_rate(checkpoint, self._optimization):
            self.fit_state.lr_factor = checkpoint.get("lr_factor", 1.0)
        else:
            self.fit_state.lr_factor = 1.0
        changes = apply_changed_optimization(checkpoint, self._optimization, self.configure_optimizers)
        changes += apply_changed_numbers(checkpoint, self.trainer.callbacks)  # type: ignore[attr-defined]
        if changes:
            log.warning("Changed since the checkpoint was written, and in force from here on: %s.", ", ".join(changes))

    def _evaluate(self, batch: EvaluationBatch) -> list[Prediction]:
        """Predict slices, add to the loss, and score the completed cases."""
        if not batch.slices:
            return []
        references = self.evaluator.resize_references(batch).to(batch.image.device)
        found = torch.tensor([self.labels.find_annotated(each.annotated_labels) for each in batch.slices])
        annotated = None if found.all() else found.to(batch.image.device)

        def add_loss(logits: Tensor, rows: slice, columns: slice) -> None:
            window = references[..., rows, columns]
            logits, target = leave_out_labels(logits, self.labels.target(window), annotated)
            loss = self.loss(logits, target)
            # Slices that nobody annotated have a loss of 0, which says nothing of the network.
            share = (target != IGNORE).float().mean().clamp(min=1e-9) if self.labels.has_ignored else 1.0
            self.evaluator.loss.update(loss, weight=len(logits) * share)

        return self.evaluator.add(batch, add_loss)

    def _list_schedules(self) -> list[Any]:
        return [configured.scheduler for configured in self.trainer.lr_scheduler_configs]

    def _reset_scores(self) -> None:
        self.evaluator.reset(training=self.trainer.state.fn == TrainerFn.FITTING)

    def _summarize(self, stage: Stage) -> None:
        """Merge the tables of all ranks, and log the means."""
        self.evaluator.finish(self.trainer, stage)
        self.log(f"{stage}/loss", self.evaluator.loss)
        for name, mean in self.evaluator.compute_means(self.labels.names):
            self.log(f"{stage}/{name}", mean, prog_bar=name == "dice")
