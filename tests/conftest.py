"""How the suite is shared between two workers.

A file stays on one worker, and everything under `tests/airflow` is one piece of work, so that
there is one Airflow and one Ray head a session; `tests/chaos` is another, with a stack of its own
that it kills. (xdist's own `loadgroup` marks node ids in a way
that pytest 9 no longer reads.)
"""

from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

PIECES = {"tests/airflow/": "airflow", "tests/chaos/": "chaos"}


class ByPiece(LoadScopeScheduling):  # type: ignore[misc]
    """Scopes are files, but for the folders that share a running stack."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.split("::", 1)[0]
        found = (piece for folder, piece in PIECES.items() if path.startswith(folder))
        return next(found, path)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByPiece:
    return ByPiece(config, log)
