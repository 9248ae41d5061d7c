"""Label Studio over HTTP: a batch's folder becomes a project, and its labels come back.

`push` makes a project from the `tasks.json` and `label_config.xml` of a batch, `pull` puts its
export beside them as `labels.json`. Tried against Label Studio 1.23.2 with both of its tokens.
"""

import json
from pathlib import Path
from typing import Any

import httpx
from pydantic import ValidationError

from flywheel_core.annotation.files import CONFIG_FILE, LABEL_FILE, TASK_FILE
from flywheel_core.artifacts import Record
from flywheel_core.errors import ConfigError, InputDataError
from flywheel_core.folders import write_whole

PROJECT_FILE = "label_studio.json"
TIMEOUT_S = 120.0


class Project(Record):
    """Where a batch was pushed; lies in its folder, so that it is pushed once."""

    url: str
    project: int


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

    def push(self, folder: Path, title: str, num_annotators: int) -> Project:
        """Make a project of the batch, or find the one that was made before."""
        known = folder / PROJECT_FILE
        if known.is_file():
            return read_project(folder)
        tasks, config = (_read(folder / name) for name in (TASK_FILE["label_studio"], CONFIG_FILE))
        asked = {"title": title, "label_config": config, "maximum_annotations": num_annotators}
        number = int(self._ask("POST", "/api/projects/", json=asked)["id"])
        sent = json.loads(tasks)
        taken = self._ask("POST", f"/api/projects/{number}/import", json=sent)["task_count"]
        if taken != len(sent):
            raise InputDataError(
                f"{self.url}: project {number} took {taken} of {len(sent)} tasks; delete it there "
                "and push again"
            )
        project = Project(url=self.url, project=number)
        write_whole(known, project.model_dump_json().encode())
        return project

    def pull(self, folder: Path) -> Path:
        """Put the project's labels so far into the batch's folder; returns their file."""
        project = read_project(folder)
        if project.url != self.url:
            raise ConfigError(
                f"--url: {self.url}, but {folder} was pushed to {project.url}; give that one"
            )
        asked = {"exportType": "JSON", "download_all_tasks": "true"}
        exported = self._ask("GET", f"/api/projects/{project.project}/export", params=asked)
        labels = folder / LABEL_FILE["label_studio"]
        write_whole(labels, json.dumps(exported, indent=1, ensure_ascii=False).encode())
        return labels

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


def read_project(folder: Path) -> Project:
    """The project that the batch was pushed to."""
    path = folder / PROJECT_FILE
    try:
        return Project.model_validate_json(_read(path))
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
