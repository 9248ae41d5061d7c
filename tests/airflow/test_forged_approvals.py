"""Forged approvals through a real Airflow, as its real users; one run meets most of them.

`tests/forgeries` edits what promote reads; here on-call engineers, administrators, the service
account and the release manager use Airflow's own REST API, and promote is Airflow's own task.
"""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
import yaml
from airflow_harness import Deployed
from airflow_seeds import seeded_climb, write_recipe

from flywheel_core.airflow_client import WAITING, AirflowClient
from flywheel_core.artifacts import file_of, read_manifest
from flywheel_core.climbing import _account
from flywheel_core.deployment import Deployment
from flywheel_core.errors import PromotionRefused
from flywheel_core.plan import plan_path
from flywheel_core.pointers import Pointer, PointerRecord
from flywheel_core.release.policy import load_policy
from flywheel_core.release.promotion import promote_run, set_freeze
from flywheel_core.release.verdicts import verdict_ref
from flywheel_core.status import describe_status

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(900)]
DAG = "flywheel_weekly"
NAME = "besieged"
MANAGER = "release_manager"
APPROVE = {"chosen_options": ["Approve"], "params_input": {"automated": False}}


@dataclass
class Siege:
    """One run under attack, and how many attacks it has met."""

    deployed: Deployed
    name: str
    run_id: str
    attempts: list[str] = field(default_factory=list)
    clients: dict[str, AirflowClient] = field(default_factory=dict)

    def as_user(self, user: str) -> AirflowClient:
        if user not in self.clients:
            self.clients[user] = self.deployed.stack.client(user)
        return self.clients[user]

    @property
    def run(self) -> str:
        return f"/dags/{DAG}/dagRuns/{self.run_id}"

    def task(self, task_id: str) -> str:
        return f"{self.run}/taskInstances/{task_id}"

    @property
    def answer(self) -> str:
        return f"{self.task('approval')}/-1/hitlDetails"

    def pointers(self) -> dict[str, bytes]:
        store = self.deployed.store
        return {path: store.get(path) for path in store.list(f"{self.name}/pointers")}

    def call(self, user: str, method: str, path: str, body: Any) -> int:
        """One request as a user; the answer's status."""
        every = tuple(range(400, 500))
        return self.as_user(user).request(method, path, json=body, allowed=every).status_code

    def refused(self, user: str, method: str, path: str, body: Any, *statuses: int) -> None:
        """A request that Airflow itself must refuse."""
        before = self.pointers()
        found = self.call(user, method, path, body)
        assert found in statuses, f"{user} {method} {path} {body}: {found}"
        assert self.pointers() == before
        self.attempts.append(f"{user} {method} {path} {json.dumps(body)}")

    def mark(self, user: str, task_id: str, state: str = "success") -> None:
        self.as_user(user).mark(DAG, self.run_id, task_id, state)

    def clear(self, user: str, *tasks: str, downstream: bool = False) -> None:
        """Clear tasks as the button does, without what follows unless asked."""
        body = {
            "dry_run": False,
            "dag_run_id": self.run_id,
            "only_failed": False,
            "reset_dag_runs": True,
            "include_downstream": downstream,
            "task_ids": list(tasks),
        }
        self.as_user(user).request("POST", f"/dags/{DAG}/clearTaskInstances", json=body)

    def ask(self) -> None:
        """Clear the approval and what follows, and wait until the question stands."""
        self.clear("on_call", "approval", downstream=True)
        state = self.deployed.wait_for_state(DAG, self.run_id, "approval", WAITING)
        assert state == WAITING

    def promote_again(self, user: str = "on_call") -> None:
        self.clear(user, "promote")

    def promote_refuses(self, attack: str, sentence: str) -> None:
        """The promote task that runs now ends red with this sentence, and nothing has moved."""
        before = self.pointers()
        assert self.deployed.wait_for_run(DAG, self.run_id) == "failed", attack
        log = self.deployed.log_of(DAG, self.run_id, "promote")
        assert sentence in log, f"{attack}: {log[-2000:]}"
        assert self.pointers() == before, attack
        self.attempts.append(attack)

    def manager_answers(self, option: str, *, automated: bool = False) -> None:
        """The release manager answers a question whose task was marked meanwhile."""
        body = {"chosen_options": [option], "params_input": {"automated": automated}}
        self.as_user(MANAGER).request("PATCH", self.answer, json=body)


