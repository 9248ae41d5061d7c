"""A night's bad conditions: each its own message with the next step, and nothing half-written is
taken for done."""

import errno
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from flywheel_core.artifacts import ArtifactRef, Attempt, is_done
from flywheel_core.clocks import clock_fault, clock_offset_s
from flywheel_core.errors import (
    ConfigError,
    RayRefused,
    RayUnreachable,
    StoreError,
    StoreFull,
    StoreRefused,
    TrainingError,
)
from flywheel_core.jobs.base import LineProgress
from flywheel_core.jobs.failures import EXIT_FAILED, EXIT_TRANSIENT, report_failure
from flywheel_core.store import LocalStore
from operators.ray_jobs import open_client

REF = ArtifactRef(flywheel="tiny", generation=1, stage="rl", key="0123456789abcdef")


@contextmanager
def server(status: int = 200, clock_offset_s: float = 0.0) -> Iterator[str]:
    """A server that answers every request alike, by a clock of its own."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response_only(status)
            self.send_header("Date", formatdate(time.time() + clock_offset_s, usegmt=True))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            return

    listening = HTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=listening.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listening.server_port}"
    finally:
        listening.shutdown()
        listening.server_close()


@contextmanager
def full_disk(folder: Path) -> Iterator[Path]:
    """A file system of 64 KiB, mounted for real."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], check=False
    )
    if mounted.returncode:
        pytest.skip("needs the right to mount a tmpfs")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_named_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    with full_disk(tmp_path / "disk") as disk:
        store = LocalStore(str(disk))
        with pytest.raises(StoreFull, match=r"No space left.*free some space"):
            store.put("a/big", os.urandom(200_000))
        with pytest.raises(StoreFull):
            store.put_if_absent("a/big", os.urandom(200_000))
        assert store.list("") == []
        attempt = Attempt(store, REF, tmp_path / "scratch")
        with pytest.raises(OSError, match="No space left") as caught:
            (attempt.folder / "model.bin").write_bytes(os.urandom(200_000))
        attempt.drop()
        assert not is_done(store, REF)
        assert [path for path in disk.rglob("*") if path.is_file()] == []
        assert report_failure(caught.value) == EXIT_FAILED


def test_a_manifest_nobody_may_read_is_no_manifest_that_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LocalStore(str(tmp_path))
    store.put("tiny/manifest.json", b"{}")

    def refuse(path: Path) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)  # root may read everything
    with pytest.raises(StoreError, match=r"Permission denied.*give the user") as caught:
        store.get("tiny/manifest.json")
    assert type(caught.value) is StoreRefused


def test_wrong_credentials_are_not_an_unreachable_ray() -> None:
    with (
        server(status=401) as url,
        pytest.raises(RayRefused, match=r"refuses our token.*RAY_AUTH_TOKEN_PATH"),
    ):
        open_client(url)


def test_a_head_that_is_starting_is_tried_again() -> None:
    with server(status=503) as url, pytest.raises(RayUnreachable, match="503"):
        open_client(url)
    assert RayUnreachable.transient
    assert not RayRefused.transient


@pytest.mark.parametrize(
    ("offset_s", "said"), [(3600, "60 min ahead of"), (-3600, "60 min behind")]
)
def test_a_clock_an_hour_off_is_told(offset_s: float, said: str) -> None:
    with server(status=401, clock_offset_s=offset_s) as url:
        assert clock_offset_s(url) == pytest.approx(offset_s, abs=5)
        fault = clock_fault(url)
    assert fault is not None
    assert said in fault
    assert "NTP" in fault


def test_clocks_that_agree_or_do_not_answer_are_no_fault() -> None:
    with server() as url:
        assert clock_fault(url) is None
    assert clock_fault("http://127.0.0.1:9") is None


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ConfigError("lr 0: must be above 0"), EXIT_FAILED, "error: lr 0: must be above 0"),
        (TrainingError("no\nmodel"), EXIT_FAILED, "error: no model"),
        (StoreError("s3://x: 503"), EXIT_TRANSIENT, "error: s3://x: 503"),
        (ConnectionResetError("by peer"), EXIT_TRANSIENT, "error: ConnectionResetError: by peer"),
        (OSError(errno.ENOSPC, "No space left"), EXIT_FAILED, "free some, then clear this task"),
        (ModuleNotFoundError("No module named 'trl'"), EXIT_FAILED, "No module named 'trl'"),
        (KeyError("rows"), EXIT_FAILED, "error: KeyError: 'rows'"),
    ],
)
def test_a_job_says_why_and_whether_to_try_again(
    error: Exception, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report_failure(error) == code
    assert said in capsys.readouterr().out.splitlines()[-1]


def test_progress_counts_anew_when_the_work_starts_over(
    capsys: pytest.CaptureFixture[str],
) -> None:
    progress = LineProgress(interval_s=0)
    for done in (1, 2, 1, 2):
        progress(done, 2, "prompts")
        time.sleep(0.05)
    lines = capsys.readouterr().out.splitlines()
    assert "/s eta" not in lines[0] + lines[2]
    assert "/s eta 0s" in lines[1]
    assert "/s eta 0s" in lines[3]
