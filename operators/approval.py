"""The release manager's decision, asked through Airflow's own human-in-the-loop task."""

from datetime import timedelta
from typing import Any

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import Param

from operators.config import Site
from operators.notify import ApprovalWaits
from operators.plans import pinned_plan, pinned_plan_path

AUTOMATED = Param(
    False,
    type="boolean",
    title="Answered by a program",
    description="Programs set this (flywheel climb --approve-as). People leave it off.",
)


class ReleaseApproval(ApprovalOperator):
    """Asks only the policy's release managers, shows every verdict, and never answers itself.

    A rejection is red on purpose. What was shown is bound to the answer by the decision digest
    in the body's last line: `promote` recomputes it from the artifacts.
    """

    def __init__(self, **kwargs: Any) -> None:
        fixed = {
            "subject": "Release this candidate?",
            "body": "",
            "params": {"automated": AUTOMATED},
            "fail_on_reject": True,
            "notifiers": [ApprovalWaits()],
            "retries": 0,
        }
        super().__init__(**{**kwargs, **fixed})

    def execute(self, context: Any) -> Any:
        from flywheel_core.release.case import require_plan_of
        from flywheel_core.release.promotion import question

        site = Site.from_environment()
        policy = site.policy()
        plan = pinned_plan(site, context)
        require_plan_of(plan, pinned_plan_path(site, context))
        asked = question(site.store(), plan, policy, reports=site.home / "reports")
        self.subject = asked.subject
        self.body = asked.body
        self.assigned_users = [{"id": name, "name": name} for name in policy.release_managers]
        self.response_timeout = timedelta(hours=policy.response_timeout_h)
        return super().execute(context)
