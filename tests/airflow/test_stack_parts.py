"""Ports, passwords and settings of the stack, without starting it."""

import configparser
import json
import os
import signal
import socket
import stat
import sys
from pathlib import Path

import pytest

from flywheel_core.errors import ConfigError, StackError
from flywheel_core.stack import Stack, Supervisor
from flywheel_core.stack.airflow_side import write_settings
from flywheel_core.stack.processes import (
    HOST,
    STACK_ID_VARIABLE,
    choose_port,
    end_leftovers,
    is_alive,
    members,
    members_of,
    start,
    stop,
    wait_until,
)
from flywheel_core.stack.secrets import (
    ROLES,
    password_of,
    passwords,
    ray_token,
    read_service_credentials,
)


def is_private(path: Path) -> bool:
    return stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_port_in_use_is_one_clear_message() -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(StackError, match=f"port {port} on 127.0.0.1 is in use"):
            choose_port(port, (), "Airflow")
        assert choose_port(None, (port,), "Airflow") != port


def test_passwords_are_made_once_and_private(tmp_path: Path) -> None:
    path = tmp_path / "passwords.json"
    known = passwords(path)
    assert set(known) == set(ROLES)
    assert passwords(path) == known
    assert is_private(path)
    with pytest.raises(StackError, match="users: admin, release_manager"):
        password_of(path, "nobody")


def test_secrets_are_private_and_settings_move_the_port_three_times(tmp_path: Path) -> None:
    write_settings(tmp_path, port=9, dags_folder=tmp_path, passwords_file=tmp_path / "p.json")
    settings = configparser.ConfigParser(interpolation=None)
    settings.read(tmp_path / "airflow.cfg")
    assert settings["api"]["port"] == "9"
    assert settings["api"]["host"] == HOST
    assert settings["api"]["base_url"] == "http://127.0.0.1:9"
    assert settings["core"]["execution_api_server_url"] == "http://127.0.0.1:9/execution/"
    assert len(settings["api_auth"]["jwt_secret"]) >= 64
    assert int(settings["workers"]["execution_api_retries"]) > 5
    ray_token(tmp_path / "ray_token")
    for name in ("airflow.cfg", "airflow_keys.json", "p.json", "ray_token"):
        assert is_private(tmp_path / name), name


def test_a_readable_credentials_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "service_credentials.json"
    path.write_text(json.dumps({"username": "service", "password": "x"}))
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        read_service_credentials(path)


NAPS = (
    "import subprocess, sys, time\n"
    "nap = [sys.executable, '-c', 'import time; time.sleep(600)']\n"
    "subprocess.Popen(nap, process_group=0, env={})\n"
    "subprocess.Popen(nap, start_new_session=True)\n"
    "time.sleep(600)\n"
)
"""Children as Airflow's workers (own group, title over environment) and Ray's (own session)."""


def test_stopping_finds_processes_that_left_the_group_or_lost_the_mark(tmp_path: Path) -> None:
    environment = {STACK_ID_VARIABLE: "test-of-stop"}
    part = start("naps", [sys.executable, "-c", NAPS], environment, tmp_path / "naps.log")
    assert wait_until(lambda: len(members([part], "test-of-stop")) == 3, timeout_s=20)
    stop([part], "test-of-stop", grace_s=1)
    assert not members([part], "test-of-stop")


def test_what_a_dead_part_left_ends_and_another_parts_processes_do_not(tmp_path: Path) -> None:
    environment = {STACK_ID_VARIABLE: "test-of-leftovers"}
    command = [sys.executable, "-c", NAPS]
    dead, other = (
        start(name, command, environment, tmp_path / f"{name}.log") for name in ("dead", "other")
    )
    both = (dead, other)
    assert wait_until(lambda: len(members(both, "test-of-leftovers")) == 6, timeout_s=20)
    os.kill(dead.pid, signal.SIGKILL)
    assert wait_until(lambda: not is_alive(dead), timeout_s=5)
    assert len(members_of(dead, "test-of-leftovers")) == 2
    assert end_leftovers(dead, "test-of-leftovers") == 2
    assert len(members_of(other, "test-of-leftovers")) == 3
    stop([other], "test-of-leftovers", grace_s=1)


class DyingStack:
    """Of its parts, those in `dying` die between two looks."""

    def __init__(self) -> None:
        self.dying: tuple[str, ...] = ()

    def restart_dead(self) -> tuple[str, ...]:
        return self.dying

    def log_of(self, name: str) -> str:
        return f"logs/{name}.log"


def test_the_supervisor_restarts_and_says_so_but_not_for_ever() -> None:
    stack, said, now_s = DyingStack(), list[str](), [0.0]
    supervisor = Supervisor(stack, said.append, clock=lambda: now_s[0])
    assert supervisor.look() == ()
    stack.dying = ("triggerer",)
    for _ in range(8):  # once every two minutes: no crash loop
        now_s[0] += 120
        assert supervisor.look() == ("triggerer",)
    assert said == ["triggerer had died: started again, on its own state"] * 8
    now_s[0] += 1000
    for _ in range(4):
        now_s[0] += 10
        supervisor.look()
    with pytest.raises(StackError, match=r"triggerer died 5 times within 300 s.*logs/triggerer"):
        supervisor.look()


def test_a_stack_that_never_ran_says_so(tmp_path: Path) -> None:
    stack = Stack(tmp_path)
    assert not stack.status().running
    stack.down()
    with pytest.raises(StackError, match="flywheel up"):
        stack.client()