@contextmanager
def besiege(deployed: Deployed, name: str, user: str, **conf: Any) -> Iterator[Siege]:
    """A seeded climb of its own flywheel, triggered by `user`, its question standing."""
    siege = Siege(deployed, name, f"run-{name}")
    recipe = write_recipe(deployed.recipes, name)
    seeded_climb(deployed.store, recipe, deployed.policy, siege.run_id, internal=1160, user=1180)
    siege.as_user(user).trigger(DAG, {"recipe": name, **conf}, siege.run_id)
    state = deployed.wait_for_state(DAG, siege.run_id, "approval", WAITING)
    assert state == WAITING
    try:
        yield siege
    finally:
        for client in siege.clients.values():
            client.__exit__(None, None, None)


@contextmanager
def policy_with(deployed: Deployed, **changes: Any) -> Iterator[None]:
    """Another deployed policy, for as long as this takes."""
    genuine = deployed.policy.read_text()
    deployed.policy.write_text(yaml.safe_dump(yaml.safe_load(genuine) | changes))
    try:
        yield
    finally:
        deployed.policy.write_text(genuine)


@contextmanager
def edited(file: Path, data: bytes) -> Iterator[None]:
    """Other bytes in a file of the store, for as long as this takes."""
    genuine = file.read_bytes() if file.exists() else None
    file.write_bytes(data)
    try:
        yield
    finally:
        if genuine is None:
            file.unlink()
        else:
            file.write_bytes(genuine)


@pytest.fixture(scope="module")
def siege(deployed: Deployed) -> Iterator[Siege]:
    """A run whose starter tries to bring a policy along."""
    own = {"release_managers": ["on_call", "admin"], "self_approval_allowed": True}
    conf = {"policy": own, "policy_path": "/tmp/mine.yaml", "automated": True, **own}
    with besiege(deployed, NAME, "admin", **conf) as one:
        yield one


def test_only_the_deployed_policy_names_who_may_answer(siege: Siege) -> None:
    record = siege.deployed.admin.approval_record(DAG, siege.run_id, "approval")
    assert record is not None
    assert [user["id"] for user in record["assigned_users"]] == [MANAGER]
    found = siege.deployed.admin.dag_run(DAG, siege.run_id)
    assert (found["triggering_user_name"], found["run_type"]) == ("admin", "manual")


def test_other_users_and_other_answers_are_refused(siege: Siege) -> None:
    for user in ("on_call", "admin", "service"):
        siege.refused(user, "PATCH", siege.answer, APPROVE, 403)
        siege.refused(user, "PATCH", siege.answer, {"chosen_options": ["Reject"]}, 403)
    as_manager = {**APPROVE, "responded_by": {"id": MANAGER, "name": MANAGER}}
    siege.refused("on_call", "PATCH", siege.answer, as_manager, 403, 422)
    for options in (["approve"], ["Approve", "Reject"], ["Approve "], [], "Approve"):
        siege.refused(MANAGER, "PATCH", siege.answer, {"chosen_options": options}, 400, 422)


def test_the_service_account_only_reads(siege: Siege) -> None:
    mark = {"new_state": "success"}
    for task in ("approval", "promote"):
        siege.refused("service", "PATCH", siege.task(task), mark, 403)
        xcom = {"key": "return_value", "value": "Approve", "map_index": -1}
        siege.refused("service", "POST", f"{siege.task(task)}/xcomEntries", xcom, 403)
    clear = {"dry_run": False, "dag_run_id": siege.run_id, "task_ids": ["promote"]}
    siege.refused("service", "POST", f"/dags/{DAG}/clearTaskInstances", clear, 403)
    siege.refused("service", "PATCH", siege.run, {"state": "success"}, 403)
    started = {"conf": {"recipe": NAME}, "logical_date": None}
    siege.refused("service", "POST", f"/dags/{DAG}/dagRuns", started, 403)


def test_forged_tokens_are_refused(siege: Siege) -> None:
    """Tokens of the release manager's that Airflow has not signed, on both of its APIs."""
    info = siege.deployed.stack.info()
    assert info is not None
    own = siege.as_user("on_call")
    own.request("GET", "/version")
    genuine = own._token or ""
    claims = jwt.decode(genuine, options={"verify_signature": False}) | {"sub": MANAGER}
    claims |= {"username": MANAGER}
    forged = {
        "another key": jwt.encode(claims, "k" * 64, algorithm="HS512"),
        "no signature": jwt.encode(claims, None, algorithm="none"),
        "another's signature": _with_claims(genuine, claims),
    }
    instance = siege.deployed.admin.request("GET", siege.task("approval")).json()["id"]
    record = {"ti_id": instance, **APPROVE}
    for name, token in {**forged, "a user's token": genuine}.items():
        for path in (f"/api/v2{siege.answer}", f"/execution/hitlDetails/{instance}"):
            answer = httpx.patch(
                f"{info.airflow_url}{path}",
                headers={"Authorization": f"Bearer {token}"},
                json=APPROVE if path.startswith("/api") else record,
                timeout=30,
            )
            assert answer.status_code in (401, 403), f"{name} {path}: {answer.status_code}"
            siege.attempts.append(f"{name} {path}")
    found = siege.deployed.admin.approval_record(DAG, siege.run_id, "approval")
    assert found is not None
    assert not found["response_received"]


