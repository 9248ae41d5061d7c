"""The release manager's decision, asked through Airflow's own human-in-the-loop task."""

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import Param

from operators.config import Site
from operators.notify import ApprovalWaits
from operators.plans import pinned_plan, pinned_plan_path

if TYPE_CHECKING:
    from flywheel_core.release.policy import ReleasePolicy

AUTOMATED = Param(
    False,
    type="boolean",
    title="Answered by a program",
    description="Programs set this (flywheel climb --approve-as). People leave it off.",
)


class AskReleaseManagers(ApprovalOperator):
    """A question that only the policy's release managers may answer, and that never answers itself.

    A rejection is red on purpose.
    """

    question = "Approve?"

    def __init__(self, **kwargs: Any) -> None:
        fixed = {
            "subject": self.question,
            "body": "",
            "params": {"automated": AUTOMATED},
            "fail_on_reject": True,
            "notifiers": [ApprovalWaits()],
            "retries": 0,
        }
        super().__init__(**{**kwargs, **fixed})

    def ask(self, subject: str, body: str, policy: "ReleasePolicy", context: Any) -> Any:
        """Put the question to the managers of `policy`, and wait for the answer."""
        self.subject = subject
        self.body = body
        self.assigned_users = [{"id": name, "name": name} for name in policy.release_managers]
        self.response_timeout = timedelta(hours=policy.response_timeout_h)
        return super().execute(context)


class ReleaseApproval(AskReleaseManagers):
    """Shows every verdict. What was shown is bound to the answer by the decision digest in the
    body's last line: `promote` recomputes it from the artifacts."""

    question = "Release this candidate?"

    def execute(self, context: Any) -> Any:
        from flywheel_core.release.case import require_plan_of
        from flywheel_core.release.promotion import question

        site = Site.from_environment()
        policy = site.policy()
        plan = pinned_plan(site, context)
        require_plan_of(plan, pinned_plan_path(site, context))
        asked = question(site.store(), plan, policy, reports=site.home / "reports")
        return self.ask(asked.subject, asked.body, policy, context)
