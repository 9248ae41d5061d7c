"""Artifacts on every store: manifest last, verified reads, losers, and crashes at every write."""

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from store_samples import FILES, REF, Crash, CrashingStore, write_artifact

from flywheel_core.artifacts import (
    Attempt,
    is_done,
    materialise,
    model_digest,
    read_file,
    read_manifest,
)
from flywheel_core.errors import (
    ArtifactCorrupt,
    ArtifactError,
    ArtifactMissing,
    SchemaTooNew,
    StoreError,
)
from flywheel_core.store import Store

MANIFEST = f"{REF.path}/manifest.json"


def attempts_in(store: Store) -> set[str]:
    return {path.split("/")[5] for path in store.list(f"{REF.path}/attempts")}


def test_an_artifact_comes_back_whole_and_verified(store: Store, tmp_path: Path) -> None:
    assert not is_done(store, REF)
    with pytest.raises(ArtifactMissing, match="traffic of generation 7 is not done"):
        read_manifest(store, REF)
    written = write_artifact(store, tmp_path / "scratch")
    assert is_done(store, REF)
    assert read_manifest(store, REF) == written
    folder = materialise(store, REF, tmp_path / "cache")
    for name, data in FILES.items():
        assert (folder / name).read_bytes() == data
        assert read_file(store, REF, name) == data
    assert materialise(store, REF, tmp_path / "cache") == folder
    assert len(model_digest(written)) == 64
    with pytest.raises(ArtifactError, match="no file 'other'"):
        read_file(store, REF, "other")


def test_the_manifest_is_put_last(store: Store, tmp_path: Path) -> None:
    attempt = Attempt(store, REF, tmp_path)
    (attempt.folder / "rows.jsonl").write_bytes(b"half")
    assert not is_done(store, REF)
    attempt.commit(kind="rows", stage_version=1)
    assert is_done(store, REF)


def test_an_attempt_without_a_file_is_no_artifact(store: Store, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="wrote no file"):
        Attempt(store, REF, tmp_path).commit(kind="rows", stage_version=1)
    assert not is_done(store, REF)


def test_a_losing_writer_gets_the_winners_manifest_and_drops_its_attempt(
    store: Store, tmp_path: Path
) -> None:
    start = threading.Barrier(8)

    def write(number: int) -> str:
        files = {"rows.jsonl": b"writer %d" % number}
        start.wait()
        return write_artifact(store, tmp_path / str(number), files=files).attempt

    with ThreadPoolExecutor(8) as writers:
        seen = set(writers.map(write, range(8)))
    winner = read_manifest(store, REF).attempt
    assert seen == {winner}
    assert attempts_in(store) == {winner}
    materialise(store, REF, tmp_path / "cache")


def test_a_crash_at_any_write_leaves_nothing_half_visible(store: Store, tmp_path: Path) -> None:
    for after in (False, True):
        crash_at = 0
        while True:
            ref = REF.model_copy(update={"key": f"crash-{after}-{crash_at}"})
            crashing = CrashingStore(store, crash_at, after=after)
            scratch = tmp_path / f"scratch-{after}-{crash_at}"
            try:
                write_artifact(crashing, scratch, ref)
            except Crash:
                pass
            else:
                break
            if is_done(store, ref):
                materialise(store, ref, tmp_path / "cache")
            else:
                with pytest.raises(ArtifactMissing):
                    materialise(store, ref, tmp_path / "cache")
            again = write_artifact(store, scratch, ref)
            folder = materialise(store, ref, tmp_path / "cache")
            assert (folder / "model/weights.bin").read_bytes() == FILES["model/weights.bin"]
            assert read_manifest(store, ref) == again
            crash_at += 1
        assert crash_at == len(FILES) + 1


def test_a_crash_while_a_loser_drops_its_attempt_harms_nobody(store: Store, tmp_path: Path) -> None:
    winner = write_artifact(store, tmp_path / "winner")
    crashing = CrashingStore(store, crash_at=len(FILES) + 1)
    with pytest.raises(Crash, match="delete"):
        write_artifact(crashing, tmp_path / "loser")
    assert read_manifest(store, REF) == winner
    materialise(store, REF, tmp_path / "cache")


