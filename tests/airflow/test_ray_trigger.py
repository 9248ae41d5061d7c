"""The trigger and the rule of one live job a key, against a fake of Ray's job server."""

import asyncio
import dataclasses
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from flywheel_core.errors import RayUnreachable, StoreFull
from flywheel_core.jobs import failures
from flywheel_core.store import LocalStore
from operators import ray_jobs, ray_trigger
from operators.failures import cause_in_log, last_error_line
from operators.ray_jobs import (
    SUBMITTED_AT,
    JobRequest,
    attach_or_submit,
    open_client,
    was_interrupted,
)
from operators.ray_trigger import RayAwayTrigger, RayJobTrigger
from operators.retries import RetryByKind

REQUEST = JobRequest(prefix="rl-0123456789abcdef", entrypoint="python -m x")


@dataclass
class FakeJob:
    submission_id: str
    status: str
    start_time: int | None = 1_000_000
    end_time: int | None = 1_003_000
    message: str = ""
    metadata: dict[str, str] | None = None
    driver_exit_code: int | None = None
    error_type: str | None = None


@dataclass
class FakeRay:
    """Ray's job server in a dictionary. `script` is what get_job_info does, call by call."""

    jobs: dict[str, FakeJob] = field(default_factory=dict)
    script: list[Any] = field(default_factory=list)
    log: str = ""
    stopped: list[str] = field(default_factory=list)
    submitted: list[dict[str, Any]] = field(default_factory=list)
    hidden: set[str] = field(default_factory=set)

    def submit_job(self, *, entrypoint: str, submission_id: str, **options: Any) -> str:
        if submission_id in self.jobs:
            self.hidden.discard(submission_id)
            raise RuntimeError(f"Job with submission_id {submission_id} already exists.")
        self.jobs[submission_id] = FakeJob(
            submission_id, "PENDING", metadata=options.get("metadata")
        )
        self.submitted.append({"entrypoint": entrypoint, "submission_id": submission_id, **options})
        return submission_id

    def list_jobs(self) -> list[FakeJob]:
        return [job for name, job in self.jobs.items() if name not in self.hidden]

    def get_job_info(self, job_id: str) -> FakeJob:
        step = self.script.pop(0) if self.script else self.jobs[job_id].status
        if isinstance(step, Exception):
            raise step
        self.jobs[job_id].status = step
        return self.jobs[job_id]

    def get_job_logs(self, job_id: str) -> str:
        return self.log

    def stop_job(self, job_id: str) -> bool:
        self.stopped.append(job_id)
        self.jobs[job_id].status = "STOPPED"
        self.script.clear()
        return True

    async def tail_job_logs(self, job_id: str) -> AsyncIterator[str]:
        for line in self.log.splitlines(keepends=True):
            yield line


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    fake = FakeRay(jobs={"rl-0-1": FakeJob("rl-0-1", "RUNNING")})
    monkeypatch.setattr(ray_trigger, "open_client", lambda address: fake)
    return fake


def trigger(store: Path, **changes: Any) -> RayJobTrigger:
    arguments = {
        "address": "http://nowhere",
        "submission_id": "rl-0-1",
        "store_root": str(store),
        "log_path": "tiny/logs/rl-0-1.log",
        "submitted_at_s": time.time(),
        "timeout_s": 60,
        "budget_s": None,
        "stall_after_s": 60,
        "usage_path": "tiny/usage/p/rl-0-1.json",
        "num_gpus": 8,
        "poll_s": 0.01,
        "max_poll_failures": 3,
    }
    return RayJobTrigger(**{**arguments, **changes})


def fire(wanted: RayJobTrigger | RayAwayTrigger) -> dict[str, Any]:
    async def first() -> dict[str, Any]:
        async for event in wanted.run():
            return dict(event.payload)
        raise AssertionError("the trigger fired nothing")

    return asyncio.run(first())


@pytest.mark.parametrize("status", ["SUCCEEDED", "FAILED", "STOPPED"])
def test_fires_when_the_job_ends(ray: FakeRay, tmp_path: Path, status: str) -> None:
    ray.script = ["PENDING", "RUNNING", status]
    event = fire(trigger(tmp_path))
    assert (event["ended"], event["status"], event["submission_id"]) == (
        "finished",
        status,
        "rl-0-1",
    )


def test_survives_a_few_lost_polls(ray: FakeRay, tmp_path: Path) -> None:
    ray.script = [ConnectionError("no"), ConnectionError("no"), "RUNNING", ConnectionError("no")]
    ray.script += ["SUCCEEDED"]
    assert fire(trigger(tmp_path))["status"] == "SUCCEEDED"


