"""A stage as a Ray job that survives restarts of everything but itself.

Per try: the artifact is there -> done, without a job; a job of this key is live -> attach; the
last one succeeded without an artifact -> a failure of its own; else submit. Then the task waits
in the triggerer and holds no worker. A job that somebody else stopped, or that a restarted Ray
head forgot, is submitted again without spending a retry. Never two live jobs for a key, never
two commits.
"""

import shlex
import time
from typing import Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowException

from flywheel_core.artifacts import is_done
from flywheel_core.errors import StoreError
from flywheel_core.plan import PinnedPlan, PlannedStage
from flywheel_core.store import Store
from operators.config import Site
from operators.links import RayDashboardLink, job_url
from operators.plans import airflow_errors, pinned_plan, pinned_plan_path
from operators.ray_jobs import (
    JobRequest,
    attach_or_submit,
    known_jobs,
    last_error_line,
    last_line,
    open_client,
    open_client_patiently,
)
from operators.ray_trigger import POLL_S, RayJobTrigger

MAX_RESUBMISSIONS = 10


class RayJobOperator(BaseOperator):
    """Runs `stage` of this run's pinned plan on Ray.

    :param stage: name of the stage in the plan.
    :param nightly: take the plan of a nightly run.
    :param poll_s: seconds between two looks at the job.
    """

    ui_color = "#dceeff"
    operator_extra_links = (RayDashboardLink(),)

    def __init__(
        self, *, stage: str, nightly: bool = False, poll_s: float = POLL_S, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.stage = stage
        self.nightly = nightly
        self.poll_s = poll_s
        self.job_url = ""
        self._live: tuple[str, str] | None = None

    def execute(self, context: Any) -> str:
        with airflow_errors():
            site = Site.from_environment()
            stage = pinned_plan(site, context, nightly=self.nightly).stage(self.stage)
            if is_done(site.store(), stage.ref):
                self.log.info("%s is there already: no job needed", stage.ref.path)
                return stage.ref.path
            self._refuse_empty_success(site, stage)
            self._run(site, context, stage, resubmissions=0)
        return stage.ref.path

    def execute_complete(self, context: Any, event: dict[str, Any], resubmissions: int = 0) -> str:
        """The job ended: done if the artifact is there, whatever the job said."""
        with airflow_errors():
            site = Site.from_environment()
            stage = pinned_plan(site, context, nightly=self.nightly).stage(self.stage)
            self.job_url = job_url(site.ray_address, event["submission_id"])
            if is_done(site.store(), stage.ref):
                self.log.info("committed: %s", stage.ref.path)
                return stage.ref.path
            if _was_lost(event) and resubmissions < MAX_RESUBMISSIONS:
                self.log.warning("%s; submitting it again", _how_lost(event))
                self._run(site, context, stage, resubmissions=resubmissions + 1)
            if event.get("status") == "SUCCEEDED":
                _mark_reported(site.store(), stage, event["submission_id"])
                raise AirflowException(_empty_success(stage, event["submission_id"]))
            raise AirflowException(failure_text(site, stage, event))

    def on_kill(self) -> None:
        """Killed between submitting and deferring: the job ends with the task."""
        if self._live is not None:
            address, submission_id = self._live
            open_client(address).stop_job(submission_id)

    def _run(self, site: Site, context: Any, stage: PlannedStage, *, resubmissions: int) -> None:
        """Attach or submit, then defer: this never returns."""
        plan = pinned_plan(site, context, nightly=self.nightly)
        path = pinned_plan_path(site, context, nightly=self.nightly)
        request = job_request(site, plan, stage, path, context)
        client = open_client_patiently(site.ray_address, self.log.warning)
        job = attach_or_submit(client, request)
        self._live = (site.ray_address, job.submission_id)
        self.job_url = job_url(site.ray_address, job.submission_id)
        context["ti"].xcom_push(key=RayDashboardLink().xcom_key, value=self.job_url)
        self.log.info(
            "%s Ray job %s: %s",
            "attached to" if job.attached else "submitted",
            job.submission_id,
            self.job_url,
        )
        self.defer(
            trigger=RayJobTrigger(
                address=site.ray_address,
                submission_id=job.submission_id,
                store_root=site.store_root,
                log_path=log_path(stage, job.submission_id),
                deadline_at_s=(job.started_at_s or time.time()) + stage.resources.timeout_s,
                poll_s=self.poll_s,
            ),
            method_name="execute_complete",
            kwargs={"resubmissions": resubmissions},
        )

    def _refuse_empty_success(self, site: Site, stage: PlannedStage) -> None:
        """Report a job that succeeded without an artifact once; then a cleared task submits."""
        client = open_client_patiently(site.ray_address, self.log.warning)
        known = known_jobs(client, job_prefix(stage))
        newest = known[-1] if known else None
        if newest is None or newest.status != "SUCCEEDED":
            return
        if _mark_reported(site.store(), stage, newest.submission_id):
            raise AirflowException(_empty_success(stage, newest.submission_id))


def job_prefix(stage: PlannedStage) -> str:
    return f"{stage.name}-{stage.ref.key}"


def log_path(stage: PlannedStage, submission_id: str) -> str:
    """Where a job's whole log lies in the store."""
    return f"{stage.ref.path}/logs/{submission_id}.log"


def job_request(
    site: Site, plan: PinnedPlan, stage: PlannedStage, plan_path: str, context: Any
) -> JobRequest:
    """The stage's job: its module, and what it asks of the cluster."""
    command = ["python", "-m", stage.module, "--store", site.store_root, "--plan", plan_path]
    return JobRequest(
        prefix=job_prefix(stage),
        entrypoint=shlex.join(command),
        num_cpus=stage.resources.driver_cpus,
        num_gpus=stage.resources.driver_gpus,
        memory_gib=stage.resources.memory_gib,
        env_vars=plan.parsed_recipe().execution.env,
        metadata={
            "flywheel": plan.flywheel,
            "generation": str(plan.generation),
            "stage": stage.name,
            "key": stage.ref.key,
            "dag_id": str(context["ti"].dag_id),
            "run_id": str(context["run_id"]),
        },
    )


def failure_text(site: Site, stage: PlannedStage, event: dict[str, Any]) -> str:
    """What an on-call engineer reads: what went wrong, where, and what to do."""
    submission_id = event["submission_id"]
    path = log_path(stage, submission_id)
    cause = {
        "deadline": f"it ran longer than its {stage.resources.timeout_s} s and was stopped",
        "unreachable": f"Ray stopped answering at {site.ray_address}: {event.get('message')}",
        "unknown": f"Ray forgot the job {MAX_RESUBMISSIONS} times",
    }.get(event["ended"]) or _cause_in_log(site.store(), path, event)
    return (
        f"{stage.name} (key {stage.ref.key}): {cause} "
        f"[Ray job {submission_id}, whole log {site.store_root}/{path}]. "
        "Mend the cause, then clear this task: finished shards and checkpoints are kept."
    )


def _cause_in_log(store: Store, path: str, event: dict[str, Any]) -> str:
    try:
        log = store.get(path).decode(errors="replace")
    except StoreError:
        log = ""
    said = last_error_line(log) or event.get("message") or last_line(log) or "no message"
    return f"{said} ({event.get('status')})"


def _was_lost(event: dict[str, Any]) -> bool:
    """Stopped by somebody else, or forgotten by a Ray head that was started anew."""
    return event["ended"] == "unknown" or event.get("status") == "STOPPED"


def _how_lost(event: dict[str, Any]) -> str:
    said = "is unknown to Ray, whose head was started anew"
    if event["ended"] != "unknown":
        said = "was stopped, but not by this task"
    return f"Ray job {event['submission_id']} {said}"


def _empty_success(stage: PlannedStage, submission_id: str) -> str:
    return (
        f"{stage.name} (key {stage.ref.key}): Ray job {submission_id} ended as succeeded, but "
        f"there is no {stage.ref.path}/manifest.json. Does the job write to the same store as "
        "Airflow reads? Clear this task to submit it once more."
    )


def _mark_reported(store: Store, stage: PlannedStage, submission_id: str) -> bool:
    """True the first time this job's empty success is seen."""
    return store.put_if_absent(f"{stage.ref.path}/logs/{submission_id}.empty", b"reported\n")
