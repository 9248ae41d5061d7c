"""`flywheel up`, `climb` and `demo`: start the loop, watch it, and say how it ended."""

import signal
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from rich.console import Console

from flywheel_core.airflow_client import WAITING, AirflowClient
from flywheel_core.artifacts import digest_of, is_done, read_manifest
from flywheel_core.board import TaskBoard
from flywheel_core.deployment import Deployment
from flywheel_core.errors import ConfigError, StackError
from flywheel_core.plan import PinnedPlan, load_plan, plan_path
from flywheel_core.pointers import Pointer
from flywheel_core.preview import Preview, preview
from flywheel_core.recipe import load_recipe
from flywheel_core.release.gates import run_gates
from flywheel_core.release.policy import policy_digest
from flywheel_core.release.verdicts import read_metrics
from flywheel_core.report.build import write_report
from flywheel_core.stack import Stack, Supervisor
from flywheel_core.start_at import FROM_THE_START, StartAt

WEEKLY = "flywheel_weekly"
APPROVAL = "approval"
PROMOTE = "promote"
TRIGGERING_USER = "admin"
POLL_S = 2.0
ENDED = {"success", "failed"}
RED = {"failed", "upstream_failed"}

Outcome = Literal["promoted", "awaiting_approval", "blocked", "failed"]


@dataclass(frozen=True)
class Ended:
    """How one climbing step ended, as a program or a person may read it."""

    generation: int
    outcome: Outcome
    as_asked: bool
    reason: str
    run_id: str
    verdicts: list[dict[str, str]] = field(default_factory=list)
    win_rates: dict[str, Any] = field(default_factory=dict)
    true_effect: dict[str, Any] | None = None
    pointer: dict[str, Any] | None = None
    report: str | None = None
    wall_s: float = 0.0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def make_stack(deployment: Deployment) -> Stack:
    """The stack that belongs to this home folder."""
    return Stack(
        deployment.home, store_root=deployment.store_root, policy_path=deployment.policy_path
    )


def run_stack(deployment: Deployment, console: Console) -> None:
    """Start the stack and keep it whole until Ctrl-C or SIGTERM: what dies is started anew."""

    def say(line: str) -> None:
        console.print(line, highlight=False)

    stack = make_stack(deployment)
    info = stack.up(say)
    supervisor = Supervisor(stack, say)
    console.print(
        f"\nAirflow   {info.airflow_url}\nRay       {info.ray_url}\n"
        f"Users     admin, release_manager, on_call; passwords in {info.passwords_file}\n"
        "Ctrl-C stops both; the same command starts them again on their own state.",
        highlight=False,
    )
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    try:
        while not stopped.wait(1.0):
            supervisor.look()
    except KeyboardInterrupt:
        pass
    finally:
        console.print("stopping …")
        stack.down()


@contextmanager
def running_stack(deployment: Deployment, console: Console) -> Iterator[Stack]:
    """The stack that runs already, or one for as long as this takes."""
    stack = make_stack(deployment)
    was_up = stack.status().running
    stack.up(lambda line: console.print(line, highlight=False))
    try:
        yield stack
    finally:
        if not was_up:
            console.print("stopping the stack …")
            stack.down()


def climb_through_airflow(
    deployment: Deployment,
    recipe_name: str,
    generations: int,
    approve_as: str | None,
    console: Console,
    start_at: StartAt = FROM_THE_START,
) -> list[Ended]:
    """Trigger `flywheel_weekly`, watch it, and answer its approval if asked to."""
    recipe = load_recipe(recipe_name)
    _check_approver(deployment, approve_as)
    ended: list[Ended] = []
    was_up = make_stack(deployment).status().running
    with running_stack(deployment, console) as stack, stack.client(TRIGGERING_USER) as admin:
        admin.wait_for_dag(WEEKLY)
        admin.unpause(WEEKLY)
        for _ in range(generations):
            started_s = time.monotonic()
            run_id = f"climb-{uuid.uuid4().hex[:8]}"
            asked = start_at.model_dump(exclude_none=True)
            admin.trigger(WEEKLY, {"recipe": recipe_name, **asked}, run_id)
            console.print(f"\n[bold]{WEEKLY}[/] {run_id} on {stack.client().base_url}")
            try:
                state = _watch(stack, admin, run_id, approve_as, console)
            except KeyboardInterrupt:
                console.print(f"\nstill running in Airflow: {_run_link(admin, run_id)}")
                raise
            one = _account(deployment, recipe.flywheel, run_id, state, admin, approve_as, started_s)
            show_ended(one, console, admin)
            if one.outcome == "awaiting_approval" and not was_up:
                console.print("  this stack stops now; `flywheel up` brings the question back")
            ended.append(one)
            if one.outcome != "promoted":
                break
    return ended


