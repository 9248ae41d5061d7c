"""One Airflow task per gate, so that the red box is the reason."""

from typing import Any

from airflow.sdk import BaseOperator

from operators.config import Site
from operators.plans import pinned_plan

GATE_NAMES = (
    "rm_win_rate",
    "rm_divergence",
    "improvement",
    "safety",
    "benchmarks",
    "artifacts",
    "data",
)
"""`release.gates.GATES` by name, so that parsing a DAG does not load numpy; a test compares."""


class GateTask(BaseOperator):
    """Commits the verdict of one gate on this run's evaluation; fails where it blocks."""

    ui_color = "#fdf3d8"

    def __init__(self, *, gate: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.gate = gate

    def execute(self, context: Any) -> dict[str, Any]:
        from flywheel_core.release.gates import require_passing
        from flywheel_core.release.verdicts import run_and_commit_gate

        site = Site.from_environment()
        plan = pinned_plan(site, context)
        verdict = run_and_commit_gate(site.store(), plan, self.gate, site.policy())
        for name, value in sorted(verdict.evidence.items()):
            self.log.info("%s = %s", name, value)
        self.log.info("%s: %s. %s", verdict.gate, verdict.outcome, verdict.reason)
        require_passing(verdict)
        return {"outcome": verdict.outcome, "reason": verdict.reason}
