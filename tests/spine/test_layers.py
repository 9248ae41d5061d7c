"""The light side stays light: planning, gating and the DAGs' modules load no engine."""

import subprocess
import sys

import pytest

LIGHT = (
    "flywheel_core.recipe",
    "flywheel_core.plan",
    "flywheel_core.stages",
    "flywheel_core.store",
    "flywheel_core.release.promotion",
    "flywheel_core.report.build",
    "flywheel_core.cli",
    "flywheel_core.climbing",
    "flywheel_core.doctor",
)
HEAVY = ("torch", "ray", "vllm", "transformers", "trl", "deepspeed", "airflow")


@pytest.mark.parametrize("module", LIGHT)
def test_light_modules_load_no_engine(module: str) -> None:
    code = f"import sys, {module}; print(*(set(sys.modules) & set({HEAVY!r})))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert loaded == []


def test_operators_load_no_engine_before_they_run() -> None:
    engines = HEAVY[:-1]
    code = (
        "import sys, operators.ray_job, operators.ray_trigger, operators.gates, operators.promote;"
        f"print(*(set(sys.modules) & set({engines!r})))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert loaded == []
