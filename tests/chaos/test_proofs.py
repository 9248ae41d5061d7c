"""The proofs catch what they are there to catch."""

from pathlib import Path

from flywheel_core.store import LocalStore
from tests.chaos import proofs
from tests.chaos.killer import Kill, plan_kills
from tests.chaos.targets import TARGETS
from tests.chaos.watcher import DriverLife, Watcher

KEY = "0123456789abcdef"


def event(name: str, pid: int, number: int = -1, stage: str = "chaos_generate") -> proofs.Event:
    return {"event": name, "pid": pid, "number": number, "stage": stage, "key": KEY}


def shards(pid: int, first: int, last: int) -> list[proofs.Event]:
    return [event("started", pid), *(event("begun", pid, n) for n in range(first, last + 1))]


def watcher(tmp_path: Path, *lives: DriverLife) -> Watcher:
    found = Watcher(LocalStore(str(tmp_path)))
    found.lives = {(life.key, life.pid): life for life in lives}
    return found


def test_a_resume_that_repeats_one_shard_is_allowed_and_two_are_not() -> None:
    allowed = [*shards(1, 0, 9), *shards(2, 9, 23)]
    assert not list(proofs.little_work_is_repeated(allowed))
    (violation,) = proofs.little_work_is_repeated([*shards(1, 0, 9), *shards(2, 8, 23)])
    assert violation.kind == proofs.REPEATED_WORK
    assert "process 2 made 2 shards again" in violation.said


def test_work_that_was_never_done_is_seen() -> None:
    (violation,) = proofs.little_work_is_repeated([*shards(1, 0, 9), *shards(2, 11, 23)])
    assert violation.kind == proofs.WRONG_END_STATE
    assert "{10}" in violation.said


def test_an_old_driver_that_writes_after_its_successor_began_is_a_duplicate(
    tmp_path: Path,
) -> None:
    apart = [*shards(1, 0, 9), *shards(2, 9, 23)]
    assert not list(proofs.never_two_jobs(apart, watcher(tmp_path)))
    mixed = [*apart, event("done", 1, 9)]
    (violation,) = proofs.never_two_jobs(mixed, watcher(tmp_path))
    assert violation.kind == proofs.DUPLICATE_JOB
    assert "process 1 wrote 'done' 9 after its successor 2 had begun" in violation.said


def test_two_drivers_seen_at_once_are_a_duplicate(tmp_path: Path) -> None:
    found = watcher(tmp_path)
    found.overlaps[KEY] = {1, 2}
    (violation,) = proofs.never_two_jobs([], found)
    assert "drivers [1, 2] were alive at once" in violation.said


def test_a_driver_that_nobody_killed_and_that_made_nothing_is_seen(tmp_path: Path) -> None:
    life = DriverLife(KEY, 7, first_s=100.0, last_s=110.0)
    killed = Kill(1, "driver", 110.1, (7,))
    other = Kill(2, "scheduler", 110.1, (8,))
    found = watcher(tmp_path, life)
    assert not list(proofs.only_kills_end_jobs([], found, [killed]))
    assert not list(proofs.only_kills_end_jobs([event("output", 7)], found, []))
    (violation,) = proofs.only_kills_end_jobs([], found, [other])
    assert violation.kind == proofs.STOPPED_JOB


def test_every_target_comes_once_in_seven_and_each_kill_lies_in_its_slot() -> None:
    planned = plan_kills(seed=3, num_kills=35, slot_s=10)
    assert planned == plan_kills(seed=3, num_kills=35, slot_s=10)
    for start in range(0, 35, 7):
        assert {kill.target for kill in planned[start : start + 7]} == set(TARGETS)
    assert all(10 * n <= kill.after_s < 10 * (n + 1) for n, kill in enumerate(planned))