def _with_claims(token: str, claims: dict[str, Any]) -> str:
    header, _, signature = token.split(".")
    body = jwt.utils.base64url_encode(json.dumps(claims).encode()).decode()
    return f"{header}.{body}.{signature}"


def test_marks_and_xcoms_are_no_approval(siege: Siege) -> None:
    siege.mark("on_call", "approval")
    siege.promote_refuses("marked while it waited", "nobody has answered the approval")

    # Written as if the approval had returned it, as if promote had, and as if resolve had pinned
    # another plan: nothing reads them.
    approved = {"chosen_options": ["Approve"], "responded_by_user": {"id": MANAGER}}
    plan = {"plan": plan_path("other", siege.run_id), "generation": 9, "keys": {}}
    written = {"approval": approved, "promote": "production is now generation 1", "resolve": plan}
    for task, value in written.items():
        entries = f"{siege.task(task)}/xcomEntries"
        for user in ("on_call", MANAGER):
            body = {"key": "return_value", "value": value, "map_index": -1}
            status = siege.call(user, "POST", entries, body)
            if status == 409:
                body = {"value": value, "map_index": -1}
                status = siege.call(user, "PATCH", f"{entries}/return_value", body)
            assert status in (200, 201), f"{user} {task}: {status}"
    siege.promote_again()
    siege.promote_refuses("XComs of an approval", "nobody has answered the approval")
    siege.promote_again(MANAGER)
    siege.promote_refuses("promote run again by the manager", "nobody has answered the approval")
    siege.refused("admin", "PATCH", siege.answer, APPROVE, 403)

    siege.clear("on_call", "approval", downstream=True)
    siege.mark("on_call", "approval")
    siege.promote_refuses("cleared and marked before it was asked", "nobody has answered")


def test_a_marked_promote_moves_nothing_and_status_tells_the_truth(siege: Siege) -> None:
    before = siege.pointers()
    siege.mark("on_call", "promote")
    assert siege.deployed.admin.task_states(DAG, siege.run_id)["promote"] == "success"
    siege.attempts.append("promote marked success")
    assert siege.call("on_call", "PATCH", siege.run, {"state": "success"}) == 200
    siege.attempts.append("the run marked success")
    assert siege.deployed.wait_for_run(DAG, siege.run_id) == "success"
    assert siege.pointers() == before
    deployment = Deployment(
        siege.deployed.stack.state_dir, siege.deployed.stack.store_root, siege.deployed.policy
    )
    production = describe_status(deployment)["flywheels"][NAME]["production"]
    assert (production["number"], production["value"]["ref"]["generation"]) == (1, 0)
    ended = _account(deployment, NAME, siege.run_id, "success", siege.deployed.admin, MANAGER, 0.0)
    assert (ended.outcome, ended.as_asked) == ("failed", False)
    assert "was marked, not run" in ended.reason


def test_a_rejection_marked_success_is_a_rejection(siege: Siege) -> None:
    siege.ask()
    siege.mark("on_call", "approval")
    siege.promote_refuses("asked again and marked", "nobody has answered")
    siege.manager_answers("Reject")
    siege.promote_again()
    siege.promote_refuses("a rejection marked success", "chosen_options ['Reject']")
    siege.refused(MANAGER, "PATCH", siege.answer, APPROVE, 409)


def test_a_valid_approval_releases_nothing_else_than_what_was_approved(siege: Siege) -> None:
    """The manager approves, with releases frozen; then what would be released is changed."""
    store = siege.deployed.store
    set_freeze(store, NAME, frozen=True, by="on_call", reason="incident")
    siege.ask()
    siege.mark("on_call", "approval")
    siege.promote_refuses("marked while frozen", "frozen true: releases are frozen")
    siege.manager_answers("Approve")
    siege.promote_again()
    siege.promote_refuses("approved while frozen", "frozen true: releases are frozen")
    set_freeze(store, NAME, frozen=False, by="on_call", reason="over")

    path = plan_path(NAME, siege.run_id)
    plan = json.loads(store.get(path))
    for name, data, sentence in _changes(siege, plan):
        with edited(store.local_path(name), data):
            siege.promote_again()
            siege.promote_refuses(name, sentence)
    with policy_with(siege.deployed, release_managers=[MANAGER, "on_call"]):
        siege.promote_again()
        siege.promote_refuses("another policy", "what was approved is not what would be promoted")


