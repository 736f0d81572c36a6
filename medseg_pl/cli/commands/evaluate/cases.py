"""One function over many cases, several at a time; what is wrong with some of them does not stop the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from medseg_pl.cli.commands.evaluate.mask_pairs import MaskPair
from medseg_pl.core.errors import DataError
from medseg_pl.core.threads import thread_pool
from medseg_pl.io.progress import progress_bar

T = TypeVar("T")

_FAULTS_SHOWN = 5


def of_each(pairs: Sequence[MaskPair], function: Callable[[MaskPair], T], workers: int, doing: str) -> list[T]:
    """What a function gives for each pair, in the order of the pairs, with a bar on the terminal if there is one.

    Raises:
        DataError: Some cases cannot be used; the others are tried before it is raised.
    """
    # Threads: of volumes of 256 x 256 x 64 two of them score half as many again as one, as two processes do. With
    # small volumes (hippocampus, 5 ms a case) they gain nothing, but processes would import torch first, which takes
    # as long as a thousand such cases.
    results: list[T] = []
    faults: list[DataError] = []
    with thread_pool(workers) as pool, progress_bar(doing, len(pairs)) as advance:
        for future in [pool.submit(function, pair) for pair in pairs]:
            try:
                results.append(future.result())
            except DataError as error:
                faults.append(error)
            advance()
    if faults:
        raise DataError(_all_faults(faults, len(pairs)))
    return results


def _all_faults(faults: Sequence[DataError], cases: int) -> str:
    """One paragraph: the first faults in their own words."""
    sentences = [str(fault) for fault in faults[:_FAULTS_SHOWN]]
    if len(faults) > _FAULTS_SHOWN:
        sentences.append(f"And {len(faults) - _FAULTS_SHOWN} more.")
    if any("labels.values" in sentence for sentence in sentences):
        sentences.append(
            "Here --labels 4=tumour gives labels.names and labels.values, and --ignore_value is labels.ignore_value."
        )
    return f"{len(faults)} of {cases} cases cannot be scored, and nothing was written. {' '.join(sentences)}"
