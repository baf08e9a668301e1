from collections.abc import Iterator

import pytest

from tests.slurm.cluster import Cluster, missing


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of this machine; skips where SLURM is not installed."""
    if reason := missing():
        pytest.skip(reason)
    started = Cluster(tmp_path_factory.mktemp("slurm"))
    yield started
    started.close()
