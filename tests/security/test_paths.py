"""No path, name or link leaves the store's root, however it is spelt."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from flywheel_core.artifacts import ArtifactRef, FileEntry, materialise
from flywheel_core.errors import ConfigError, FlywheelError, StoreError
from flywheel_core.plan import plan_path
from flywheel_core.pointers import Pointer
from flywheel_core.recipe import load_recipe
from flywheel_core.release.policy import ReleasePolicy
from flywheel_core.report.build import report_path
from flywheel_core.store import LocalStore, MemoryStore, S3Store, Store, checked_path
from tests.store.store_samples import REF, write_artifact

PARTS = (
    *("..", ".", "...", "", "a", "b.json", "~", "~root", "C:", "a b", " ", "-", ".tmp-x", "é"),
    *("%2e%2e", "..%2f", "．．", "‥", "s3:", "file:", "?versionId=1", "a?versionId=", "#", "*"),
    *("..\\", "\\..", "a\0", "\n", "a\n", "\r", "\x7f", "\ud800", "$HOME", "`id`", "arn:aws:s3"),
)
JOINTS = ("/", "//", "/./", "/../", "\\", "")


@st.composite
def hostile_paths(draw: st.DrawFn) -> str:
    """Paths of parts that have led out of some root before, and any text at all."""
    parts = draw(st.lists(st.sampled_from(PARTS) | st.text(max_size=6), min_size=1, max_size=5))
    prefix = draw(st.sampled_from(("", "/", "./", "../", "//", "s3://", "file:///", "~/")))
    return prefix + "".join(part + draw(st.sampled_from(JOINTS)) for part in parts)


def inside(root: Path, path: Path) -> bool:
    return os.path.realpath(path).startswith(os.path.realpath(root) + os.sep)


def files_below(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def writes(store: Store, path: str) -> bool:
    """Whether the store takes the path; then every operation means the same bytes."""
    try:
        store.put(path, b"x")
    except StoreError:
        for operation in (store.get, store.exists, store.delete):
            with pytest.raises(StoreError, match="not allowed"):
                operation(path)
        return False
    assert store.get(path) == b"x"
    assert not store.put_if_absent(path, b"y")
    store.delete(path)
    assert not store.exists(path)
    return True


@settings(max_examples=400, deadline=None)
@given(hostile_paths())
def test_a_hostile_path_stays_inside_or_is_refused(path: str) -> None:
    with tempfile.TemporaryDirectory() as home:
        root = Path(home) / "deep" / "store"
        root.mkdir(parents=True)
        (Path(home) / "secret").write_text("secret")
        taken = writes(LocalStore(str(root)), path)
        if taken:
            assert inside(root, root / path)
        assert files_below(Path(home)) - files_below(root) == {Path(home) / "secret"}
        assert (Path(home) / "secret").read_text() == "secret"
    assert writes(MemoryStore("memory://hostile"), path) == taken


def s3_store(root: str) -> S3Store:
    """The store without a service behind it: only its keys are looked at."""
    return S3Store(root, anon=True)


@settings(max_examples=400, deadline=None)
@given(hostile_paths())
def test_an_s3_key_is_the_prefix_and_the_path(path: str) -> None:
    store = s3_store("s3://bucket/prefix")
    try:
        key = store._key(path)
    except StoreError:
        return
    bucket, found, version = store._files.split_path(key)
    assert (bucket, found, version) == ("bucket", f"prefix/{path}", None)
    assert ".." not in path.split("/")


@settings(max_examples=300, deadline=None)
@given(hostile_paths())
def test_names_in_records_are_plain(name: str) -> None:
    for field in ("flywheel", "stage", "key"):
        fields = {"flywheel": "tiny", "generation": 1, "stage": "rl", "key": "k", field: name}
        try:
            ref = ArtifactRef.model_validate(fields)
        except ValidationError:
            continue
        assert checked_path(ref.path) == ref.path
        assert len(ref.path.split("/")) == 4
    try:
        entry = FileEntry(name=name, num_bytes=0, sha256="")
    except (StoreError, ValidationError):
        return
    assert inside(Path("/store/artifact"), Path("/store/artifact") / entry.name)


@settings(max_examples=200, deadline=None)
@given(hostile_paths())
def test_plans_pointers_and_reports_stay_below_their_flywheel(name: str) -> None:
    run = plan_path("tiny", name)
    assert checked_path(run) == run
    assert len(run.split("/")) == 3
    for of, what in ((name, "production"), ("tiny", name)):
        with tempfile.TemporaryDirectory() as home:
            root = Path(home) / "store"
            try:
                Pointer(LocalStore(str(root)), of, what).append({}, by="x", reason="y")
            except FlywheelError:
                assert not files_below(Path(home))
            assert files_below(Path(home)) == files_below(root)
    try:
        path = report_path(Path("/home/reports"), name, 1)
    except FlywheelError:
        return
    assert path.parent == Path("/home/reports")


@pytest.mark.parametrize("name", ["../tiny", "/etc", "a/b", "", ".", "..", "a\n", "a b", "~x"])
def test_recipes_and_policies_take_no_path_for_a_name(name: str, tmp_path: Path) -> None:
    from flywheel_core.recipe import RECIPE_FOLDER

    text = (RECIPE_FOLDER / "tiny_cpu.yaml").read_text()
    path = tmp_path / "mine.yaml"
    for line in ("name: tiny_cpu", "flywheel: tiny"):
        assert line in text
        path.write_text(text.replace(line, f"{line.split(':')[0]}: {name!r}", 1))
        with pytest.raises(ConfigError, match=line.split(":")[0]):
            load_recipe(str(path))
    assert "path" not in " ".join(ReleasePolicy.model_fields)


def test_links_lead_nowhere(tmp_path: Path) -> None:
    """Out by a file, a folder, a chain, a relative link, and a link to a link to the root."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    root = tmp_path / "store"
    store = LocalStore(str(root))
    store.put("in/file", b"x")
    (root / "file").symlink_to(outside / "secret")
    (root / "folder").symlink_to(outside)
    (root / "relative").symlink_to("../outside")
    (root / "chain").symlink_to("folder")
    (root / "up").symlink_to("..")
    source = tmp_path / "source"
    source.write_text("x")
    for path in ("file", "folder/secret", "relative/secret", "chain/secret", "up/outside/secret"):
        attempts: list[Callable[[], object]] = [
            lambda path=path: store.get(path),  # type: ignore[misc]
            lambda path=path: store.put(path, b"x"),  # type: ignore[misc]
            lambda path=path: store.put_if_absent(path, b"x"),  # type: ignore[misc]
            lambda path=path: store.exists(path),  # type: ignore[misc]
            lambda path=path: store.delete(path),  # type: ignore[misc]
            lambda path=path: store.upload(source, path),  # type: ignore[misc]
            lambda path=path: store.download(path, tmp_path / "copy"),  # type: ignore[misc]
        ]
        for one in attempts:
            with pytest.raises(StoreError, match="through a link"):
                one()
    for folder in ("folder", "relative", "chain", "up"):
        with pytest.raises(StoreError, match="through a link"):
            store.list(folder)
    assert store.list("") == ["in/file"]
    assert (outside / "secret").read_text() == "secret"
    assert not (tmp_path / "copy").exists()


def test_a_manifest_cannot_point_out_of_its_artifact(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path / "store"))
    manifest = write_artifact(store, tmp_path)
    (tmp_path / "secret").write_text("secret")
    path = f"{REF.path}/manifest.json"
    genuine = store.get(path).decode()
    for told, forged in (
        (f'"{manifest.attempt}"', '"../../../../../secret"'),
        ('"rows.jsonl"', '"../../../../../../../secret"'),
        ('"rows.jsonl"', '"/etc/passwd"'),
    ):
        assert told in genuine
        store.put(path, genuine.replace(told, forged).encode())
        with pytest.raises(FlywheelError, match="not allowed"):
            materialise(store, REF, tmp_path / "cache")
