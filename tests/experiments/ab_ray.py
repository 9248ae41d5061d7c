"""The aggregation on Ray, in a process of its own, because a process joins one Ray only.

`python -m tests.experiments.ab_ray EXPOSURES EVENTS FOLDER` prints, as one line of JSON, the sums
and what the command line says on the same Ray.
"""

import json
import sys
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from flywheel_core.cli import app
from flywheel_core.engines.config import ExecutorConfig
from flywheel_core.engines.ray_executor import RayDataExecutor
from flywheel_core.experiments.aggregate import open_log
from flywheel_core.experiments.analyze import window_of
from flywheel_core.experiments.config import GuardrailConfig, ReadoutConfig
from flywheel_core.experiments.spread import spread
from flywheel_core.experiments.users import Sums

CONFIG = ReadoutConfig(guardrails=(GuardrailConfig(column="reports"),), with_bootstrap=True)
RAY = ExecutorConfig(kind="ray_data", num_workers=2, object_store_gib=0.125)


def canonical(sums: Sums) -> dict[str, Any]:
    """Sums as JSON, the same for the same sums."""
    return {
        "moments": [
            [repr(cell), [[int(one) for one in row] for row in matrix]]
            for cell, matrix in sorted(sums.moments.items())
        ],
        "counts": sorted([list(key), count] for key, count in sums.counts.items() if count),
        "histogram": sorted([list(key), count] for key, count in sums.histogram.items()),
    }


def main(exposures: Path, events: Path, folder: Path) -> dict[str, Any]:
    logs = open_log("exposures", exposures), open_log("events", events, ["reports"])
    sums = spread(
        *logs,
        window_of(*logs, CONFIG),
        executor=RayDataExecutor(RAY),
        folder=folder / "sums",
        num_partitions=4,
        progress=lambda done, total, what="": None,
    )
    command = ["ab", "analyze", "--exposures", str(exposures), "--events", str(events), "--json"]
    told = CliRunner().invoke(app, [*command, "--ray-folder", str(folder / "told")])
    return {"sums": canonical(sums), "told": json.loads(told.stdout)}


if __name__ == "__main__":
    print(json.dumps(main(*(Path(one) for one in sys.argv[1:4]))))
