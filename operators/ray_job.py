"""A stage as a Ray job that survives restarts of everything but itself.

Per try: the artifact is there -> done, without a job; a job of this key is live -> attach; the
last one succeeded without an artifact -> a failure of its own; else submit. Then the task waits
in the triggerer and holds no worker. A job that somebody else stopped, or that a restarted Ray
head forgot, is submitted again without spending a retry. Never two live jobs for a key, never
two commits.
"""

import re
import shlex
import time
from typing import Any

from airflow.sdk import BaseOperator

from flywheel_core.artifacts import is_done, read_manifest
from flywheel_core.budget import Allowance, allowance_of
from flywheel_core.clocks import clock_fault
from flywheel_core.errors import BudgetExceeded, JobError, JobInterrupted, RayUnreachable
from flywheel_core.plan import PinnedPlan, PlannedStage
from flywheel_core.stages import trusted_module
from flywheel_core.store import Store
from operators.config import Site
from operators.failures import cause_in_log, empty_success
from operators.links import RayDashboardLink, job_url
from operators.plans import pinned_plan, pinned_plan_path, recipe_of
from operators.ray_jobs import (
    JobRequest,
    KnownJob,
    LiveJob,
    attach_or_submit,
    known_jobs,
    open_client,
    ray_errors,
    was_interrupted,
)
from operators.ray_trigger import POLL_S, RayAwayTrigger, RayJobTrigger

MAX_RESUBMISSIONS = 10
MAX_AWAY_S = 600.0
"""How long a task waits for a Ray that is away before that is a failure, and costs a try."""


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
        site = Site.from_environment()
        stage = pinned_plan(site, context, nightly=self.nightly).stage(self.stage)
        if is_done(site.store(), stage.ref):
            read_manifest(site.store(), stage.ref)  # an unreadable one is this task's fault to show
            self.log.info("%s is there already: no job needed", stage.ref.path)
            return stage.ref.path
        self._run(site, context, stage, resubmissions=0)
        return stage.ref.path

    def execute_complete(self, context: Any, event: dict[str, Any], resubmissions: int = 0) -> str:
        """The job ended: done if the artifact is there, whatever the job said."""
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
            raise JobError(empty_success(stage, event["submission_id"]))
        raise failure(site, stage, event)

    def execute_again(
        self, context: Any, event: dict[str, Any], resubmissions: int, away_since_s: float
    ) -> None:
        """Ray was away when a job was to be submitted; it is back, or has been away too long."""
        site = Site.from_environment()
        if event["ended"] == "away":
            raise RayUnreachable(event["message"])
        stage = pinned_plan(site, context, nightly=self.nightly).stage(self.stage)
        self._run(site, context, stage, resubmissions=resubmissions, away_since_s=away_since_s)

    def on_kill(self) -> None:
        """Killed between submitting and deferring: the job ends with the task."""
        if self._live is not None:
            address, submission_id = self._live
            open_client(address).stop_job(submission_id)

    def _run(
        self,
        site: Site,
        context: Any,
        stage: PlannedStage,
        *,
        resubmissions: int,
        away_since_s: float | None = None,
    ) -> None:
        """Attach or submit, then defer: this never returns. A Ray that is starting anew is waited
        for, deferred as well: a restarting head is not a failed task, and holds no worker."""
        plan = pinned_plan(site, context, nightly=self.nightly)
        allowance = allowance_of(site.store(), plan, stage, site.policy())
        try:
            job = self._attach_or_submit(site, context, plan, stage, allowance)
        except RayUnreachable as error:
            since_s = away_since_s or time.time()
            self.log.warning("%s. Waiting for it", error)
            self.defer(
                trigger=RayAwayTrigger(
                    address=site.ray_address, until_s=since_s + MAX_AWAY_S, message=str(error)
                ),
                method_name="execute_again",
                kwargs={"resubmissions": resubmissions, "away_since_s": since_s},
            )
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
                submitted_at_s=job.submitted_at_s,
                timeout_s=stage.resources.timeout_s,
                budget_s=allowance.job_s,
                stall_after_s=stage.resources.stall_after_s,
                usage_path=allowance.usage_path(job.submission_id),
                num_gpus=allowance.num_gpus,
                poll_s=self.poll_s,
            ),
            method_name="execute_complete",
            kwargs={"resubmissions": resubmissions},
        )

    def _attach_or_submit(
        self,
        site: Site,
        context: Any,
        plan: PinnedPlan,
        stage: PlannedStage,
        allowance: Allowance,
    ) -> LiveJob:
        path = pinned_plan_path(site, context, nightly=self.nightly)
        # Read before Ray is asked for its jobs: whoever then misses a job has missed its traces
        # too, computes the same number, and is refused.
        past = past_numbers(site.store(), stage, allowance.folder)
        request = job_request(site, plan, stage, path, context, past)
        client = open_client(site.ray_address)
        fault = clock_fault(site.ray_address)
        if fault:
            self.log.warning("%s", fault)
        with ray_errors(site.ray_address):
            _refuse_empty_success(site.store(), stage, known_jobs(client, request.prefix))
            return attach_or_submit(client, request, allowance.require)


