"""Links from a task to where its work is seen."""

from typing import Any

import attrs
from airflow.sdk import BaseOperatorLink


def job_url(dashboard: str, submission_id: str) -> str:
    """The Ray dashboard at one job."""
    return f"{dashboard.rstrip('/')}/#/jobs/{submission_id}"


@attrs.define()
class RayDashboardLink(BaseOperatorLink):
    """Opens the Ray dashboard at the task's job; empty where no job was needed."""

    name = "Ray job"

    @property
    def xcom_key(self) -> str:
        return "ray_job_url"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        return str(getattr(operator, "job_url", "") or "")
