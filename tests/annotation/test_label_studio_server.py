"""Pushing a batch to Label Studio and pulling its labels, against a fake of its three answers.

The fake answers as the real server (1.23.2) did, on the same paths; its export is a real one.
"""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from annotation_samples import world_tasks

from flywheel_core.annotation.commands import _token
from flywheel_core.annotation.files import write_tasks
from flywheel_core.annotation.label_studio_server import LabelStudioServer, read_project
from flywheel_core.errors import ConfigError, InputDataError

EXPORT = json.loads((Path(__file__).parent / "label_studio_export.json").read_text())
URL = "http://127.0.0.1:8080"
LEGACY, PERSONAL = "0123456789abcdef0123456789abcdef01234567", "head.body.tail"


class FakeLabelStudio:
    """Projects in memory; refuses every token but the two."""

    def __init__(self, loses: int = 0) -> None:
        self.projects: list[dict[str, Any]] = []
        self.loses = loses

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path, asked = request.url.path, json.loads(request.content or b"null")
        if path == "/api/token/refresh":
            return httpx.Response(200, json={"access": f"access-for-{asked['refresh']}"})
        allowed = (f"Token {LEGACY}", f"Bearer access-for-{PERSONAL}")
        if request.headers["Authorization"] not in allowed:
            return httpx.Response(401, json={"detail": "Invalid token."})
        if path == "/api/projects/":
            self.projects.append({**asked, "tasks": []})
            return httpx.Response(201, json={"id": len(self.projects)})
        project = self.projects[int(path.split("/")[3]) - 1]
        if path.endswith("/import"):
            project["tasks"] = asked
            return httpx.Response(201, json={"task_count": len(asked) - self.loses})
        assert request.url.params["exportType"] == "JSON"
        return httpx.Response(200, json=EXPORT)

    def server(self, token: str = LEGACY, url: str = URL) -> LabelStudioServer:
        return LabelStudioServer(url, token, httpx.MockTransport(self))


@pytest.fixture
def batch(tmp_path: Path) -> Path:
    _, tasks = world_tasks(3)
    write_tasks(tmp_path / "batch", tasks, "label_studio")
    return tmp_path / "batch"


@pytest.mark.parametrize("token", [LEGACY, PERSONAL])
def test_a_batch_is_pushed_once_and_its_labels_are_pulled(batch: Path, token: str) -> None:
    fake = FakeLabelStudio()
    for _ in range(2):
        made = fake.server(token, f"{URL}/").push(batch, "January", 3)
        assert (made.url, made.project) == (URL, 1)
    (project,) = fake.projects
    assert project["maximum_annotations"] == 3
    assert "Pairwise" in project["label_config"]
    assert project["tasks"] == json.loads((batch / "tasks.json").read_text())
    labels = fake.server(token).pull(batch)
    assert json.loads(labels.read_text()) == EXPORT


def test_tasks_that_the_server_lost_are_noticed_and_the_batch_is_not_marked(batch: Path) -> None:
    with pytest.raises(InputDataError, match="project 1 took 2 of 3 tasks; delete it there"):
        FakeLabelStudio(loses=1).server().push(batch, "January", 3)
    with pytest.raises(InputDataError, match="push it before you pull"):
        read_project(batch)


def test_what_goes_wrong_is_told_with_the_next_step(batch: Path, tmp_path: Path) -> None:
    fake = FakeLabelStudio()
    with pytest.raises(ConfigError, match=r"refuses the token \(401 on /api/projects/\); make"):
        fake.server("f" * 40).push(batch, "January", 3)
    with pytest.raises(InputDataError, match="--format label_studio"):
        fake.server().push(tmp_path, "January", 3)
    fake.server().push(batch, "January", 3)
    with pytest.raises(ConfigError, match=r"was pushed to http://127.0.0.1:8080; give that one"):
        fake.server(url="http://127.0.0.1:9").pull(batch)
    refusing = httpx.MockTransport(lambda request: httpx.Response(500, text="out of disk"))
    with pytest.raises(InputDataError, match="500 out of disk"):
        LabelStudioServer(URL, LEGACY, refusing).pull(batch)
    page = httpx.MockTransport(lambda request: httpx.Response(200, text="<html>"))
    with pytest.raises(ConfigError, match="is it a Label Studio server"):
        LabelStudioServer(URL, LEGACY, page).pull(batch)
    with pytest.raises(ConfigError, match=r"no Label Studio answers at http://127.0.0.1:1"):
        LabelStudioServer("http://127.0.0.1:1", PERSONAL)
    (batch / "label_studio.json").write_text('{"project": "x"}')
    with pytest.raises(InputDataError, match="is not the mark of a pushed batch"):
        read_project(batch)


@pytest.mark.parametrize("content", ["", "two tokens", "\n"])
def test_a_token_file_holds_one_token(tmp_path: Path, content: str) -> None:
    (tmp_path / "token").write_text(content)
    with pytest.raises(ConfigError, match="must hold one token"):
        _token(tmp_path / "token")
    with pytest.raises(ConfigError, match="cannot be read"):
        _token(tmp_path / "none")
