"""On the running stack: nothing listens beyond this machine, and no secret lies in the open."""

import re
import socket
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from airflow_harness import Deployed
from airflow_seeds import JOBS, commit_stage, seeded_climb, two_stage_plan, write_recipe

from flywheel_core.airflow_client import WAITING
from flywheel_core.stack.processes import members, wait_until
from flywheel_core.stack.secrets import ROLES, airflow_keys, passwords, ray_token

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(600)]
WEEKLY = "flywheel_weekly"
RUN = "run-guarded"
SECRET_FILES = {
    "passwords.json",
    "service_credentials.json",
    "ray_token",
    "airflow/airflow.cfg",
    "airflow/airflow_keys.json",
}


# -- what listens ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Door:
    """A socket that takes what comes in."""

    process: str
    address: str
    port: int

    @property
    def is_open(self) -> bool:
        return not self.address.startswith("127.") and self.address not in (
            "::1",
            "::ffff:127.0.0.1",
        )


def doors(processes: list[psutil.Process]) -> set[Door]:
    """Every listening TCP socket and every unconnected UDP socket of the processes."""
    found = set()
    for process in processes:
        try:
            name = " ".join(process.cmdline())[:120] or process.name()
            connections = process.net_connections("inet")
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        for one in connections:
            waits = one.type == socket.SOCK_DGRAM and not one.raddr
            if one.status == psutil.CONN_LISTEN or waits:
                found.add(Door(name, one.laddr.ip, one.laddr.port))
    return found


def stack_processes(deployed: Deployed) -> list[psutil.Process]:
    info = deployed.stack.info()
    assert info is not None
    found = members(info.parts, info.stack_id)
    children = [child for process in found for child in _children(process)]
    return list({process.pid: process for process in [*found, *children]}.values())


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def test_the_search_finds_an_open_door() -> None:
    with (
        socket.create_server(("0.0.0.0", 0)) as server,
        socket.socket(type=socket.SOCK_DGRAM) as udp,
    ):
        udp.bind(("0.0.0.0", 0))
        found = {door.port for door in doors([psutil.Process()]) if door.is_open}
        assert {server.getsockname()[1], udp.getsockname()[1]} <= found


def test_everything_listens_on_this_machine_only(deployed: Deployed) -> None:
    info = deployed.stack.info()
    assert info is not None
    processes = stack_processes(deployed)
    found = doors(processes)
    assert {info.airflow_port, info.ray_port} <= {door.port for door in found}
    assert len(processes) >= 8
    assert not [door for door in found if door.is_open]


def test_a_ray_job_opens_no_door(deployed: Deployed) -> None:
    recipe = write_recipe(deployed.recipes, "doors", env={"PYTHONPATH": str(JOBS)})
    plan = two_stage_plan(deployed.store, recipe, "run-doors", {"sleep_s": 8}, {})
    commit_stage(deployed.store, plan, "second")
    deployed.admin.trigger("two_stages", {"recipe": "doors"}, "run-doors")

    def drivers() -> list[psutil.Process]:
        return [one for one in stack_processes(deployed) if "first_stage" in _command(one)]

    assert wait_until(lambda: bool(drivers()), timeout_s=120)
    seen: set[Door] = set()
    while drivers():
        seen |= doors(stack_processes(deployed))
    assert deployed.wait_for_run("two_stages", "run-doors") == "success"
    assert seen
    assert not [door for door in seen if door.is_open]


