"""What a trainer is doing, for whoever has to say where it failed: it forgets that as soon as it does."""

from __future__ import annotations

from typing import Any, Literal

from lightning.pytorch import Callback

Phase = Literal["preparation", "training", "validation", "test", "prediction"]


class PhaseTracker(Callback):
    """Notes the phase of the batch that is being worked on.

    Attributes:
        phase: `preparation` before the first batch; the end of a phase, where scores are merged, belongs to it.
    """

    def __init__(self) -> None:
        self.phase: Phase = "preparation"

    def on_train_batch_start(self, *_: Any, **__: Any) -> None:
        """Training."""
        self.phase = "training"

    def on_validation_batch_start(self, *_: Any, **__: Any) -> None:
        """Validation, whether of a training or by itself."""
        self.phase = "validation"

    def on_test_batch_start(self, *_: Any, **__: Any) -> None:
        """Test."""
        self.phase = "test"

    def on_predict_batch_start(self, *_: Any, **__: Any) -> None:
        """Prediction."""
        self.phase = "prediction"