def job_prefix(stage: PlannedStage) -> str:
    return f"{stage.name}-{stage.ref.key}"


def log_path(stage: PlannedStage, submission_id: str) -> str:
    """Where a job's whole log lies in the store."""
    return f"{stage.ref.path}/logs/{submission_id}.log"


def past_numbers(store: Store, stage: PlannedStage, usage_folder: str) -> frozenset[int]:
    """Numbers of this stage's jobs that have left a log or a record of use in the store."""
    pattern = re.compile(rf".*/{re.escape(job_prefix(stage))}-(\d+)\.\w+")
    traces = [*store.list(f"{stage.ref.path}/logs"), *store.list(usage_folder)]
    return frozenset(
        int(match.group(1)) for path in traces if (match := pattern.fullmatch(path)) is not None
    )


def job_request(
    site: Site,
    plan: PinnedPlan,
    stage: PlannedStage,
    plan_path: str,
    context: Any,
    past: frozenset[int],
) -> JobRequest:
    """The stage's job: its module, and what it asks of the cluster.

    What could run code comes from the deployment, never from the plan, which lies in the store:
    the module is the stage's own, and the environment that of the recipe as it is deployed now.
    """
    module = trusted_module(stage.name, stage.module, site.stage_modules)
    execution = recipe_of(site, context).execution
    command = ["python", "-m", module, "--store", site.store_root, "--plan", plan_path]
    if site.work_root:
        command += ["--work", site.work_root]
    runtime_env = dict(execution.runtime_env)
    if execution.env:
        runtime_env["env_vars"] = {**runtime_env.get("env_vars", {}), **execution.env}
    return JobRequest(
        prefix=job_prefix(stage),
        entrypoint=shlex.join(command),
        num_cpus=stage.resources.driver_cpus,
        num_gpus=stage.resources.driver_gpus,
        memory_gib=stage.resources.memory_gib,
        runtime_env=runtime_env,
        metadata={
            "flywheel": plan.flywheel,
            "generation": str(plan.generation),
            "stage": stage.name,
            "key": stage.ref.key,
            "dag_id": str(context["ti"].dag_id),
            "run_id": str(context["run_id"]),
        },
        past_numbers=past,
    )


def failure(site: Site, stage: PlannedStage, event: dict[str, Any]) -> JobError:
    """What an on-call engineer reads: what went wrong, where, and what to do. The class says
    whether another try may go through."""
    submission_id = event["submission_id"]
    path = log_path(stage, submission_id)
    kind: type[JobError] = JobError
    stopped = "was stopped" if event.get("stopped") else "could not be stopped: end it by hand"
    if event["ended"] == "deadline":
        cause = f"it took longer than its {stage.resources.timeout_s} s and {stopped}"
    elif event["ended"] == "budget":
        kind = BudgetExceeded
        cause = (
            f"the climb's GPU-hours were used up while it ran, and it {stopped}; raise "
            "gpu_hours_per_climb_max in the release policy, or start a smaller climb"
        )
    elif event["ended"] == "unreachable":
        kind = RayUnreachable
        cause = f"Ray stopped answering at {site.ray_address}: {event.get('message')}"
    elif event["ended"] == "unknown":
        cause = f"Ray forgot the job {MAX_RESUBMISSIONS} times"
    else:
        kind = JobInterrupted if was_interrupted(event) else JobError
        cause = cause_in_log(site.store(), path, event)
    return kind(
        f"{stage.name} (key {stage.ref.key}): {cause} "
        f"[Ray job {submission_id}, whole log {site.store_root}/{path}]. "
        "Mend the cause, then clear this task: finished shards and checkpoints are kept."
    )


def _was_lost(event: dict[str, Any]) -> bool:
    """Stopped by somebody else, or forgotten by a Ray head that was started anew."""
    return event["ended"] == "unknown" or event.get("status") == "STOPPED"


def _how_lost(event: dict[str, Any]) -> str:
    said = "is unknown to Ray, whose head was started anew"
    if event["ended"] != "unknown":
        said = "was stopped, but not by this task"
    return f"Ray job {event['submission_id']} {said}"


def _refuse_empty_success(store: Store, stage: PlannedStage, known: list[KnownJob]) -> None:
    """Report a job that succeeded without an artifact once; then a cleared task submits. (With
    one it succeeded just now: the job that is submitted then finds it and ends.)"""
    if not known or known[-1].status != "SUCCEEDED" or is_done(store, stage.ref):
        return
    if _mark_reported(store, stage, known[-1].submission_id):
        raise JobError(empty_success(stage, known[-1].submission_id))


def _mark_reported(store: Store, stage: PlannedStage, submission_id: str) -> bool:
    """True the first time this job's empty success is seen."""
    return store.put_if_absent(f"{stage.ref.path}/logs/{submission_id}.empty", b"reported\n")
