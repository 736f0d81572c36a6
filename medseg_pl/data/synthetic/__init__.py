"""Synthetic abdominal MRI: volumes to try every command on, without a patient in them.

Lengths are in *body units*: 1 is about half the width of a trunk (some 15 cm). Axes are `(z, y, x)`: z points to
the head, y to the back, x to the patient's left, so that the liver is on the left of the picture. The trunk always
fills the picture and the organs always fill the stack, whatever the shape.
"""

from medseg_pl.data.synthetic.anatomy import ORGANS, PEAKS
from medseg_pl.data.synthetic.scan import Phantom, merge_exclusive, simulate_abdomen, simulate_days

__all__ = ["ORGANS", "PEAKS", "Phantom", "merge_exclusive", "simulate_abdomen", "simulate_days"]
