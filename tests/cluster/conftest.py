"""One cluster for all tests that need one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster.slurm import MissingProgramsError, SlurmCluster, slurm_cluster


@pytest.fixture(scope="session")
def cluster() -> Iterator[SlurmCluster]:
    """Two idle nodes on this machine."""
    try:
        with slurm_cluster() as started:
            yield started
    except MissingProgramsError as error:
        pytest.skip(str(error))