def test_gives_up_when_ray_stays_away(ray: FakeRay, tmp_path: Path) -> None:
    ray.script = [ConnectionError("connection refused")] * 3
    event = fire(trigger(tmp_path))
    assert (event["ended"], event["message"]) == ("unreachable", "connection refused")


def test_a_restarted_head_has_forgotten_the_job(ray: FakeRay, tmp_path: Path) -> None:
    ray.script = ["RUNNING", RuntimeError("Request failed: Job rl-0-1 does not exist")]
    assert fire(trigger(tmp_path))["ended"] == "unknown"


def test_stops_the_job_at_its_deadline(ray: FakeRay, tmp_path: Path) -> None:
    event = fire(trigger(tmp_path, submitted_at_s=time.time() - 61))
    assert (event["ended"], event["stopped"]) == ("deadline", True)
    assert ray.stopped == ["rl-0-1"]


def test_a_persons_kill_stops_the_job(ray: FakeRay, tmp_path: Path) -> None:
    asyncio.run(trigger(tmp_path).on_kill())
    assert ray.stopped == ["rl-0-1"]


def test_the_whole_log_is_kept_and_shown_once(
    ray: FakeRay, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ray.log = "one\ntwo\nprogress: 1/9\rprogress: 9/9\nerror: boom"
    ray.script = ["RUNNING", "FAILED"]
    store = LocalStore(str(tmp_path))
    store.put("tiny/logs/rl-0-1.log", b"one\n")  # what a triggerer before this one had kept
    wanted = trigger(tmp_path)
    shown: list[str] = []
    wanted.log.info = lambda form, *args: shown.append(form % args)  # type: ignore[method-assign]
    fire(wanted)
    assert shown == ["two", "progress: 9/9", "error: boom"]
    assert store.get("tiny/logs/rl-0-1.log").decode() == ray.log
    assert last_error_line(ray.log) == "boom"


def test_its_arguments_are_all_there_is(tmp_path: Path) -> None:
    path, arguments = trigger(tmp_path).serialize()
    assert path == "operators.ray_trigger.RayJobTrigger"
    assert RayJobTrigger(**arguments).serialize() == (path, arguments)


def test_numbers_follow_the_jobs_that_ended() -> None:
    names = [f"{REQUEST.prefix}-{n}" for n in (1, 2, 10)]
    ray = FakeRay(jobs={name: FakeJob(name, "FAILED") for name in names})
    assert attach_or_submit(ray, REQUEST).submission_id == f"{REQUEST.prefix}-11"


def test_attaches_to_a_live_job() -> None:
    name = f"{REQUEST.prefix}-3"
    metadata = {SUBMITTED_AT: "5000.0"}
    ray = FakeRay(jobs={name: FakeJob(name, "RUNNING", metadata=metadata)})
    job = attach_or_submit(ray, REQUEST)
    # Airflow's clock when it submitted, whatever Ray's said at the time.
    assert (job.submission_id, job.attached, job.submitted_at_s) == (name, True, 5000.0)
    assert not ray.submitted


def test_losing_the_race_means_attaching() -> None:
    name = f"{REQUEST.prefix}-1"
    ray = FakeRay(jobs={name: FakeJob(name, "RUNNING")}, hidden={name})
    assert attach_or_submit(ray, REQUEST).attached
    assert not ray.submitted


def test_another_keys_jobs_do_not_count() -> None:
    other = "rl-0123456789abcdef0-1"
    ray = FakeRay(jobs={other: FakeJob(other, "RUNNING")})
    assert attach_or_submit(ray, REQUEST).submission_id == f"{REQUEST.prefix}-1"


def test_resources_pass_through() -> None:
    ray = FakeRay()
    environment = {"env_vars": {"A": "b"}, "pip": ["six"]}
    request = JobRequest("a-b", "python", 2, 1, 0.5, environment, {"stage": "rl"})
    attach_or_submit(ray, request)
    assert ray.submitted[0]["entrypoint"] == "python --job a-b-1"
    assert ray.submitted[0]["entrypoint_num_cpus"] == 2
    assert ray.submitted[0]["entrypoint_num_gpus"] == 1
    assert ray.submitted[0]["entrypoint_memory"] == 2**29
    assert ray.submitted[0]["runtime_env"] == environment
    assert ray.submitted[0]["metadata"]["stage"] == "rl"
    assert float(ray.submitted[0]["metadata"][SUBMITTED_AT]) == pytest.approx(time.time(), abs=60)


def test_a_fresh_head_does_not_give_an_old_jobs_number_again() -> None:
    request = dataclasses.replace(REQUEST, past_numbers=frozenset({1, 4}))
    assert attach_or_submit(FakeRay(), request).submission_id == f"{REQUEST.prefix}-5"


@pytest.mark.parametrize(
    ("ended", "interrupted"),
    [
        ({"driver_exit_code": 1}, False),
        ({"driver_exit_code": 2}, False),
        ({"driver_exit_code": 75}, True),
        ({"driver_exit_code": -9}, True),
        ({"driver_exit_code": 137}, True),
        ({"driver_exit_code": None, "error_type": "JOB_SUPERVISOR_ACTOR_DIED"}, True),
        ({"driver_exit_code": None, "error_type": "RUNTIME_ENV_SETUP_FAILURE"}, False),
    ],
)
def test_what_another_try_may_mend(ended: dict[str, Any], interrupted: bool) -> None:
    assert was_interrupted(ended) is interrupted


def usage(folder: Path) -> dict[str, float]:
    return dict(json.loads(LocalStore(str(folder)).get("tiny/usage/p/rl-0-1.json")))


def test_what_the_job_used_is_recorded_from_when_it_ran(ray: FakeRay, tmp_path: Path) -> None:
    ray.script = ["PENDING", "RUNNING", "SUCCEEDED"]
    fire(trigger(tmp_path, submitted_at_s=time.time() - 50))
    assert usage(tmp_path)["gpu_hours"] == pytest.approx(0, abs=8 * 5 / 3600)


def test_a_triggerer_that_saw_no_start_counts_from_the_submission(
    ray: FakeRay, tmp_path: Path
) -> None:
    ray.script = ["RUNNING", "SUCCEEDED"]
    fire(trigger(tmp_path, submitted_at_s=time.time() - 50))
    assert usage(tmp_path)["gpu_hours"] == pytest.approx(8 * 50 / 3600, rel=0.1)


def test_a_job_that_only_waited_used_nothing(ray: FakeRay, tmp_path: Path) -> None:
    ray.script = ["PENDING", "FAILED"]
    fire(trigger(tmp_path, submitted_at_s=time.time() - 50))
    assert usage(tmp_path)["gpu_hours"] == pytest.approx(0, abs=8 / 3600)


def test_a_job_that_may_live_on_is_not_counted_yet(ray: FakeRay, tmp_path: Path) -> None:
    ray.script = ["RUNNING", *[ConnectionError("no")] * 3]
    assert fire(trigger(tmp_path))["ended"] == "unreachable"
    assert not (tmp_path / "tiny/usage/p/rl-0-1.json").exists()


def test_a_job_that_ended_while_nobody_looked_is_not_called_late(
    ray: FakeRay, tmp_path: Path
) -> None:
    ray.script = ["FAILED"]
    event = fire(trigger(tmp_path, submitted_at_s=time.time() - 3600))
    assert (event["ended"], event["status"]) == ("finished", "FAILED")
    assert ray.stopped == []


def test_a_store_that_takes_no_log_does_not_lose_the_sentence(
    ray: FakeRay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: LocalStore, path: str, data: bytes) -> None:
        raise StoreFull("no space left")

    monkeypatch.setattr(LocalStore, "put", refuse)
    monkeypatch.setattr(LocalStore, "put_if_absent", refuse)
    ray.log = "start\nerror: no space is left on the job's machine\n"
    ray.script = ["RUNNING", "FAILED"]
    event = fire(trigger(tmp_path))
    assert event["ended"] == "finished"
    said = cause_in_log(LocalStore(str(tmp_path)), "tiny/logs/rl-0-1.log", event)
    assert said == "no space is left on the job's machine (FAILED)"


def test_a_shorter_log_never_replaces_a_longer_one(ray: FakeRay, tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    store.put("tiny/logs/rl-0-1.log", b"a long log of the head before\n")
    ray.log = "short\n"
    ray.script = ["FAILED"]
    fire(trigger(tmp_path))
    assert store.get("tiny/logs/rl-0-1.log") == b"a long log of the head before\n"


def test_the_budget_stops_a_running_job_and_not_a_waiting_one(ray: FakeRay, tmp_path: Path) -> None:
    ray.script = ["PENDING"] * 20 + ["RUNNING"] * 10_000
    event = fire(trigger(tmp_path, submitted_at_s=time.time() - 50, budget_s=0.3))
    assert event["ended"] == "budget"
    assert ray.stopped == ["rl-0-1"]
    assert usage(tmp_path)["running_s"] == pytest.approx(0.3, abs=3)


@dataclass
class QuietRay(FakeRay):
    """A job that says something once, and then nothing, or only what is no progress."""

    chatter: str = ""

    async def tail_job_logs(self, job_id: str) -> AsyncIterator[str]:
        yield "progress: shards 1/9\n"
        while True:
            await asyncio.sleep(0.05)
            yield self.chatter


@pytest.mark.parametrize("chatter", ["", "WARNING: slow\n"])
def test_a_stall_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, chatter: str) -> None:
    fake = QuietRay(jobs={"rl-0-1": FakeJob("rl-0-1", "RUNNING")}, chatter=chatter)
    monkeypatch.setattr(ray_trigger, "open_client", lambda address: fake)
    monkeypatch.setattr(ray_trigger, "LOG_TAIL_GRACE_S", 0.1)
    told: list[str] = []
    monkeypatch.setattr("operators.notify.tell", lambda subject, body, log: told.append(body))
    fire(trigger(tmp_path, stall_after_s=0.4, timeout_s=1.5))
    assert 1 <= len(told) <= 4
    assert "no progress" in told[0]
    assert (chatter.strip() or "progress: shards 1/9") in told[0]


def test_progress_is_no_stall(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = QuietRay(jobs={"rl-0-1": FakeJob("rl-0-1", "RUNNING")}, chatter="progress: shards 2/9\n")
    monkeypatch.setattr(ray_trigger, "open_client", lambda address: fake)
    monkeypatch.setattr(ray_trigger, "LOG_TAIL_GRACE_S", 0.1)
    told: list[str] = []
    monkeypatch.setattr("operators.notify.tell", lambda subject, body, log: told.append(body))
    fire(trigger(tmp_path, stall_after_s=0.4, timeout_s=1.5))
    assert told == []


def test_a_ray_that_is_away_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[Any] = [RayUnreachable("no"), RuntimeError("status code 503"), FakeRay()]

    def open_or_raise(address: str) -> FakeRay:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[no-any-return]

    monkeypatch.setattr(ray_trigger, "open_client", open_or_raise)
    waiting = {"address": "http://nowhere", "message": "Ray is away", "poll_s": 0.01}
    assert fire(RayAwayTrigger(until_s=time.time() + 60, **waiting)) == {"ended": "back"}
    assert not answers
    late = fire(RayAwayTrigger(until_s=time.time() - 1, **waiting))
    assert late == {"ended": "away", "message": "Ray is away"}


def test_an_unreachable_ray_says_where_it_should_be() -> None:
    with pytest.raises(RayUnreachable, match=r"http://127\.0\.0\.1:9 .*FLYWHEEL_RAY_ADDRESS"):
        open_client("http://127.0.0.1:9")


@pytest.mark.parametrize(
    ("log", "said"),
    [
        ("start\nerror: lr nan: must be above 0\n", "lr nan: must be above 0"),
        (
            "python: Error while finding module specification for 'flywheel_core.jobs.sft' "
            "(ModuleNotFoundError: No module named 'flywheel_core')\n",
            "the cluster's image has no module 'flywheel_core'",
        ),
        ("half a line", "its driver was killed by signal 9"),
        ("WARNING: No module named 'vllm._C'\nhalf a line", "its driver was killed by signal 9"),
        ("WARNING: No module named 'vllm._C'\n" + "step\n" * 9, "Job entrypoint command failed"),
    ],
)
def test_the_cause_in_one_sentence(tmp_path: Path, log: str, said: str) -> None:
    store = LocalStore(str(tmp_path))
    store.put("a.log", log.encode())
    event = {
        "status": "FAILED",
        "driver_exit_code": -9 if "half" in log else 1,
        "message": "Job entrypoint command failed with exit code 1, last logs:\nstep",
    }
    assert cause_in_log(store, "a.log", event).startswith(said)


def test_both_sides_name_the_same_exit_code() -> None:
    assert ray_jobs.EXIT_TRANSIENT == failures.EXIT_TRANSIENT


@pytest.mark.parametrize(
    ("try_number", "max_tries", "delay_s"), [(1, 4, 15), (2, 4, 30), (4, 4, 120), (9, 12, 15)]
)
def test_the_back_off_starts_anew_after_a_clear(
    try_number: int, max_tries: int, delay_s: float
) -> None:
    decision = RetryByKind().evaluate(RayUnreachable("no"), try_number, max_tries)
    assert decision.retry_delay == timedelta(seconds=delay_s)
