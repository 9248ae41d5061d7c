"""One live driver a key, also where Ray has lost sight of one."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from flywheel_core.artifacts import ArtifactRef
from flywheel_core.errors import Superseded
from flywheel_core.jobs.fence import DRIVERS, EXIT_SUPERSEDED, GRACE_S, POLL_S, Fence
from flywheel_core.pointers import Pointer
from flywheel_core.store import LocalStore

REF = ArtifactRef(flywheel="tiny", generation=1, stage="rl", key="0123456789abcdef")
FAST_S = 0.1

DRIVER = """
import sys, time
from flywheel_core.jobs.fence import Fence
from flywheel_core.store import LocalStore
from tests.spine.test_fence import FAST_S, REF

with Fence(LocalStore(sys.argv[1]), REF, sys.argv[2], poll_s=FAST_S):
    print("holding", flush=True)
    time.sleep(60)
"""


def driver(root: Path, name: str) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(root), name], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "holding\n"
    return process


def test_a_later_driver_ends_a_live_one_before_it_starts(tmp_path: Path) -> None:
    first = driver(tmp_path, "rl-1")
    with Fence(LocalStore(str(tmp_path)), REF, "rl-2", poll_s=FAST_S) as fence:
        assert first.poll() == EXIT_SUPERSEDED
        fence.check()
    assert first.stdout is not None
    assert "error: rl-1: rl-2 has taken over" in first.stdout.read()


def test_a_killed_driver_holds_nobody_up_for_long(tmp_path: Path) -> None:
    first = driver(tmp_path, "rl-1")
    first.kill()
    first.wait()
    started_s = time.monotonic()
    with Fence(LocalStore(str(tmp_path)), REF, "rl-2", poll_s=FAST_S) as fence:
        fence.check()
    assert time.monotonic() - started_s < 10 * GRACE_S * FAST_S / POLL_S


def test_a_key_that_was_given_back_is_taken_without_a_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LocalStore(str(tmp_path))
    with Fence(store, REF, "rl-1"):
        pass
    monkeypatch.setattr("time.sleep", lambda seconds: pytest.fail("waited"))
    with Fence(store, REF, "rl-2"):
        pass
    history = Pointer(store, "tiny", f"rl-{REF.key}", area=DRIVERS).history()
    assert [(record.by, record.reason) for record in history] == [
        ("rl-1", "claimed"),
        ("rl-1", "given back"),
        ("rl-2", "claimed"),
        ("rl-2", "given back"),
    ]


def test_a_superseded_driver_commits_nothing_and_gives_nothing_back(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    with Fence(store, REF, "rl-1", poll_s=60) as first:
        Pointer(store, "tiny", f"rl-{REF.key}", area=DRIVERS).append(
            {"driver": "rl-2", "state": "claimed"}, by="rl-2", reason="claimed"
        )
        with pytest.raises(Superseded, match="rl-2 has taken over"):
            first.check()
    newest = Pointer(store, "tiny", f"rl-{REF.key}", area=DRIVERS).newest()
    assert newest is not None
    assert (newest.by, newest.reason) == ("rl-2", "claimed")


def test_of_drivers_that_start_together_only_the_last_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both claim before either waits: the first finds itself superseded, the second waits for
    the first, although nobody held the key when either looked."""
    store = LocalStore(str(tmp_path))
    pointer = Pointer(store, "tiny", f"rl-{REF.key}", area=DRIVERS)
    append = Pointer.append

    def claim_then_other_claims(self: Pointer, *arguments: Any, **named: Any) -> Any:
        record = append(self, *arguments, **named)
        monkeypatch.setattr(Pointer, "append", append)
        pointer.append({"driver": "rl-2", "state": "claimed"}, by="rl-2", reason="claimed")
        return record

    monkeypatch.setattr(Pointer, "append", claim_then_other_claims)
    with Fence(store, REF, "rl-1", poll_s=60) as first, pytest.raises(Superseded):
        first.check()
    waited: list[float] = []
    monkeypatch.setattr("time.sleep", waited.append)
    with Fence(store, REF, "rl-3", poll_s=60):
        pass
    assert waited


def test_giving_back_never_looks_like_a_newer_driver(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    pointer = Pointer(store, "tiny", f"rl-{REF.key}", area=DRIVERS)
    with Fence(store, REF, "rl-1", poll_s=60):
        other = pointer.append({"driver": "rl-2", "state": "claimed"}, by="rl-2", reason="claimed")
    newest = pointer.newest()
    assert newest is not None
    assert newest.number == other.number
