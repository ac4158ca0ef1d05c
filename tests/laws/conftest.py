"""What the laws' tests share."""

from collections.abc import Iterator

import pytest

from sheafnet.runtime.ray_cluster import start_private, stop_private


@pytest.fixture(scope="package")
def one_ray() -> Iterator[None]:
    """A Ray that all runs on actors join, which spares each its start and end."""
    start_private()
    yield
    stop_private()
