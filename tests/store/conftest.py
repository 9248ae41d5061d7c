"""Every store, each fresh for each test. S3 is a real HTTP server: moto, on a free port."""

import logging
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from flywheel_core.store import LocalStore, MemoryStore, S3Store, Store, open_store

BUCKET = "flywheel-tests"
STORES = ("local", "memory", "s3")


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """A moto server on 127.0.0.1 with one bucket."""
    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    client.create_bucket(Bucket=BUCKET)
    yield endpoint
    server.stop()


@pytest.fixture
def s3_environment(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The standard AWS variables, which is all that S3Store reads."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")


def make_store(kind: str, folder: Path, request: pytest.FixtureRequest) -> Store:
    """A fresh, empty store of a kind."""
    if kind == "local":
        return LocalStore(str(folder / "store"))
    if kind == "memory":
        return MemoryStore(f"memory://{uuid.uuid4().hex}")
    request.getfixturevalue("s3_environment")
    opened = open_store(f"s3://{BUCKET}/{uuid.uuid4().hex}")
    assert isinstance(opened, S3Store)
    return opened


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """Each store in turn."""
    return make_store(request.param, tmp_path, request)


@pytest.fixture
def all_stores(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Store]:
    """All of them at once, to compare."""
    return {kind: make_store(kind, tmp_path, request) for kind in STORES}