def _command(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


# -- where secrets are -----------------------------------------------------------------------------


def secrets_of(deployed: Deployed) -> dict[str, bytes]:
    """Every secret of the stack, by name."""
    stack = deployed.stack
    keys = airflow_keys(stack.state_dir / "airflow" / "airflow_keys.json")
    found = {f"password of {user}": word for user, word in passwords(stack.passwords_file).items()}
    found |= keys | {"ray token": ray_token(stack.ray_token_file)}
    assert len(found) == len(ROLES) + len(keys) + 1
    assert all(len(secret) >= 20 for secret in found.values())
    return {name: secret.encode() for name, secret in found.items()}


@pytest.fixture(scope="module")
def guarded(deployed: Deployed) -> Deployed:
    """A run in which every secret was used: users logged in, promote read the service account."""
    recipe = write_recipe(deployed.recipes, "guarded")
    seeded_climb(deployed.store, recipe, deployed.policy, RUN, internal=1160, user=1180)
    deployed.admin.trigger(WEEKLY, {"recipe": "guarded"}, RUN)
    assert deployed.wait_for_state(WEEKLY, RUN, "approval", WAITING) == WAITING
    deployed.admin.mark(WEEKLY, RUN, "approval", "success")
    assert deployed.wait_for_run(WEEKLY, RUN) == "failed"
    return deployed


def files_to_search(deployed: Deployed) -> Iterator[Path]:
    """Home, store, logs, Airflow's database (XCom and log tables too), and Ray's own folder."""
    info = deployed.stack.info()
    assert info is not None
    home = deployed.stack.state_dir
    secret = {home / name for name in SECRET_FILES}
    for folder in (home.parent, Path(info.ray_temporary)):  # the store lies below home
        for path in folder.rglob("*"):
            if path.is_file() and not path.is_symlink() and path not in secret:
                yield path


def test_no_secret_is_in_a_file_but_its_own(guarded: Deployed) -> None:
    secrets = secrets_of(guarded)
    searched, found = set(), []
    for path in files_to_search(guarded):
        try:
            data = path.read_bytes()
        except OSError:
            continue
        searched.add(path)
        found += [f"{name} in {path}" for name, secret in secrets.items() if secret in data]
    assert not found
    home = guarded.stack.state_dir
    for name in SECRET_FILES:  # the search would have found them there
        assert any(secret in (home / name).read_bytes() for secret in secrets.values()), name
    names = {path.name for path in searched}
    assert {"airflow.db", "stack.json", "airflow-api-server.log", "manifest.json"} <= names
    assert any("task_id=promote" in str(path) for path in searched)


def test_secret_files_are_the_owners_alone(guarded: Deployed) -> None:
    home = guarded.stack.state_dir
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    for name in (*SECRET_FILES, "airflow/airflow.db"):
        assert stat.S_IMODE((home / name).stat().st_mode) == 0o600, name


def test_no_secret_is_on_a_command_line_or_in_an_environment(guarded: Deployed) -> None:
    secrets = secrets_of(guarded)
    ours = {process.pid for process in stack_processes(guarded)}
    assert len(ours) >= 8
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        texts = ["cmdline", *(["environ"] if int(folder.name) in ours else [])]
        for text in texts:
            try:
                data = (folder / text).read_bytes()
            except OSError:
                continue
            found += [
                f"{name} in {folder / text}" for name, word in secrets.items() if word in data
            ]
    assert not found


READABLE = (
    "/config",
    "/connections",
    "/variables",
    "/eventLogs?limit=100&order_by=-event_log_id",
    "/importErrors",
    "/plugins",
    "/providers",
    "/pools",
    "/jobs",
    "/dags",
    f"/dags/{WEEKLY}/details",
    f"/dagSources/{WEEKLY}",
    f"/dags/{WEEKLY}/dagRuns?limit=100",
    f"/dags/{WEEKLY}/dagRuns/{RUN}/taskInstances?limit=100",
    f"/dags/{WEEKLY}/dagRuns/{RUN}/hitlDetails",
    f"/dags/{WEEKLY}/dagRuns/{RUN}/taskInstances/promote/logs/1?full_content=true",
    f"/dags/{WEEKLY}/dagRuns/{RUN}/taskInstances/approval/-1/hitlDetails",
    f"/dags/{WEEKLY}/dagRuns/{RUN}/taskInstances/resolve/xcomEntries/return_value",
    f"/dags/{WEEKLY}/dagRuns/{RUN}/taskInstances/~/xcomEntries",
)


@pytest.mark.parametrize("user", sorted(ROLES))
def test_no_answer_of_the_api_holds_a_secret(guarded: Deployed, user: str) -> None:
    secrets = secrets_of(guarded)
    answered = 0
    every = tuple(range(400, 500))
    with guarded.stack.client(user) as client:
        for path in READABLE:
            answer = client.request("GET", path, allowed=every)
            answered += answer.is_success
            found = [name for name, secret in secrets.items() if secret in answer.content]
            assert not found, f"{user} GET {path}"
    assert answered >= 8


def test_no_artifact_says_where_a_secret_lies(guarded: Deployed) -> None:
    """Artifacts travel; a path to a key file, a token or a login has no place in one."""
    tells = re.compile(rb"passwords\.json|service_credentials|ray_token|airflow_keys|Bearer ")
    for path in guarded.store.list(""):
        if not path.endswith((".log", ".safetensors", ".parquet")):
            assert not tells.search(guarded.store.get(path)), path
