"""Which cases a person should look at first: signs of each case, then a queue of all of them."""

from medseg_pl.inference.review.evidence import CaseSigns, LabelSigns, Sign, signs_of_prediction, signs_of_reference
from medseg_pl.inference.review.ranking import Queued, picture_name, queue, queue_rows

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
