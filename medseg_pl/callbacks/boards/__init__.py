"""What dashboards show, and what they must not know: one adapter for each that shows more than scalars."""

from medseg_pl.callbacks.boards.allowed import check_wandb
from medseg_pl.callbacks.boards.board import Board
from medseg_pl.callbacks.boards.pictures import Gallery, Picture, worst_cases
from medseg_pl.callbacks.boards.privacy import make_private
from medseg_pl.callbacks.boards.settings import shown_settings
from medseg_pl.callbacks.boards.tensorboard_board import TensorBoardBoard
from medseg_pl.callbacks.boards.wandb_board import WandbBoard
from medseg_pl.io.board_record import BoardRecord

__all__ = [
    "Board",
    "BoardRecord",
    "Gallery",
    "Picture",
    "TensorBoardBoard",
    "WandbBoard",
    "check_wandb",
    "make_private",
    "shown_settings",
    "worst_cases",
]
