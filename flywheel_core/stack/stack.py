"""The stack as a whole: up, down, status, and one part started anew."""

import contextlib
import fcntl
import os
import shutil
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import httpx
from pydantic import BaseModel, ConfigDict

from flywheel_core.airflow_client import AirflowClient
from flywheel_core.deployment import DEFAULT_POLICY
from flywheel_core.errors import StackError
from flywheel_core.recipe import RECIPE_FOLDER
from flywheel_core.stack import airflow_side, ray_side
from flywheel_core.stack.processes import (
    HOST,
    STACK_ID_VARIABLE,
    Part,
    choose_port,
    end_leftovers,
    is_alive,
    last_lines,
    members,
    start,
    stop,
    wait_until,
)
from flywheel_core.stack.secrets import (
    SERVICE_USER,
    ServiceCredentials,
    password_of,
    passwords,
    ray_token,
    write_private,
)

REPOSITORY = RECIPE_FOLDER.parent.parent
AIRFLOW_PORTS = range(8080, 8090)
RAY_PORTS = range(8265, 8275)
TRAINING_POOL = "ray_training"
HEALTHY_TIMEOUT_S = 240.0
STOP_GRACE_S = 10.0
RAY_START_ATTEMPTS = 3

Progress = Callable[[str], None]


class StackInfo(BaseModel):
    """`stack.json`: where a running stack listens and which processes it is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stack_id: str
    airflow_url: str
    airflow_port: int
    ray_url: str
    ray_port: int
    ray_temporary: str
    passwords_file: str
    parts: tuple[Part, ...]


class StackStatus(BaseModel):
    """Whether each part runs, and whether both answer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    running: bool
    airflow_healthy: bool = False
    ray_healthy: bool = False
    dead_parts: tuple[str, ...] = ()
    info: StackInfo | None = None


