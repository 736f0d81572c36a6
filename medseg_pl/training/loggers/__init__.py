"""What dashboards show, and what they must not know: one adapter for each that shows more than scalars."""

from medseg_pl.io.pseudonyms import Pseudonyms
from medseg_pl.training.loggers.allowed import check_wandb
from medseg_pl.training.loggers.board import Board
from medseg_pl.training.loggers.hyperparameters import shown_settings
from medseg_pl.training.loggers.images import ImageBuffer, Picture, worst_cases
from medseg_pl.training.loggers.privacy import make_private
from medseg_pl.training.loggers.tensorboard import TensorBoardBoard
from medseg_pl.training.loggers.wandb import WandbBoard

__all__ = [
    "Board",
    "ImageBuffer",
    "Picture",
    "Pseudonyms",
    "TensorBoardBoard",
    "WandbBoard",
    "check_wandb",
    "make_private",
    "shown_settings",
    "worst_cases",
]
