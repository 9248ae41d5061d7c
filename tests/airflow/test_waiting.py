"""The wait for traffic and the params of a run, without an Airflow around them."""

import asyncio
import datetime
import logging
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import ParamValidationError

from flywheel_core.errors import ArtifactMissing, StoreError
from flywheel_core.pointers import Pointer
from flywheel_core.stages import STAGES
from flywheel_core.store import LocalStore, open_store
from operators import traffic_trigger
from operators.asked import NIGHTLY_PARAMS, WEEKLY_PARAMS, scheduled_for
from operators.config import Site
from operators.traffic_trigger import TrafficTrigger
from operators.wait import WaitForTraffic

DAYS = [f"2026-01-{day:02d}" for day in range(5, 12)]


def ingest(store: LocalStore, day: str) -> None:
    Pointer(store, "tiny", f"traffic/{day}").append({"ref": {}}, by="me", reason="ingested")


def trigger(
    store: LocalStore, *, timeout_s: float = 20.0, days: list[str] = DAYS, named: Sequence[str] = ()
) -> Any:
    made = TrafficTrigger(
        store_root=store.root,
        flywheel="tiny",
        days=days,
        named=list(named),
        poll_s=0.02,
        deadline_at_s=time.time() + timeout_s,
    )
    made._log = logging.getLogger("trigger")  # Airflow's own goes round what pytest captures
    return made


async def fire(waiting: TrafficTrigger) -> dict[str, Any]:
    events = [event async for event in waiting.run()]
    assert len(events) == 1
    payload: dict[str, Any] = events[0].payload
    return payload


def waits_said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [text for text in caplog.messages if text.startswith("waiting for")]


def test_it_says_what_is_missing_whenever_that_changes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    store = LocalStore(str(tmp_path))
    for day in DAYS[:3] + DAYS[4:5] + DAYS[6:]:
        ingest(store, day)
    arrivals = [threading.Timer(0.3, ingest, (store, DAYS[3]))]
    arrivals += [threading.Timer(0.6, ingest, (store, DAYS[5]))]
    for arrival in arrivals:
        arrival.start()
    assert asyncio.run(fire(trigger(store))) == {"missing": []}
    ingest_by = "`flywheel ingest FILE --flywheel tiny` brings one in"
    assert waits_said(caplog) == [
        f"waiting for 2 of 7 days of traffic: 2026-01-08, 2026-01-10; {ingest_by}",
        f"waiting for 1 of 7 days of traffic: 2026-01-10; {ingest_by}",
    ]


def test_what_the_task_has_named_already_is_not_named_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    store = LocalStore(str(tmp_path))
    assert asyncio.run(fire(trigger(store, timeout_s=0.2, named=DAYS))) == {"missing": DAYS}
    assert waits_said(caplog) == []


def test_when_time_is_up_the_missing_days_are_named(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    for day in DAYS[1:]:
        ingest(store, day)
    assert asyncio.run(fire(trigger(store, timeout_s=0.1))) == {"missing": [DAYS[0]]}


def test_a_store_that_does_not_answer_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    store = LocalStore(str(tmp_path))
    ingest(store, DAYS[0])
    failures = iter([StoreError("down"), StoreError("down")])

    def sometimes(root: str) -> Any:
        for failure in failures:
            raise failure
        return open_store(root)

    monkeypatch.setattr(traffic_trigger, "open_store", sometimes)
    assert asyncio.run(fire(trigger(store, days=DAYS[:1]))) == {"missing": []}
    assert caplog.messages.count("the store does not answer: down") == 1


def test_a_restarted_triggerer_goes_on_from_its_arguments(tmp_path: Path) -> None:
    one = trigger(LocalStore(str(tmp_path)))
    path, arguments = one.serialize()
    assert path == "operators.traffic_trigger.TrafficTrigger"
    assert TrafficTrigger(**arguments).serialize() == one.serialize()


def test_a_wait_in_vain_fails_with_the_days_and_the_next_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(
        store_root=str(tmp_path),
        ray_address="",
        policy_path=tmp_path,
        recipes=Path(__file__).parents[2] / "dags" / "recipes",
        home=tmp_path,
        airflow_api="",
        service_credentials=tmp_path,
    )
    monkeypatch.setattr(Site, "from_environment", staticmethod(lambda: site))
    task = WaitForTraffic(task_id="wait_for_traffic")
    context = {"params": {"recipe": "topical_chat"}}
    with pytest.raises(ArtifactMissing) as failed:
        task.execute_complete(context, {"missing": DAYS[:2]}, DAYS)
    assert str(failed.value) == (
        "2 of 7 days of traffic did not come within 20 h: 2026-01-05, 2026-01-06. Run `flywheel "
        "ingest FILE --flywheel topical` for them, then clear this task"
    )
    assert task.execute_complete(context, {"missing": []}, DAYS) == DAYS


@pytest.mark.parametrize(
    ("run_type", "expected"),
    [("scheduled", "2026-01-11"), ("backfill", "2026-01-11"), ("manual", None)],
)
def test_only_a_scheduled_run_stands_for_a_date(run_type: str, expected: str | None) -> None:
    date = datetime.datetime(2026, 1, 11, tzinfo=datetime.UTC)
    run = SimpleNamespace(run_type=SimpleNamespace(value=run_type), logical_date=date)
    found = scheduled_for({"dag_run": run})
    assert (str(found) if found else None) == expected


@pytest.mark.parametrize(
    ("params", "name", "good", "bad"),
    [
        (WEEKLY_PARAMS, "week_ending", [None, "2026-01-11"], ["11 January", "2026-13-01", 7]),
        (NIGHTLY_PARAMS, "day", [None, "2026-01-11"], ["yesterday"]),
        (WEEKLY_PARAMS, "start_from", [None, *STAGES], ["gates", ""]),
        (
            WEEKLY_PARAMS,
            "checkpoint",
            [None, "tiny/gen-0007/rl/0123456789abcdef"],
            ["../gen-0007/rl/0123", "s3://bucket/model", "tiny/rl/0123", ""],
        ),
        (WEEKLY_PARAMS, "dry_run", [True, False], ["yes", None]),
    ],
)
def test_the_form_refuses_what_is_not_allowed(
    params: dict[str, Any], name: str, good: list[Any], bad: list[Any]
) -> None:
    for value in good:
        assert params[name].resolve(value) == value
    for value in bad:
        with pytest.raises(ParamValidationError):
            params[name].resolve(value)


@pytest.mark.parametrize("value", ["0", "-1", "soon", "nan", "inf"])
def test_a_wait_that_is_no_time_is_named(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from flywheel_core.errors import ConfigError

    for name in ("HOME", "STORE", "RAY_ADDRESS", "POLICY", "AIRFLOW_API", "SERVICE_CREDENTIALS"):
        monkeypatch.setenv(f"FLYWHEEL_{name}", "x")
    assert Site.from_environment().wait_timeout_h == 20
    monkeypatch.setenv("FLYWHEEL_WAIT_TIMEOUT_H", value)
    with pytest.raises(ConfigError, match="FLYWHEEL_WAIT_TIMEOUT_H"):
        Site.from_environment()