def test_a_put_whose_answer_was_lost_does_not_drop_the_winners_files(
    store: Store, tmp_path: Path
) -> None:
    """S3 clients repeat a put after a broken connection, and the repeat says "already there"."""

    class Repeating(CrashingStore):
        def put_if_absent(self, path: str, data: bytes) -> bool:
            self.store.put_if_absent(path, data)
            return self.store.put_if_absent(path, data)

    written = write_artifact(Repeating(store, crash_at=10**9), tmp_path / "scratch")
    assert attempts_in(store) == {written.attempt}
    materialise(store, REF, tmp_path / "cache")


@pytest.mark.parametrize("cached", [False, True], ids=["not cached", "cached"])
def test_a_flipped_byte_is_found(store: Store, tmp_path: Path, cached: bool) -> None:
    written = write_artifact(store, tmp_path / "scratch")
    if cached:
        materialise(store, REF, tmp_path / "cache")
    path = f"{REF.path}/attempts/{written.attempt}/model/weights.bin"
    data = bytearray(store.get(path))
    data[100] ^= 1
    store.put(path, bytes(data))
    with pytest.raises(ArtifactCorrupt, match="flywheel invalidate 0123456789abcdef"):
        materialise(store, REF, tmp_path / "another cache")
    with pytest.raises(ArtifactCorrupt, match=r"model/weights\.bin differs"):
        read_file(store, REF, "model/weights.bin")


@pytest.mark.parametrize("store", ["memory", "s3"], indirect=True)
def test_a_flipped_byte_in_the_cache_is_fetched_again(store: Store, tmp_path: Path) -> None:
    write_artifact(store, tmp_path / "scratch")
    folder = materialise(store, REF, tmp_path / "cache")
    (folder / "rows.jsonl").write_bytes(b"something else")
    assert materialise(store, REF, tmp_path / "cache") == folder
    assert (folder / "rows.jsonl").read_bytes() == FILES["rows.jsonl"]


def test_a_file_that_is_gone_is_named(store: Store, tmp_path: Path) -> None:
    written = write_artifact(store, tmp_path / "scratch")
    store.delete(f"{REF.path}/attempts/{written.attempt}/rows.jsonl")
    with pytest.raises(ArtifactCorrupt, match=r"rows\.jsonl is gone"):
        materialise(store, REF, tmp_path / "cache")
    with pytest.raises(ArtifactCorrupt, match=r"rows\.jsonl is gone"):
        read_file(store, REF, "rows.jsonl")


def test_a_newer_schema_says_upgrade(store: Store, tmp_path: Path) -> None:
    write_artifact(store, tmp_path / "scratch")
    data = json.loads(store.get(MANIFEST)) | {"schema_version": 99, "new_field": 1}
    store.put(MANIFEST, json.dumps(data).encode())
    with pytest.raises(SchemaTooNew, match="version 99"):
        read_manifest(store, REF)


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        (lambda data: b"{", "not JSON"),
        (lambda data: b"[]", "not a manifest"),
        (lambda data: json.dumps(data | {"kind": 3}).encode(), "not a manifest"),
        (lambda data: json.dumps(data | {"extra": 3}).encode(), "not a manifest"),
        (
            lambda data: json.dumps(data | {"ref": data["ref"] | {"generation": 8}}).encode(),
            "copied or edited",
        ),
        (
            lambda data: json.dumps(
                data | {"files": [entry | {"name": "../../up"} for entry in data["files"]]}
            ).encode(),
            "allowed",
        ),
    ],
    ids=["torn", "list", "type", "extra", "copied", "path"],
)
def test_an_edited_manifest_is_refused(
    store: Store, tmp_path: Path, edit: Callable[[dict[str, Any]], bytes], complaint: str
) -> None:
    write_artifact(store, tmp_path / "scratch")
    store.put(MANIFEST, edit(json.loads(store.get(MANIFEST))))
    with pytest.raises((ArtifactCorrupt, StoreError), match=complaint):
        read_manifest(store, REF)


def test_a_digest_in_the_manifest_cannot_be_edited_away(store: Store, tmp_path: Path) -> None:
    write_artifact(store, tmp_path / "scratch")
    data = json.loads(store.get(MANIFEST))
    data["files"][0]["sha256"] = "0" * 64
    store.put(MANIFEST, json.dumps(data).encode())
    with pytest.raises(ArtifactCorrupt, match="differs from its manifest"):
        materialise(store, REF, tmp_path / "cache")
