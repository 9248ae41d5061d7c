"""The trigger and the rule of one live job a key, against a fake of Ray's job server."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from flywheel_core.store import LocalStore
from operators import ray_trigger
from operators.ray_jobs import JobRequest, attach_or_submit, last_error_line
from operators.ray_trigger import RayJobTrigger

REQUEST = JobRequest(prefix="rl-0123456789abcdef", entrypoint="python -m x")


@dataclass
class FakeJob:
    submission_id: str
    status: str
    start_time: int | None = 1_000_000
    message: str = ""


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
        self.jobs[submission_id] = FakeJob(submission_id, "PENDING")
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
        "deadline_at_s": time.time() + 60,
        "poll_s": 0.01,
        "max_poll_failures": 3,
    }
    return RayJobTrigger(**{**arguments, **changes})


def fire(wanted: RayJobTrigger) -> dict[str, Any]:
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
    event = fire(trigger(tmp_path, deadline_at_s=time.time() - 1))
    assert event["ended"] == "deadline"
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
    ray = FakeRay(jobs={name: FakeJob(name, "RUNNING")})
    job = attach_or_submit(ray, REQUEST)
    assert (job.submission_id, job.attached, job.started_at_s) == (name, True, 1000.0)
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
    request = JobRequest("a-b", "python", 2, 1, 0.5, {"A": "b"}, {"stage": "rl"})
    attach_or_submit(ray, request)
    assert ray.submitted[0]["entrypoint_num_cpus"] == 2
    assert ray.submitted[0]["entrypoint_num_gpus"] == 1
    assert ray.submitted[0]["entrypoint_memory"] == 2**29
    assert ray.submitted[0]["runtime_env"] == {"env_vars": {"A": "b"}}
    assert ray.submitted[0]["metadata"] == {"stage": "rl"}
