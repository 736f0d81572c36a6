"""How long a test waits for another process."""

from __future__ import annotations

HANG_S = 1200.0
"""Whoever takes longer hangs: where a machine has far more to do than it can, the imports alone take minutes.

It is less than the half hour that torch waits for a rank which is lost.
"""
