"""Threads that end when the work for which they were started does."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager


@contextmanager
def open_thread_pool(workers: int) -> Iterator[ThreadPoolExecutor]:
    """Give a pool of threads that begins nothing more once the block has raised, a Ctrl-C included.

    A `ThreadPoolExecutor` by itself finishes all that was submitted first, of a large data set for hours.
    """
    with ThreadPoolExecutor(max_workers=workers) as pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
