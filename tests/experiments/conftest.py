"""What several tests of experiments start from."""

from pathlib import Path

import pytest
from ab_store import open_store

from flywheel_core.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Production and an open experiment; nobody has been exposed."""
    return open_store(tmp_path)