def _check_approver(deployment: Deployment, approve_as: str | None) -> None:
    """Refuse early what promote would refuse late."""
    if approve_as is None:
        return
    policy = deployment.policy()
    if approve_as not in policy.release_managers:
        raise ConfigError(
            f"--approve-as {approve_as}: not a release manager; the policy names "
            f"{', '.join(policy.release_managers)}"
        )
    if not policy.automated_approval_allowed:
        raise ConfigError(
            f"--approve-as {approve_as}: the policy {deployment.policy_path} forbids automated "
            "approvals; approve in the Airflow UI"
        )
    if approve_as == TRIGGERING_USER and not policy.self_approval_allowed:
        raise ConfigError(
            f"--approve-as {approve_as}: this command triggers the run as {TRIGGERING_USER}, and "
            f"the policy {deployment.policy_path} has self_approval_allowed false; approve as "
            "another release manager"
        )


def _watch(
    stack: Stack, admin: AirflowClient, run_id: str, approve_as: str | None, console: Console
) -> str:
    """Until the run has ended, or waits for a person; returns its state."""
    answered = False
    with TaskBoard(console) as board:
        while True:
            board.show(admin.task_instances(WEEKLY, run_id))
            states = admin.task_states(WEEKLY, run_id)
            state = admin.run_state(WEEKLY, run_id)
            if state in ENDED:
                return state
            if states.get(APPROVAL) == WAITING and not answered:
                if approve_as is None:
                    return WAITING
                with stack.client(approve_as) as approver:
                    approver.approve_automatically(WEEKLY, run_id, APPROVAL)
                board.say(f"approved automatically as {approve_as}; recorded as automated")
                answered = True
            time.sleep(POLL_S)


def _account(
    deployment: Deployment,
    flywheel: str,
    run_id: str,
    state: str,
    admin: AirflowClient,
    approve_as: str | None,
    started_s: float,
) -> Ended:
    """What the store says about a run that has ended or waits."""
    store = deployment.store()
    wall_s = time.monotonic() - started_s
    states = admin.task_states(WEEKLY, run_id)
    red = [task for task, found in states.items() if found in RED]
    if not store.exists(plan_path(flywheel, run_id)):
        return Ended(0, "failed", False, _reason(admin, run_id, red), run_id, wall_s=wall_s)
    plan = load_plan(store, plan_path(flywheel, run_id))
    facts = evaluation_facts(deployment, plan)
    promoted = Pointer(store, flywheel, "production").newest()
    is_promoted = (
        promoted is not None
        and promoted.value["ref"]["key"] == plan.stage("evaluate").ref.key
        and state == "success"
    )
    outcome: Outcome = "failed"
    reason = _reason(admin, run_id, red)
    if is_promoted and promoted is not None:
        outcome, reason = "promoted", promoted.reason
    elif state == WAITING:
        outcome, reason = "awaiting_approval", "waiting for a release manager"
    elif any(task.startswith("gate_") for task in red):
        outcome = "blocked"
    elif states.get(PROMOTE) == "success" and deployment.policy().release == "direct":
        reason = (
            "promote is green in Airflow, but production does not name this candidate: the task "
            "was marked, not run; clear it"
        )
    return Ended(
        generation=plan.generation,
        outcome=outcome,
        as_asked=outcome == ("promoted" if approve_as else "awaiting_approval"),
        reason=reason,
        run_id=run_id,
        pointer=promoted.model_dump(mode="json") if promoted else None,
        wall_s=wall_s,
        **facts,
    )


def evaluation_facts(deployment: Deployment, plan: PinnedPlan) -> dict[str, Any]:
    """Verdicts, win rates, true effect and report of a plan; nothing where it is not evaluated."""
    store = deployment.store()
    evaluated = plan.stage("evaluate").ref
    if not is_done(store, evaluated):
        return {}
    policy = deployment.policy()
    metrics = read_manifest(store, evaluated).metrics
    verdicts = run_gates(read_metrics(store, plan), policy)
    report = write_report(
        store, plan.flywheel, plan.generation, deployment.home / "reports", policy, plan=plan
    )
    return {
        "verdicts": [{"gate": v.gate, "outcome": v.outcome, "reason": v.reason} for v in verdicts],
        "win_rates": metrics["win_rates"],
        "true_effect": metrics["true_effect"],
        "report": str(report),
    }


def _reason(admin: AirflowClient, run_id: str, red: list[str]) -> str:
    """The first failed task and the last line of its log."""
    failed = [
        task
        for task in admin.task_instances(WEEKLY, run_id)
        if task["state"] == "failed" and task["task_id"] in red
    ]
    if not failed:
        return ""
    first = min(failed, key=lambda task: task["end_date"] or "")
    log = admin.task_log(WEEKLY, run_id, first["task_id"], first["try_number"]).strip()
    last = log.splitlines()[-1] if log else "its log is empty"
    return f"{first['task_id']}: {last}"


def _run_link(admin: AirflowClient, run_id: str) -> str:
    return f"{admin.base_url}/dags/{WEEKLY}/runs/{run_id}"


