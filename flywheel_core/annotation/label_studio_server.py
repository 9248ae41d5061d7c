"""Label Studio over HTTP: a batch's folder becomes a project, and its labels come back.

`push` makes a project from the `tasks.json` and `label_config.xml` of a batch, `pull` puts its
export beside them as `labels.json`. Tried against Label Studio 1.23.2 with both of its tokens.

A folder of splits that wait for adjudication gets tasks as labels come in. Those that joined after
a push become a project of their own, so that an adjudicator's finished project never grows.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
from pydantic import ValidationError

from flywheel_core.annotation.files import CONFIG_FILE, LABEL_FILE, TASK_FILE
from flywheel_core.artifacts import Record, digest_of
from flywheel_core.errors import ConfigError, InputDataError
from flywheel_core.folders import write_whole

PROJECTS_FILE = "label_studio.json"
TIMEOUT_S = 120.0
TITLE_MAX_CHARACTERS = 50
"""Label Studio refuses a longer title."""


class Project(Record):
    """A project on the server, and the tasks that belong into it."""

    number: int
    task_ids: tuple[str, ...]


class Pushed(Record):
    """Where a batch was pushed, the first project first; lies in its folder, so that no task of it
    is pushed twice."""

    url: str
    projects: tuple[Project, ...] = ()

    @property
    def task_ids(self) -> set[str]:
        return {task_id for project in self.projects for task_id in project.task_ids}


class LabelStudioServer:
    """A Label Studio server and a user of it. `token` is a personal access token (it expires, and
    is exchanged for an hour's access) or a legacy one (40 hex digits)."""

    def __init__(self, url: str, token: str, transport: httpx.BaseTransport | None = None) -> None:
        self.url = url.rstrip("/")
        self._http = httpx.Client(base_url=self.url, timeout=TIMEOUT_S, transport=transport)
        self._http.headers["Authorization"] = self._authorization(token)

    def _authorization(self, token: str) -> str:
        if "." not in token:
            return f"Token {token}"
        return (
            f"Bearer {self._ask('POST', '/api/token/refresh', json={'refresh': token})['access']}"
        )

    def push(self, folder: Path, title: str, num_annotators: int) -> Pushed:
        """Have every task of the batch in one project. Tasks that are in none become a new one;
        a project that lacks some of its own, after a push that was cut short, gets just those."""
        tasks, config = (_read(folder / name) for name in (TASK_FILE["label_studio"], CONFIG_FILE))
        wanted = {one["data"]["task_id"]: one for one in json.loads(tasks)}
        pushed = (
            self._pushed(folder) if (folder / PROJECTS_FILE).is_file() else Pushed(url=self.url)
        )
        new = tuple(task_id for task_id in wanted if task_id not in pushed.task_ids)
        if new:
            number = len(pushed.projects) + 1
            asked = {
                "title": _title(title, number),
                "label_config": config,
                "maximum_annotations": num_annotators,
            }
            digest = digest_of([asked, [wanted[task_id] for task_id in new]])
            made = Project(number=self._project(asked, f"flywheel batch {digest}"), task_ids=new)
            pushed = Pushed(url=self.url, projects=(*pushed.projects, made))
            write_whole(folder / PROJECTS_FILE, pushed.model_dump_json().encode())
        for project in pushed.projects:
            there = {one["data"].get("task_id") for one in self._export(project.number)}
            missing = [
                wanted[task_id]
                for task_id in project.task_ids
                if task_id in wanted and task_id not in there
            ]
            self._upload(project.number, missing)
        return pushed

    def pull(self, folder: Path) -> Path:
        """Put the labels so far, of all of the batch's projects, into its folder; returns their
        file."""
        pushed = self._pushed(folder)
        exported = [one for project in pushed.projects for one in self._export(project.number)]
        labels = folder / LABEL_FILE["label_studio"]
        write_whole(labels, json.dumps(exported, indent=1, ensure_ascii=False).encode())
        return labels

    def _pushed(self, folder: Path) -> Pushed:
        pushed = read_pushed(folder)
        if pushed.url != self.url:
            raise ConfigError(
                f"--url: {self.url}, but {folder} was pushed to {pushed.url}; give that one"
            )
        return pushed

    def _project(self, asked: dict[str, Any], description: str) -> int:
        """The number of the project of this description, made where there is none: a push that was
        cut short may have made it and not written its number down."""
        for one in self._projects():
            if one["description"] == description:
                return int(one["id"])
        made = self._ask("POST", "/api/projects/", json=asked | {"description": description})
        return int(made["id"])

    def _projects(self) -> Iterator[dict[str, Any]]:
        page = 1
        while True:
            asked = {"page": page, "page_size": 100}
            answer = self._ask("GET", "/api/projects/", params=asked)
            yield from answer["results"]
            if answer["next"] is None:
                return
            page += 1

    def _upload(self, number: int, tasks: Sequence[dict[str, Any]]) -> None:
        if not tasks:
            return
        taken = self._ask("POST", f"/api/projects/{number}/import", json=tasks)["task_count"]
        if taken != len(tasks):
            raise InputDataError(
                f"{self.url}: project {number} took {taken} of {len(tasks)} tasks; push again, "
                "which sends those that are missing"
            )

    def _export(self, number: int) -> list[dict[str, Any]]:
        """All tasks of a project, with their annotations."""
        asked = {"exportType": "JSON", "download_all_tasks": "true"}
        exported: list[dict[str, Any]] = self._ask(
            "GET", f"/api/projects/{number}/export", params=asked
        )
        return exported

    def _ask(self, method: str, path: str, **what: Any) -> Any:
        try:
            answer = self._http.request(method, path, **what)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ConfigError(
                f"--url: no Label Studio answers at {self.url} ({error}); start it, or mend the URL"
            ) from error
        if answer.status_code in (401, 403):
            raise ConfigError(
                f"--token-file: {self.url} refuses the token ({answer.status_code} on {path}); "
                "make a new one on its page Account & Settings"
            )
        if answer.status_code == 404:
            raise InputDataError(
                f"{self.url}{path}: is not there (404); is this another server, or was the project "
                f"deleted? To push its tasks anew, take it out of the batch's {PROJECTS_FILE}"
            )
        if answer.is_error:
            raise InputDataError(
                f"{self.url}{path}: {answer.status_code} {answer.text[:300]}; nothing was labelled "
                "or lost, mend this and try again"
            )
        try:
            return answer.json()
        except ValueError as error:
            raise ConfigError(
                f"--url: {self.url}{path} answers with something other than JSON; is it a Label "
                "Studio server?"
            ) from error


def _title(title: str, number: int) -> str:
    """The title of a batch's first, second, third … project."""
    suffix = "" if number == 1 else f" ({number})"
    return title[: TITLE_MAX_CHARACTERS - len(suffix)] + suffix


def read_pushed(folder: Path) -> Pushed:
    """The projects that the batch was pushed to."""
    path = folder / PROJECTS_FILE
    try:
        return Pushed.model_validate_json(_read(path))
    except ValidationError as error:
        raise InputDataError(f"{path}: is not the mark of a pushed batch; remove it") from error


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputDataError(
            f"{path}: cannot be read ({error}); export the batch with --format label_studio, and "
            "push it before you pull"
        ) from error
