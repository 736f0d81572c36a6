"""Which cases a person should look at first: signs of each case, then a queue of all of them."""

from medseg_pl.inference.review.queue import Queued, picture_name, queue, queue_rows
from medseg_pl.inference.review.signs import CaseSigns, LabelSigns, Sign, signs_of_prediction, signs_of_reference

__all__ = [
    "CaseSigns",
    "LabelSigns",
    "Queued",
    "Sign",
    "picture_name",
    "queue",
    "queue_rows",
    "signs_of_prediction",
    "signs_of_reference",
]
