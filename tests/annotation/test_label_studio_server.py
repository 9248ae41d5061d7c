"""Pushing a batch to Label Studio and pulling its labels, against a fake of its four answers.

The fake answers as the real server (1.23.2) did, on the same paths.
"""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from annotation_samples import world_tasks
from typer.testing import CliRunner

from flywheel_core.annotation.commands import _token
from flywheel_core.annotation.files import read_adjudications, write_tasks
from flywheel_core.annotation.label_studio_server import LabelStudioServer, Pushed, read_pushed
from flywheel_core.annotation.tasks import AnnotationTask
from flywheel_core.cli import app
from flywheel_core.errors import ConfigError, InputDataError

URL = "http://127.0.0.1:8080"
LEGACY, PERSONAL = "0123456789abcdef0123456789abcdef01234567", "head.body.tail"


class FakeLabelStudio:
    """Projects in memory, listed two a page; refuses every token but the two. It takes `limit`
    tasks in all, and the answer to `breaks_at` (method and path) is lost on its way back, once."""

    def __init__(self, limit: int | None = None, breaks_at: str = "") -> None:
        self.projects: list[dict[str, Any]] = []
        self.limit, self.breaks_at = limit, breaks_at

    def __call__(self, request: httpx.Request) -> httpx.Response:
        answer = self._answer(request)
        if f"{request.method} {request.url.path}" == self.breaks_at:
            self.breaks_at = ""
            raise httpx.ReadError("the line broke")
        return answer

    def _answer(self, request: httpx.Request) -> httpx.Response:
        path, asked = request.url.path, json.loads(request.content or b"null")
        if path == "/api/token/refresh":
            return httpx.Response(200, json={"access": f"access-for-{asked['refresh']}"})
        allowed = (f"Token {LEGACY}", f"Bearer access-for-{PERSONAL}")
        if request.headers["Authorization"] not in allowed:
            return httpx.Response(401, json={"detail": "Invalid token."})
        if path == "/api/projects/" and request.method == "GET":
            end = 2 * int(request.url.params["page"])
            following = None if end >= len(self.projects) else f"{URL}/api/projects/?page=…"
            return httpx.Response(
                200, json={"next": following, "results": self.projects[end - 2 : end]}
            )
        if path == "/api/projects/":
            assert len(asked["title"]) <= 50
            self.projects.append({"id": len(self.projects) + 1, **asked, "tasks": []})
            return httpx.Response(201, json=self.projects[-1])
        number = int(path.split("/")[3]) - 1
        if number >= len(self.projects):
            return httpx.Response(404, json={"detail": "Not found."})
        tasks = self.projects[number]["tasks"]
        if path.endswith("/import"):
            room = None if self.limit is None else self.limit - self.total()
            tasks += asked[:room]
            return httpx.Response(201, json={"task_count": len(asked[:room])})
        assert request.url.params["exportType"] == "JSON"
        assert request.url.params["download_all_tasks"] == "true"
        return httpx.Response(200, json=[{**one, "annotations": []} for one in tasks])

    def total(self) -> int:
        return sum(len(project["tasks"]) for project in self.projects)

    def server(self, token: str = LEGACY, url: str = URL) -> LabelStudioServer:
        return LabelStudioServer(url, token, httpx.MockTransport(self))


def ids(tasks: list[Any]) -> list[str]:
    """Of tasks of ours, or of the server's."""
    return [
        one.task_id if isinstance(one, AnnotationTask) else one["data"]["task_id"] for one in tasks
    ]


@pytest.fixture
def batch(tmp_path: Path) -> Path:
    _, tasks = world_tasks(3)
    write_tasks(tmp_path / "batch", tasks, "label_studio")
    return tmp_path / "batch"


@pytest.mark.parametrize("token", [LEGACY, PERSONAL])
def test_a_batch_is_pushed_once_and_its_labels_are_pulled(batch: Path, token: str) -> None:
    fake = FakeLabelStudio()
    for _ in range(2):
        pushed = fake.server(token, f"{URL}/").push(batch, "January", 3)
        assert (pushed.url, [one.number for one in pushed.projects]) == (URL, [1])
    (project,) = fake.projects
    assert (project["title"], project["maximum_annotations"]) == ("January", 3)
    assert "Pairwise" in project["label_config"]
    sent = json.loads((batch / "tasks.json").read_text())
    assert project["tasks"] == sent
    labels = fake.server(token).pull(batch)
    assert json.loads(labels.read_text()) == [{**one, "annotations": []} for one in sent]


def test_splits_of_later_imports_become_projects_of_their_own(tmp_path: Path) -> None:
    """Four imports: two splits, one of them settled and three new, the same, all five and one."""
    _, tasks = world_tasks(6)
    fake, folder = FakeLabelStudio(), tmp_path / "adjudication"
    for split in (tasks[:2], tasks[1:5], tasks[1:5], tasks):
        read_adjudications(folder, split, "label_studio")
        fake.server().push(folder, "t" * 50, 1)
    assert [ids(one["tasks"]) for one in fake.projects] == [
        ids(tasks[:2]),
        ids(tasks[2:5]),
        ids(tasks[5:]),
    ]
    assert [one["title"][45:] for one in fake.projects] == ["ttttt", "t (2)", "t (3)"]
    assert ids(json.loads(fake.server().pull(folder).read_text())) == ids(tasks)