def show_ended(ended: Ended, console: Console, admin: AirflowClient | None = None) -> None:
    """The end of a climb for a person."""
    colour = {"promoted": "green", "awaiting_approval": "yellow"}.get(ended.outcome, "red")
    console.print(
        f"\n[bold {colour}]generation {ended.generation}: {ended.outcome.replace('_', ' ')}[/] "
        f"after {ended.wall_s / 60:.1f} min"
    )
    if ended.reason:
        console.print(f"  {ended.reason}", highlight=False)
    for verdict in ended.verdicts:
        console.print(
            f"  {verdict['gate']:<15}{verdict['outcome']:<13}{verdict['reason']}", highlight=False
        )
    for cell, rate in ended.win_rates.items():
        console.print(
            f"  {cell:<34}{rate['estimate']:.1%}  [{rate['lower']:.1%}, {rate['upper']:.1%}]",
            markup=False,
            highlight=False,
        )
    if ended.true_effect:
        change = ended.true_effect["difference"]
        console.print(
            f"  true hidden utility {ended.true_effect['production']['estimate']:.2f} → "
            f"{ended.true_effect['candidate']['estimate']:.2f} "
            f"({change['estimate']:+.2f}, 95 % {change['lower']:+.2f} to {change['upper']:+.2f})",
            markup=False,
            highlight=False,
        )
    if ended.report:
        console.print(f"  report: {ended.report}", highlight=False, soft_wrap=True)
    if ended.outcome == "awaiting_approval" and admin is not None:
        console.print(
            f"  approve or reject: {_run_link(admin, ended.run_id)}/tasks/{APPROVAL}",
            highlight=False,
            soft_wrap=True,
        )


def climb_locally(
    deployment: Deployment,
    recipe_name: str,
    generations: int,
    seed: int | None,
    console: Console,
    start_at: StartAt = FROM_THE_START,
) -> list[Ended]:
    """The same stages in this process; what passes its gates is promoted, as automated."""
    from flywheel_core.release.gates import overall
    from flywheel_core.release.promotion import promote_in_process
    from flywheel_core.release.verdict import BLOCKING
    from flywheel_core.runner import StageDone, run_climb

    recipe = load_recipe(recipe_name, seed=seed)
    policy = deployment.policy()
    store = deployment.store()

    def on_stage(name: str, done: StageDone | None) -> None:
        if done is None:
            console.print(f"[bold]{name}[/] …")
        else:
            how = "already there" if done.was_cached else f"{done.wall_s:.0f} s"
            console.print(f"[green]{name}[/] {how}", highlight=False)

    ended: list[Ended] = []
    for _ in range(generations):
        started_s = time.monotonic()
        parent = Pointer(store, recipe.flywheel, "production").newest()
        run_id = f"local-{recipe.seed}-{parent.number if parent else 0}"
        if start_at != FROM_THE_START:  # else the plan that is pinned under this id would win
            run_id += f"-{digest_of(start_at.model_dump())[:8]}"
        climb = run_climb(
            recipe,
            store,
            policy,
            run_id,
            scratch=deployment.scratch,
            on_stage=on_stage,
            start_at=start_at,
        )
        blocked = overall(climb.verdicts) in BLOCKING
        if not blocked:
            promote_in_process(store, climb.plan, policy, by=policy.release_managers[0])
        newest = Pointer(store, recipe.flywheel, "production").newest()
        one = Ended(
            generation=climb.plan.generation,
            outcome="blocked" if blocked else "promoted",
            as_asked=not blocked,
            reason="a gate blocks"
            if blocked
            else "the gates pass; approved by this program, recorded as automated",
            run_id=run_id,
            pointer=newest.model_dump(mode="json") if newest else None,
            wall_s=time.monotonic() - started_s,
            **evaluation_facts(deployment, climb.plan),
        )
        show_ended(one, console)
        ended.append(one)
        if blocked:
            break
    return ended


def preview_climb(
    deployment: Deployment, recipe_name: str, start_at: StartAt, *, seed: int | None = None
) -> Preview:
    """What a climb would run, what is there and what it costs; writes and starts nothing."""
    return preview(
        load_recipe(recipe_name, seed=seed),
        deployment.store(),
        policy_digest=policy_digest(deployment.policy()),
        start_at=start_at,
    )


def run_demo(deployment: Deployment, console: Console) -> Ended:
    """One step through Airflow, approved as the seeded release manager, then everything stops."""
    manager = deployment.policy().release_managers[0]
    console.print(
        "[bold]CharacterFlywheel demo[/]: one climbing step on this machine. Real Airflow, Ray, "
        "vLLM, TRL and DeepSpeed; a Llama of under 1M parameters; simulated users."
    )
    if make_stack(deployment).status().running:
        raise StackError(
            f"a stack of {deployment.home} is running already; use `flywheel climb "
            f"--approve-as {manager}`, or stop it first"
        )
    (ended,) = climb_through_airflow(deployment, "tiny_cpu", 1, manager, console)
    if ended.outcome == "promoted":
        console.print(
            f"\nThe approval was answered by this program as [bold]{manager}[/] with that user's "
            "password, and is recorded as automated. Next: `flywheel up`, then `flywheel climb`, "
            "and approve it yourself."
        )
    return ended