def _changes(siege: Siege, plan: dict[str, Any]) -> Iterator[tuple[str, bytes, str]]:
    """Files of the store with what an attacker writes there, and the sentence it meets."""
    store, policy = siege.deployed.store, load_policy(siege.deployed.policy)
    path = plan_path(NAME, siege.run_id)
    pinned = siege_plan(siege)
    model = file_of(read_manifest(store, pinned.stage("evaluate").ref), "model/config.json")
    yield model, b"{}", "was changed after its evaluation"
    verdict = file_of(read_manifest(store, verdict_ref(pinned, "safety", policy)), "verdict.json")
    yield verdict, store.get(verdict).replace(b"pass", b"warn"), "verdict.json differs"
    other = json.dumps(plan | {"flywheel": "healthy"}).encode()
    yield path, other, "is not the run that reads it"
    later = json.dumps(plan | {"policy_digest": "0" * 64}).encode()
    yield path, later, "what was approved is not what would be promoted"
    first = store.get(f"{NAME}/pointers/production/00000001.json")
    record = PointerRecord.model_validate_json(first)
    forged = record.model_copy(update={"number": 2, "value": record.value | {"plan": path}})
    second = f"{NAME}/pointers/production/00000002.json"
    yield second, forged.model_dump_json().encode(), "claims to be this run's promotion"
    moved = record.model_copy(update={"number": 2})
    yield second, moved.model_dump_json().encode(), "production has moved since"


def siege_plan(siege: Siege) -> Any:
    from flywheel_core.plan import load_plan

    return load_plan(siege.deployed.store, plan_path(siege.name, siege.run_id))


def test_an_earlier_trys_approval_does_not_serve(siege: Siege) -> None:
    """Airflow keeps a cleared task's number and its answer until the next try starts."""
    siege.clear("on_call", "approval", downstream=True)
    siege.mark("on_call", "approval")
    siege.promote_refuses("approved, cleared, marked", "the answer was given to another try")


def test_control_the_same_run_is_promoted_by_a_valid_approval_once(siege: Siege) -> None:
    """Promote's own task and eight more readers at once: one record."""
    siege.ask()
    siege.mark("on_call", "approval")
    siege.deployed.wait_for_run(DAG, siege.run_id)
    siege.manager_answers("Approve")
    siege.promote_again()

    def release(_: int) -> str:
        with siege.deployed.stack.client("service") as airflow:
            try:
                return promote_run(
                    siege.deployed.store,
                    plan_path(NAME, siege.run_id),
                    load_policy(siege.deployed.policy),
                    airflow,
                    dag_id=DAG,
                    run_id=siege.run_id,
                    task_id="approval",
                ).said
            except PromotionRefused as refusal:
                return str(refusal)

    with ThreadPoolExecutor(8) as releases:
        said = list(releases.map(release, range(8)))
    siege.deployed.wait_for_run(DAG, siege.run_id)
    history = Pointer(siege.deployed.store, NAME, "production").history()
    assert [record.number for record in history] == [1, 2], said
    assert (history[-1].by, history[-1].value["automated"]) == (MANAGER, False)
    assert all("generation 1" in one or "already" in one or "moved" in one for one in said)
    siege.promote_again()
    assert siege.deployed.wait_for_run(DAG, siege.run_id) == "success"
    assert "nothing to do" in siege.deployed.log_of(DAG, siege.run_id, "promote")
    print(f"{len(set(siege.attempts))} forged attempts through Airflow, 0 through")
    assert len(set(siege.attempts)) >= 40


def test_whoever_triggers_a_run_does_not_approve_it(deployed: Deployed) -> None:
    with besiege(deployed, "own", MANAGER) as siege:
        siege.mark("on_call", "approval")
        siege.promote_refuses("marked by another", "nobody has answered")
        siege.manager_answers("Approve")
        siege.promote_again()
        siege.promote_refuses("approved by whoever triggered it", "the same user triggered")

        strict = {"self_approval_allowed": True, "automated_approval_allowed": False}
        with policy_with(deployed, **strict):
            siege.ask()
            siege.mark("on_call", "approval")
            siege.promote_refuses("marked for a program", "nobody has answered")
            siege.manager_answers("Approve", automated=True)
            siege.promote_again()
            siege.promote_refuses("answered by a program", "let a program answer")