@pytest.mark.parametrize("breaks_at", ["POST /api/projects/", "POST /api/projects/4/import"])
def test_a_push_that_was_cut_short_is_finished_by_the_next(batch: Path, breaks_at: str) -> None:
    """Whatever the server had done when the line broke: nothing of it is done again."""
    fake = FakeLabelStudio(breaks_at=breaks_at)
    fake.projects = [{"id": n, "description": "somebody's", "tasks": []} for n in (1, 2, 3)]
    with pytest.raises(ConfigError, match="the line broke"):
        fake.server().push(batch, "January", 3)
    assert [one.number for one in fake.server().push(batch, "January", 3).projects] == [4]
    assert [len(one["tasks"]) for one in fake.projects] == [0, 0, 0, 3]


def test_all_of_a_batch_in_adjudication_is_not_taken_for_the_batch(batch: Path) -> None:
    _, tasks = world_tasks(3)
    read_adjudications(batch / "adjudication", tasks, "label_studio")
    fake = FakeLabelStudio()
    fake.server().push(batch, "January", 3)
    fake.server().push(batch / "adjudication", "January adjudication", 1)
    assert [one["maximum_annotations"] for one in fake.projects] == [3, 1]
    assert fake.total() == 6


def test_one_adjudicator_is_asked_for_and_several_annotators(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def push(server: LabelStudioServer, folder: Path, title: str, num_annotators: int) -> Pushed:
        asked.append((folder, title, num_annotators))
        return Pushed(url=server.url)

    monkeypatch.setattr(LabelStudioServer, "push", push)
    (tmp_path / "token").write_text(LEGACY)
    batch = tmp_path / "January"
    for folder in (batch, batch / "adjudication"):
        words = ["annotate", "push", str(folder), "--url", URL, "--token-file"]
        done = CliRunner().invoke(app, [*words, str(tmp_path / "token")])
        assert done.exit_code == 0, done.output
    assert asked == [
        (batch, "January", 3),
        (batch / "adjudication", "January adjudication", 1),
    ]


def test_tasks_that_the_server_lost_are_noticed_and_sent_by_the_next_push(batch: Path) -> None:
    fake = FakeLabelStudio(limit=2)
    with pytest.raises(InputDataError, match="project 1 took 2 of 3 tasks; push again"):
        fake.server().push(batch, "January", 3)
    fake.limit = None
    fake.server().push(batch, "January", 3)
    assert [ids(one["tasks"]) for one in fake.projects] == [ids(world_tasks(3)[1])]


def test_what_goes_wrong_is_told_with_the_next_step(batch: Path, tmp_path: Path) -> None:
    fake = FakeLabelStudio()
    with pytest.raises(InputDataError, match="push it before you pull"):
        fake.server().pull(batch)
    with pytest.raises(ConfigError, match=r"refuses the token \(401 on /api/projects/\); make"):
        fake.server("f" * 40).push(batch, "January", 3)
    with pytest.raises(InputDataError, match="--format label_studio"):
        fake.server().push(tmp_path, "January", 3)
    fake.server().push(batch, "January", 3)
    for ask in (lambda server: server.pull(batch), lambda server: server.push(batch, "x", 3)):
        with pytest.raises(ConfigError, match=r"was pushed to http://127.0.0.1:8080; give that"):
            ask(fake.server(url="http://127.0.0.1:9"))
    refusing = httpx.MockTransport(lambda request: httpx.Response(500, text="out of disk"))
    with pytest.raises(InputDataError, match="500 out of disk"):
        LabelStudioServer(URL, LEGACY, refusing).pull(batch)
    page = httpx.MockTransport(lambda request: httpx.Response(200, text="<html>"))
    with pytest.raises(ConfigError, match="is it a Label Studio server"):
        LabelStudioServer(URL, LEGACY, page).pull(batch)
    with pytest.raises(ConfigError, match=r"no Label Studio answers at http://127.0.0.1:1"):
        LabelStudioServer("http://127.0.0.1:1", PERSONAL)
    fake.projects.clear()
    with pytest.raises(InputDataError, match=r"projects/1/export: is not there.*label_studio.json"):
        fake.server().push(batch, "January", 3)
    (batch / "label_studio.json").write_text('{"project": "x"}')
    with pytest.raises(InputDataError, match="is not the mark of a pushed batch"):
        read_pushed(batch)


@pytest.mark.parametrize("content", ["", "two tokens", "\n"])
def test_a_token_file_holds_one_token(tmp_path: Path, content: str) -> None:
    (tmp_path / "token").write_text(content)
    with pytest.raises(ConfigError, match="must hold one token"):
        _token(tmp_path / "token")
    with pytest.raises(ConfigError, match="cannot be read"):
        _token(tmp_path / "none")
