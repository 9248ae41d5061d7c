"""Airflow's REST API as one user: trigger, watch, answer an approval, read its record."""

import time
from types import TracebackType
from typing import Any
from urllib.parse import quote

import httpx

from flywheel_core.errors import ConfigError, StackError

WAITING = "awaiting_input"
APPROVE = "Approve"
BROKEN = ("failed", "upstream_failed", "skipped", "removed")

SETTLE_S = 3.0
"""An answer soon after `awaiting_input` can fail the task: the executor's event for the first half
may reach the scheduler after the task is queued again. A program waits, and looks at what came
of its answer."""

SETTLE_TIMEOUT_S = 60.0
ANSWER_TIMEOUT_S = 180.0
MAX_ANSWERS = 3
WAITING_STATES = ["awaiting_input", "deferred"]
"""Of a human task whose question is put; which one is Airflow's choice."""

MAX_ATTEMPTS = 4
REQUEST_TIMEOUT_S = 30.0


class AirflowClient:
    """One user's session. Tokens are taken at first use and renewed when refused."""

    def __init__(self, base_url: str, username: str, password: str) -> None:
        self.base_url = base_url.rstrip("/")
        self.username = username
        self._password = password
        self._token: str | None = None
        self._http = httpx.Client(base_url=self.base_url, timeout=REQUEST_TIMEOUT_S)

    def __enter__(self) -> "AirflowClient":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._http.close()

    # -- requests ------------------------------------------------------------------------------

    def request(
        self, method: str, path: str, *, allowed: tuple[int, ...] = (), **options: Any
    ) -> httpx.Response:
        """One call; `StackError` with Airflow's own words unless 2xx or `allowed`."""
        response = self._send(method, path, options)
        if response.status_code == 401:
            self._token = None
            response = self._send(method, path, options)
        if response.is_success or response.status_code in allowed:
            return response
        raise StackError(
            f"Airflow refused {method} {path} as {self.username!r}: {response.status_code} "
            f"{_words(response)}"
        )

    def _send(self, method: str, path: str, options: dict[str, Any]) -> httpx.Response:
        if self._token is None:
            self._token = self._log_in()
        headers = {"Authorization": f"Bearer {self._token}"}
        return self._with_patience(method, f"/api/v2{path}", {**options, "headers": headers})

    def _with_patience(self, method: str, url: str, options: dict[str, Any]) -> httpx.Response:
        """Try again where nothing can have happened twice: a refused connection, a slow answer to
        a question. An API server that restarts, or a busy machine, is no failure."""
        for attempt in range(MAX_ATTEMPTS):
            try:
                return self._http.request(method, url, **options)
            except (httpx.ConnectError, httpx.TimeoutException) as error:
                harmless = method == "GET" or isinstance(error, httpx.ConnectError)
                if not harmless or attempt == MAX_ATTEMPTS - 1:
                    raise StackError(
                        f"Airflow does not answer {method} {url} at {self.base_url} ({error}); "
                        "run `flywheel up`, or look at its logs"
                    ) from error
                time.sleep(2.0**attempt)
            except httpx.HTTPError as error:
                raise StackError(f"Airflow at {self.base_url}: {method} {url}: {error}") from error
        raise AssertionError("unreachable")

    def _log_in(self) -> str:
        body = {"username": self.username, "password": self._password}
        response = self._with_patience("POST", "/auth/token", {"json": body})
        if response.status_code == 401:
            raise ConfigError(
                f"Airflow refused the password of {self.username!r}; passwords are in the stack's "
                "passwords.json"
            )
        if not response.is_success:
            raise StackError(f"Airflow gave no token: {response.status_code} {_words(response)}")
        return str(response.json()["access_token"])

    # -- runs ----------------------------------------------------------------------------------

    def dag_is_known(self, dag_id: str) -> bool:
        return self.request("GET", f"/dags/{_q(dag_id)}", allowed=(404,)).status_code == 200

    def import_errors(self) -> list[str]:
        """What the DAG processor could not parse."""
        found = self.request("GET", "/importErrors").json()["import_errors"]
        return [f"{error['filename']}:\n{error['stack_trace']}" for error in found]

    def wait_for_dag(self, dag_id: str, timeout_s: float = 120.0) -> None:
        """Until Airflow has parsed the DAG; its import error where it could not."""
        ends_s = time.monotonic() + timeout_s
        while not self.dag_is_known(dag_id):
            if time.monotonic() > ends_s:
                faults = "\n".join(self.import_errors()) or "is its file in the DAG folder?"
                raise StackError(f"DAG {dag_id!r} is not known after {timeout_s:.0f} s; {faults}")
            time.sleep(1.0)

    def unpause(self, dag_id: str) -> None:
        self.request("PATCH", f"/dags/{_q(dag_id)}", json={"is_paused": False})

    def trigger(self, dag_id: str, conf: dict[str, Any], run_id: str | None = None) -> str:
        """Start a run by hand; returns its run id."""
        body: dict[str, Any] = {"conf": conf, "logical_date": None}
        if run_id:
            body["dag_run_id"] = run_id
        started = self.request("POST", f"/dags/{_q(dag_id)}/dagRuns", json=body)
        return str(started.json()["dag_run_id"])

    def dag_run(self, dag_id: str, run_id: str) -> dict[str, Any]:
        """Airflow's own record of a run: `state`, `run_type`, `triggering_user_name`, …"""
        found: dict[str, Any] = self.request("GET", _run_path(dag_id, run_id)).json()
        return found

    def run_state(self, dag_id: str, run_id: str) -> str:
        """`queued`, `running`, `success` or `failed`."""
        return str(self.dag_run(dag_id, run_id)["state"])

    def task_instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Every task of a run: `task_id`, `state`, `try_number`, `start_date`, …"""
        path = f"{_run_path(dag_id, run_id)}/taskInstances"
        found: list[dict[str, Any]] = self.request("GET", path, params={"limit": 100}).json()[
            "task_instances"
        ]
        return found

    def task_states(self, dag_id: str, run_id: str) -> dict[str, str | None]:
        """Task id to state."""
        return {found["task_id"]: found["state"] for found in self.task_instances(dag_id, run_id)}

    def task_log(self, dag_id: str, run_id: str, task_id: str, try_number: int) -> str:
        """A task's log as lines of text."""
        path = f"{_task_path(dag_id, run_id, task_id)}/logs/{try_number}"
        content = self.request("GET", path, params={"full_content": True}).json()["content"]
        lines = [
            str(entry.get("event", "")) if isinstance(entry, dict) else str(entry)
            for entry in content
        ]
        details = [
            f"{fault.get('exc_type')}: {fault.get('exc_value')}"
            for entry in content
            if isinstance(entry, dict)
            for fault in entry.get("error_detail") or []
        ]
        return "\n".join(lines + details)

    def clear(self, dag_id: str, run_id: str, task_ids: list[str] | None = None) -> None:
        """Clear tasks (or, with None, the whole run) as the Clear button does."""
        body: dict[str, Any] = {
            "dry_run": False,
            "dag_run_id": run_id,
            "only_failed": False,
            "reset_dag_runs": True,
            "include_downstream": True,
        }
        if task_ids is not None:
            body["task_ids"] = task_ids
        self.request("POST", f"/dags/{_q(dag_id)}/clearTaskInstances", json=body)

    def mark(self, dag_id: str, run_id: str, task_id: str, state: str) -> None:
        """Mark a task `success` or `failed` as the button does."""
        self.request("PATCH", _task_path(dag_id, run_id, task_id), json={"new_state": state})

    def ensure_pool(self, name: str, *, slots: int, description: str) -> None:
        """A pool that counts deferred tasks, made once."""
        body = {
            "name": name,
            "slots": slots,
            "description": description,
            "include_deferred": True,
        }
        self.request("POST", "/pools", json=body, allowed=(409,))

    # -- approvals -----------------------------------------------------------------------------

    def approval_record(self, dag_id: str, run_id: str, task_id: str) -> dict[str, Any] | None:
        """Airflow's own record of a human task's current try; None before it was asked."""
        path = f"{_task_path(dag_id, run_id, task_id)}/-1/hitlDetails"
        response = self.request("GET", path, allowed=(404,))
        found: dict[str, Any] | None = None if response.status_code == 404 else response.json()
        return found

    def open_questions(self, dag_id: str, task_id: str) -> list[dict[str, Any]]:
        """Airflow's records of a human task in every run in which it still waits for its answer."""
        path = f"{_run_path(dag_id, '~')}/hitlDetails"
        options = {"task_id": task_id, "response_received": False, "state": WAITING_STATES}
        found: list[dict[str, Any]] = self.request("GET", path, params=options).json()[
            "hitl_details"
        ]
        return found

    def approval_tries(
        self, dag_id: str, run_id: str, task_id: str, *, up_to: int
    ) -> list[dict[str, Any]]:
        """Airflow's records of every try of a human task that was asked, oldest first."""
        path = f"{_task_path(dag_id, run_id, task_id)}/-1/hitlDetails/tries"
        answers = [
            self.request("GET", f"{path}/{number}", allowed=(404,))
            for number in range(1, up_to + 1)
        ]
        return [answer.json() for answer in answers if answer.status_code != 404]

    def current_try(self, dag_id: str, run_id: str, task_id: str) -> int:
        """The try a task is in; a task that was cleared is in its next, started or not.

        Airflow counts a try when it starts. Until then a cleared task keeps its old number, and
        an approval its old answer: marked a success now, it would pass for answered.
        """
        number = self.try_number(dag_id, run_id, task_id)
        path = f"{_task_path(dag_id, run_id, task_id)}/tries"
        tries = self.request("GET", path).json()["task_instances"]
        was_cleared = sum(found["try_number"] == number for found in tries) > 1
        return number + 1 if was_cleared else number

    def try_number(self, dag_id: str, run_id: str, task_id: str) -> int:
        """The newest try that has started."""
        return int(self.request("GET", _task_path(dag_id, run_id, task_id)).json()["try_number"])

    def answer(
        self, dag_id: str, run_id: str, task_id: str, *, option: str, automated: bool
    ) -> dict[str, Any]:
        """Answer a human task as this user; `automated` is part of Airflow's record."""
        path = f"{_task_path(dag_id, run_id, task_id)}/-1/hitlDetails"
        body = {"chosen_options": [option], "params_input": {"automated": automated}}
        answered: dict[str, Any] = self.request("PATCH", path, json=body).json()
        return answered

    def approve_automatically(self, dag_id: str, run_id: str, task_id: str) -> dict[str, Any]:
        """Approve a waiting approval as this user, recorded as automated; returns the record.

        Airflow may lose an early answer: it then fails the task although the answer is recorded.
        Such a task is cleared and asks again.
        """
        task = (dag_id, run_id, task_id)
        for _ in range(MAX_ANSWERS):
            self._wait_for_question(*task)
            self.settle()
            self.answer(*task, option=APPROVE, automated=True)
            if self._ended_state(*task) == "success":
                record = self.approval_record(*task)
                if record is not None and record["response_received"]:
                    return record
            self.clear(dag_id, run_id, [task_id])
        raise StackError(
            f"{task_id!r} was answered {MAX_ANSWERS} times as {self.username!r}, but Airflow "
            "failed it each time; approve it by hand at "
            f"{self.base_url}/dags/{dag_id}/runs/{run_id}"
        )

    def settle(self) -> None:
        """Wait until the scheduler has gone round twice, so that it knows the task is waiting."""
        ends_s = time.monotonic() + SETTLE_TIMEOUT_S
        time.sleep(SETTLE_S)
        for _ in range(2):
            before = self._scheduler_heartbeat()
            while self._scheduler_heartbeat() == before and time.monotonic() < ends_s:
                time.sleep(0.5)

    def _scheduler_heartbeat(self) -> str:
        health = self.request("GET", "/monitor/health").json()
        return str((health.get("scheduler") or {}).get("latest_scheduler_heartbeat"))

    def _wait_for_question(self, dag_id: str, run_id: str, task_id: str) -> None:
        state = self._state_when(dag_id, run_id, task_id, (WAITING, "success", *BROKEN))
        if state != WAITING:
            raise StackError(f"task {task_id!r} is {state}, not {WAITING}; nothing to answer")

    def _ended_state(self, dag_id: str, run_id: str, task_id: str) -> str:
        return self._state_when(dag_id, run_id, task_id, ("success", *BROKEN))

    def _state_when(self, dag_id: str, run_id: str, task_id: str, wanted: tuple[str, ...]) -> str:
        """The task's state once it is one of `wanted`, or whatever it is when time is up."""
        ends_s = time.monotonic() + ANSWER_TIMEOUT_S
        path = _task_path(dag_id, run_id, task_id)
        while True:
            state = str(self.request("GET", path).json()["state"])
            if state in wanted or time.monotonic() > ends_s:
                return state
            time.sleep(1.0)


def _q(part: str) -> str:
    return quote(part, safe="")


def _run_path(dag_id: str, run_id: str) -> str:
    return f"/dags/{_q(dag_id)}/dagRuns/{_q(run_id)}"


def _task_path(dag_id: str, run_id: str, task_id: str) -> str:
    return f"{_run_path(dag_id, run_id)}/taskInstances/{_q(task_id)}"


def _words(response: httpx.Response) -> str:
    try:
        detail = response.json().get("detail", response.text)
    except (ValueError, AttributeError):
        detail = response.text
    return str(detail)[:500]
