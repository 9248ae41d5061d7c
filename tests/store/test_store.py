"""One conformance suite for every store (DESIGN: the pinned plan, keys, commits)."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from flywheel_core.errors import ConfigError, StoreError, StoreMissing
from flywheel_core.store import LocalStore, MemoryStore, S3Store, Store, open_store


def test_of_50_writers_exactly_one_wins_and_its_bytes_stay(store: Store) -> None:
    start = threading.Barrier(50)

    def write(number: int) -> bool:
        start.wait()
        return store.put_if_absent("folder/once.json", b"writer %03d " % number * 500)

    with ThreadPoolExecutor(50) as writers:
        won = list(writers.map(write, range(50)))
    assert sum(won) == 1
    assert store.get("folder/once.json") == b"writer %03d " % won.index(True) * 500
    assert store.list("folder") == ["folder/once.json"]


def test_put_if_absent_changes_nothing_where_something_lies(store: Store) -> None:
    store.put("a/b", b"first")
    assert not store.put_if_absent("a/b", b"second")
    assert store.get("a/b") == b"first"
    store.delete("a/b")
    assert store.put_if_absent("a/b", b"third")
    assert store.get("a/b") == b"third"


@pytest.mark.parametrize("data", [b"", b"x", bytes(range(256)) * 4096], ids=["none", "one", "1MiB"])
def test_bytes_come_back_as_they_went_in(store: Store, data: bytes, tmp_path: Path) -> None:
    store.put("by/put", data)
    assert store.put_if_absent("by/put_if_absent", data)
    source = tmp_path / "source"
    source.write_bytes(data)
    store.upload(source, "by/upload")
    for path in store.list("by"):
        assert store.get(path) == data
        target = tmp_path / "deep" / "er" / path
        store.download(path, target)
        assert target.read_bytes() == data
        assert [file.name for file in target.parent.iterdir()].count(target.name) == 1
    assert not list(tmp_path.rglob(".tmp-*"))


def test_a_put_overwrites_and_a_reader_never_sees_a_mixture(store: Store) -> None:
    size = 200_000
    store.put("value", b"0" * size)
    done = threading.Event()

    def write() -> None:
        for letter in b"123456":
            store.put("value", bytes([letter]) * size)
        done.set()

    with ThreadPoolExecutor(1) as writers:
        writer = writers.submit(write)
        seen = []
        while not done.is_set() and not writer.done():
            seen.append(store.get("value"))
        writer.result()
    assert all(len(data) == size and len(set(data)) == 1 for data in seen)
    assert store.get("value") == b"6" * size


def test_list_is_sorted_and_means_a_folder(store: Store) -> None:
    for path in ("a/2", "a/1", "a/b/c", "ab/1", "a.json", "z"):
        store.put(path, b"x")
    assert store.list("a") == ["a/1", "a/2", "a/b/c"]
    assert store.list("a/b") == ["a/b/c"]
    assert store.list("") == ["a.json", "a/1", "a/2", "a/b/c", "ab/1", "z"]
    assert store.list("z") == []
    assert store.list("nothing/here") == []


def test_exists_means_bytes_at_exactly_that_path(store: Store) -> None:
    store.put("a/b", b"x")
    assert store.exists("a/b")
    assert not store.exists("a")
    assert not store.exists("a/b/c")
    assert not store.exists("b")


def test_a_missing_path_is_an_error_that_names_it(store: Store, tmp_path: Path) -> None:
    store.put("folder/file", b"x")
    for path in ("missing", "folder", "folder/missing"):
        with pytest.raises(StoreMissing, match=path):
            store.get(path)
        target = tmp_path / "target"
        with pytest.raises(StoreMissing, match=path):
            store.download(path, target)
        assert not target.exists()
    assert not list(tmp_path.rglob(".tmp-*"))


def test_delete_removes_and_forgives(store: Store) -> None:
    store.put("a/b", b"x")
    store.delete("a/b")
    store.delete("a/b")
    store.delete("never/was")
    assert not store.exists("a/b")
    assert store.list("") == []


@pytest.mark.parametrize(
    "path", ["../up", "a/../../up", "a/..", "/absolute", "", "a//b", "a/", "./a", "a\\b", "a\0b"]
)
def test_a_path_that_could_leave_the_root_is_refused_by_every_operation(
    store: Store, path: str, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x")
    operations = {
        "put": lambda: store.put(path, b"x"),
        "put_if_absent": lambda: store.put_if_absent(path, b"x"),
        "get": lambda: store.get(path),
        "exists": lambda: store.exists(path),
        "delete": lambda: store.delete(path),
        "upload": lambda: store.upload(source, path),
        "download": lambda: store.download(path, tmp_path / "target"),
    }
    if path:
        operations["list"] = lambda: store.list(path)
    for operation in operations.values():
        with pytest.raises(StoreError, match="not allowed"):
            operation()
    assert store.list("") == []


def test_a_local_link_out_of_the_root_is_refused(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    store = LocalStore(str(tmp_path / "store"))
    store.put("inside/file", b"x")
    (tmp_path / "store" / "way_out").symlink_to(outside)
    (tmp_path / "store" / "file_out").symlink_to(outside / "secret")
    for path in ("way_out/secret", "file_out"):
        with pytest.raises(StoreError, match="through a link"):
            store.get(path)
    with pytest.raises(StoreError, match="through a link"):
        store.put("way_out/new", b"x")
    assert not (outside / "new").exists()
    assert store.list("") == ["inside/file"]


def test_a_local_root_behind_a_link_works(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    store = LocalStore(str(tmp_path / "link"))
    store.put("a", b"x")
    assert LocalStore(str(tmp_path / "real")).get("a") == b"x"


def test_what_a_killed_local_writer_left_behind_is_not_visible(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    store.put("folder/file", b"x")
    (tmp_path / "folder" / ".tmp-abc").write_bytes(b"half")
    (tmp_path / "folder" / ".tmp-def").mkdir()
    (tmp_path / "folder" / ".tmp-def" / "file").write_bytes(b"half")
    assert store.list("") == ["folder/file"]


def test_a_local_list_survives_files_that_vanish_meanwhile(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    store.put("kept/file", b"x")
    stop = threading.Event()

    def churn() -> None:
        while not stop.is_set():
            for number in range(20):
                store.put(f"attempts/{number}/file", b"x")
            for number in range(20):
                store.delete(f"attempts/{number}/file")
                (tmp_path / "attempts" / str(number)).rmdir()

    with ThreadPoolExecutor(1) as others:
        other = others.submit(churn)
        for _ in range(200):
            assert "kept/file" in store.list("")
        stop.set()
        other.result()


def test_a_root_says_which_store_it_is(tmp_path: Path, s3_environment: None) -> None:
    assert isinstance(open_store(str(tmp_path)), LocalStore)
    assert isinstance(open_store("s3://bucket/prefix/"), S3Store)
    assert isinstance(open_store("memory://one"), MemoryStore)
    assert open_store("memory://one") is open_store("memory://one")
    with pytest.raises(ConfigError, match="'gs'"):
        open_store("gs://bucket")


def test_a_bucket_that_is_not_there_is_named(s3_environment: None) -> None:
    store = open_store("s3://no-such-bucket/prefix")
    for write in (store.put, store.put_if_absent):
        with pytest.raises(StoreError, match="no-such-bucket"):
            write("a", b"x")
    with pytest.raises(StoreError, match="no-such-bucket"):
        store.list("")