class Stack:
    """Airflow and Ray with their state below `state_dir`; starting again goes on from it.

    `airflow_port` and `ray_port` insist on a port; without them the usual ones are tried first,
    then any free one. `extra_env` reaches Airflow and Ray (a test's settings).
    """

    def __init__(
        self,
        state_dir: Path,
        *,
        store_root: str | None = None,
        policy_path: Path | None = None,
        recipes: Path = RECIPE_FOLDER,
        dags_folder: Path = REPOSITORY / "dags",
        airflow_port: int | None = None,
        ray_port: int | None = None,
        num_cpus: int = 2,
        extra_env: dict[str, str] | None = None,
    ) -> None:
        self.state_dir = Path(state_dir).expanduser().absolute()
        self.store_root = store_root or str(self.state_dir / "store")
        self.policy_path = Path(policy_path or DEFAULT_POLICY).absolute()
        self.recipes = recipes
        self.dags_folder = dags_folder
        self.passwords_file = self.state_dir / "passwords.json"
        self.ray_token_file = self.state_dir / "ray_token"
        self.service_file = self.state_dir / "service_credentials.json"
        self._asked_ports = (airflow_port, ray_port)
        self._num_cpus = num_cpus
        self._extra_env = dict(extra_env or {})
        self._is_alone = False

    # -- what is there -------------------------------------------------------------------------

    def info(self) -> StackInfo | None:
        """What `stack.json` says, whether or not it still runs."""
        path = self.state_dir / "stack.json"
        return StackInfo.model_validate_json(path.read_text()) if path.is_file() else None

    def status(self) -> StackStatus:
        """What runs now."""
        info = self.info()
        if info is None:
            return StackStatus(running=False)
        dead = tuple(part.name for part in info.parts if not is_alive(part))
        return StackStatus(
            running=len(dead) < len(info.parts),
            airflow_healthy=_airflow_unhealthy(info.airflow_url) is None,
            ray_healthy=self._ray_healthy(info),
            dead_parts=dead,
            info=info,
        )

    def client(self, user: str = "admin") -> AirflowClient:
        """Airflow's REST API as one of the seeded users."""
        info = self.info()
        if info is None:
            raise StackError("the stack is not running; run `flywheel up`")
        return AirflowClient(info.airflow_url, user, password_of(self.passwords_file, user))

    # -- up and down ---------------------------------------------------------------------------

    def up(self, progress: Progress = lambda line: None) -> StackInfo:
        """Start everything and wait until it is healthy. A running stack is left as it is, but
        for what has died of it: that is started anew."""
        with self._alone():
            running = self._already_running()
            if running is not None:
                progress(f"already running: Airflow {running.airflow_url}, Ray {running.ray_url}")
                return running
            info = self._prepare()
            try:
                return self._start_all(info, progress)
            except BaseException:
                self.down()
                raise

    def _start_all(self, info: StackInfo, progress: Progress) -> StackInfo:
        progress(f"Ray: starting on {info.ray_url}")
        info = self._start_ray(info)
        progress("Airflow: preparing its database")
        self._prepare_airflow(info)
        info = self._wait_for_ray(info, progress)
        progress("Ray: healthy")
        progress(f"Airflow: starting on {info.airflow_url}")
        for name in airflow_side.PARTS:
            info = self._start_airflow_part(info, name)
        self._wait_for_airflow(info)
        progress("Airflow: healthy")
        self._seed()
        return info

    def down(self) -> None:
        """Stop every process of this stack; its state stays."""
        if self.info() is None:
            return
        with self._alone():
            info = self.info()
            if info is None:
                return
            stop(info.parts, info.stack_id, grace_s=STOP_GRACE_S)
            shutil.rmtree(info.ray_temporary, ignore_errors=True)
            self.state_dir.joinpath("stack.json").unlink(missing_ok=True)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Only one of all the processes that look after this stack changes it at a time."""
        if self._is_alone:  # a start that fails stops what it had started
            yield
            return
        self.state_dir.mkdir(parents=True, exist_ok=True)
        with (self.state_dir / "change.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._is_alone = True
            try:
                yield
            finally:
                self._is_alone = False

    def restart_dead(self) -> tuple[str, ...]:
        """Start anew every part of Airflow that has died, and Ray if its head has.

        What a dead part left running ends first, as a container's processes end with it. One
        caller at a time: whoever comes second finds everything alive.
        """
        if self.info() is None:
            return ()
        with self._alone():
            info = self.info()
            dead = [part for part in info.parts if not is_alive(part)] if info else []
            for part in dead:
                self._start_anew(part)
        return tuple(part.name for part in dead)

    def environment(self, info: StackInfo) -> dict[str, str]:
        """What every process of the stack inherits."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("AIRFLOW", "RAY_", "FLYWHEEL_"))
        }
        binaries = str(Path(sys.executable).parent)
        return kept | {
            "PATH": f"{binaries}{os.pathsep}{kept.get('PATH', os.defpath)}",
            "PYTHONPATH": os.pathsep.join(
                part for part in (str(REPOSITORY), kept.get("PYTHONPATH", "")) if part
            ),
            "PYTHONUNBUFFERED": "1",
            STACK_ID_VARIABLE: info.stack_id,
            "AIRFLOW_HOME": str(self._airflow_home),
            "FLYWHEEL_HOME": str(self.state_dir),
            "FLYWHEEL_STORE": self.store_root,
            "FLYWHEEL_RAY_ADDRESS": info.ray_url,
            "FLYWHEEL_POLICY": str(self.policy_path),
            "FLYWHEEL_RECIPES": str(self.recipes),
            "FLYWHEEL_AIRFLOW_API": info.airflow_url,
            "FLYWHEEL_SERVICE_CREDENTIALS": str(self.service_file),
            "FLYWHEEL_WORK": str(self.state_dir / "scratch" / "work"),
            "FLYWHEEL_SCHEDULE": "manual",
            "FLYWHEEL_NOTIFY": _absolute(os.environ.get("FLYWHEEL_NOTIFY", "")),
            "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "300",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.ray_token_file),
            # Ray's switch for a head that is reached from this machine only; without it every
            # part of Ray listens on every interface.
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
            "DO_NOT_TRACK": "1",
            "HF_HUB_OFFLINE": "1",
            **self._extra_env,
        }

    # -- steps ---------------------------------------------------------------------------------

    @property
    def _airflow_home(self) -> Path:
        return self.state_dir / "airflow"

    def _already_running(self) -> StackInfo | None:
        """The stack, if any part of it lives, once it is whole again. A part that is just being
        started anew is no reason to end the jobs of the others."""
        status = self.status()
        if status.info is None:
            return None
        if not status.running:
            self.down()
            return None
        self.restart_dead()
        info = self.info() or status.info
        try:
            self._wait(info, ("ray",), "Ray", partial(self._ray_healthy, info))
            self._wait_for_airflow(info)
        except StackError:
            self.down()
            return None
        return info

    def _prepare(self) -> StackInfo:
        self.state_dir.mkdir(parents=True, exist_ok=True)
        self.state_dir.chmod(0o700)
        asked_airflow, asked_ray = self._asked_ports
        airflow_port = choose_port(asked_airflow, AIRFLOW_PORTS, "Airflow")
        ray_port = choose_port(asked_ray, RAY_PORTS, "Ray dashboard")
        known = passwords(self.passwords_file)
        credentials = ServiceCredentials(username=SERVICE_USER, password=known[SERVICE_USER])
        write_private(self.service_file, credentials.model_dump_json())
        ray_token(self.ray_token_file)
        return self._save(
            StackInfo(
                stack_id=uuid.uuid4().hex,
                airflow_url=f"http://{HOST}:{airflow_port}",
                airflow_port=airflow_port,
                ray_url=f"http://{HOST}:{ray_port}",
                ray_port=ray_port,
                # Short, and outside `state_dir`: Unix sockets' paths end at 107 bytes.
                ray_temporary=tempfile.mkdtemp(prefix="fw-ray-", dir="/tmp"),
                passwords_file=str(self.passwords_file),
                parts=(),
            )
        )

    def _save(self, info: StackInfo) -> StackInfo:
        write_private(self.state_dir / "stack.json", info.model_dump_json(indent=1) + "\n")
        return info

    def _with_part(self, info: StackInfo, part: Part) -> StackInfo:
        others = tuple(other for other in info.parts if other.name != part.name)
        return self._save(info.model_copy(update={"parts": (*others, part)}))

    def log_of(self, name: str) -> str:
        """Where a part's log lies, over all its lives."""
        return str(self._log(name if name == "ray" else f"airflow-{name}"))

    def _log(self, name: str) -> Path:
        return self.state_dir / "logs" / f"{name}.log"

    def _start_ray(self, info: StackInfo) -> StackInfo:
        command = ray_side.command(
            dashboard_port=info.ray_port,
            num_cpus=self._num_cpus,
            temporary=Path(info.ray_temporary),
        )
        return self._with_part(
            info, start("ray", command, self.environment(info), self._log("ray"))
        )

    def _prepare_airflow(self, info: StackInfo) -> None:
        self._airflow_home.mkdir(exist_ok=True)
        airflow_side.write_settings(
            self._airflow_home,
            port=info.airflow_port,
            dags_folder=self.dags_folder,
            passwords_file=self.passwords_file,
        )
        log = self._log("airflow-database")
        airflow_side.migrate(self._airflow_home, self.environment(info), log)

    def _start_airflow_part(self, info: StackInfo, name: str) -> StackInfo:
        log = self._log(f"airflow-{name}")
        return self._with_part(
            info, start(name, airflow_side.command(name), self.environment(info), log)
        )

    def _start_anew(self, part: Part) -> None:
        info = self.info()
        if info is None:  # stopped meanwhile
            return
        end_leftovers(part, info.stack_id)
        if part.name == "ray":
            self._start_ray(info)
        else:
            self._start_airflow_part(info, part.name)

    def _wait_for_ray(self, info: StackInfo, progress: Progress) -> StackInfo:
        """Ray gives its own start 30 s, which a busy machine may not keep: try again."""
        for attempt in range(1, RAY_START_ATTEMPTS + 1):
            try:
                self._wait(info, ("ray",), "Ray", partial(self._ray_healthy, info))
                return info
            except StackError:
                if attempt == RAY_START_ATTEMPTS:
                    raise
                progress(f"Ray: did not start (attempt {attempt}); starting it again")
                stop(info.parts, info.stack_id, grace_s=STOP_GRACE_S)
                info = self._start_ray(info)
        raise AssertionError("unreachable")

    def _wait_for_airflow(self, info: StackInfo) -> None:
        self._wait(
            info,
            tuple(airflow_side.PARTS),
            "Airflow",
            lambda: _airflow_unhealthy(info.airflow_url) is None,
        )

    def _wait(
        self, info: StackInfo, names: tuple[str, ...], what: str, healthy: Callable[[], bool]
    ) -> None:
        parts = [part for part in info.parts if part.name in names]

        def dead() -> list[Part]:
            return [part for part in parts if not is_alive(part)]

        wait_until(lambda: healthy() or bool(dead()), timeout_s=HEALTHY_TIMEOUT_S, every_s=0.5)
        for part in dead():
            raise StackError(
                f"{what}: {part.name} ended while starting; {part.log} ends:\n"
                f"{last_lines(part.log)}"
            )
        if not healthy():
            ends = "\n".join(f"{part.log}:\n{last_lines(part.log, 5)}" for part in parts)
            raise StackError(f"{what} was not healthy after {HEALTHY_TIMEOUT_S:.0f} s\n{ends}")

    def _ray_healthy(self, info: StackInfo) -> bool:
        headers = {"Authorization": f"Bearer {ray_token(self.ray_token_file)}"}
        with contextlib.suppress(httpx.HTTPError):
            url = f"{info.ray_url}/nodes?view=summary"
            answer = httpx.get(url, headers=headers, timeout=5)
            if answer.status_code != 200:
                return False
            nodes = answer.json()["data"]["summary"]
            return any(node["raylet"].get("state") == "ALIVE" for node in nodes)
        return False

    def _seed(self) -> None:
        with self.client() as client:
            client.ensure_pool(
                TRAINING_POOL, slots=1, description="Ray jobs that train: one at a time"
            )


def _absolute(path: str) -> str:
    """A path for processes that start in other folders; nothing stays nothing."""
    return str(Path(path).expanduser().absolute()) if path else ""


def _airflow_unhealthy(url: str) -> str | None:
    """The first part of Airflow that is not healthy, or None."""
    try:
        health = httpx.get(f"{url}/api/v2/monitor/health", timeout=5).json()
    except (httpx.HTTPError, ValueError):
        return "api-server"
    for part in ("metadatabase", "scheduler", "triggerer", "dag_processor"):
        if (health.get(part) or {}).get("status") != "healthy":
            return part
    return None


def orphans(info: StackInfo) -> list[int]:
    """Ids of the processes that are still this stack's."""
    return [process.pid for process in members(info.parts, info.stack_id)]
