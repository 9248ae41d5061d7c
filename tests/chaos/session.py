"""The whole: two undisturbed runs at once, then runs under fire until every kill is done."""

import json
import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from flywheel_core.artifacts import read_manifest
from flywheel_core.errors import StackError
from flywheel_core.plan import PinnedPlan
from flywheel_core.stack.stack import orphans
from tests.bench.airflow_times import task_seconds
from tests.chaos import proofs
from tests.chaos.chaos_stack import ENDED, ChaosStack, chaos_stack
from tests.chaos.killer import Kill, Killer, PlannedKill, Restarter, plan_kills
from tests.chaos.proofs import Violation
from tests.chaos.targets import drivers
from tests.chaos.watcher import Watcher

CALM_TIMEOUT_S = 400.0
RUN_TIMEOUT_S = 1200.0
RUNS_AT_ONCE = 2

Say = Callable[[str], None]


@dataclass
class Outcome:
    """What happened. `both_deferred`: two tasks waited in the triggerer while the one worker slot
    was free. `overheads_s`: an undisturbed task's wall time beyond its job's own `execute`."""

    kills: list[Kill] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)
    violations: list[Violation] = field(default_factory=list)
    both_deferred: bool = False
    overheads_s: dict[str, float] = field(default_factory=dict)
    run_s: dict[str, float] = field(default_factory=dict)
    redone: dict[str, list[int]] = field(default_factory=dict)
    num_looks: int = 0
    wall_s: float = 0.0

    def count(self, *kinds: str) -> int:
        return sum(violation.kind in kinds for violation in self.violations)

    @property
    def kills_by_target(self) -> dict[str, int]:
        return dict(Counter(kill.target for kill in self.kills))

    @property
    def overhead_s(self) -> float:
        return statistics.median(self.overheads_s.values())

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)


def run_chaos(home: Path, *, num_kills: int, slot_s: float, seed: int, say: Say = print) -> Outcome:
    """Kill `num_kills` times, one in every `slot_s` seconds; `home` keeps logs and the store."""
    started_s = time.monotonic()

    def said(line: str) -> None:
        say(f"{time.monotonic() - started_s:6.0f} s  {line}")

    outcome = Outcome()
    with chaos_stack(home) as chaos:
        said("stack is up; two undisturbed runs")
        expected = _undisturbed(chaos, outcome, said)
        _under_fire(chaos, outcome, plan_kills(seed, num_kills, slot_s), seed, expected, said)
        info = chaos.info()
    left = orphans(info)
    if left:
        outcome.violations.append(
            Violation(proofs.WRONG_END_STATE, f"processes {left} outlived `down`")
        )
    outcome.wall_s = time.monotonic() - started_s
    (home / "outcome.json").write_text(outcome.to_json())
    return outcome


# -- undisturbed ---------------------------------------------------------------------------------


def _undisturbed(chaos: ChaosStack, outcome: Outcome, say: Say) -> dict[str, dict[str, str]]:
    """The bytes every later run must end with; stage to file to digest."""
    plans = [chaos.start_run(f"calm-{number}") for number in range(RUNS_AT_ONCE)]
    run_ids = [plan.run_id for plan in plans]
    ends_s = time.monotonic() + CALM_TIMEOUT_S
    while {chaos.run_state(run_id) for run_id in run_ids} - set(ENDED):
        if time.monotonic() > ends_s:
            raise StackError(f"the undisturbed runs did not end in {CALM_TIMEOUT_S:.0f} s")
        states = [set(chaos.task_states(run_id).values()) for run_id in run_ids]
        outcome.both_deferred |= all("deferred" in found for found in states)
        time.sleep(1.0)
    outcome.violations += proofs.ends_well(
        {run_id: chaos.task_states(run_id) for run_id in run_ids},
        {run_id: chaos.run_state(run_id) for run_id in run_ids},
    )
    for plan in plans:
        waited = task_seconds(chaos.stack.state_dir, plan.run_id)
        for stage in plan.stages:
            own_s = read_manifest(chaos.store, stage.ref).timings_s["total"]
            outcome.overheads_s[f"{plan.run_id} {stage.name}"] = waited[stage.name] - own_s
    say(f"undisturbed runs ended; overheads {outcome.overheads_s}")
    return {stage.name: proofs.digests(chaos.store, stage.ref) for stage in plans[0].stages}


# -- under fire ----------------------------------------------------------------------------------


def _under_fire(
    chaos: ChaosStack,
    outcome: Outcome,
    planned: list[PlannedKill],
    seed: int,
    expected: dict[str, dict[str, str]],
    say: Say,
) -> None:
    calm_events = len(chaos.events())
    watcher = Watcher(chaos.store)
    killer = Killer(chaos.stack, planned, seed, say)
    restarter = Restarter(chaos.stack, say)
    watcher.start()
    restarter.start()
    try:
        plans = _keep_running(chaos, killer, restarter, watcher, outcome, say)
        refs = [stage.ref for plan in plans for stage in plan.stages]
        time.sleep(proofs.SEEN_LATE_S)
        states = {
            plan.run_id: {task["task_id"]: task["state"] for task in chaos.tasks(plan.run_id)}
            for plan in plans
        }
        run_states = {plan.run_id: chaos.run_state(plan.run_id) for plan in plans}
        jobs, live = chaos.ray_jobs(), drivers()
    finally:
        restarter.stop()
        watcher.stop()
    outcome.kills, outcome.missed = killer.kills, killer.missed
    outcome.num_looks = watcher.num_looks
    events = chaos.events()[calm_events:]
    for found in proofs.by_key(events).values():
        redone = [units for units, _ in proofs.redone_work(found)]
        outcome.redone.setdefault(found[0]["stage"], []).extend(redone)
    if restarter.failure:
        outcome.violations.append(Violation(proofs.WRONG_END_STATE, restarter.failure))
    outcome.violations += proofs.collect(
        lambda: proofs.never_two_jobs(events, watcher),
        lambda: proofs.only_kills_end_jobs(events, watcher, killer.kills),
        lambda: proofs.one_commit_each(watcher),
        lambda: proofs.nothing_is_lost(chaos.store, refs, expected),
        lambda: proofs.little_work_is_repeated(events),
        lambda: proofs.ends_well(states, run_states),
        lambda: proofs.nothing_lives_on(jobs, live, refs, chaos.store),
    )


def _keep_running(
    chaos: ChaosStack,
    killer: Killer,
    restarter: Restarter,
    watcher: Watcher,
    outcome: Outcome,
    say: Say,
) -> list[PinnedPlan]:
    """Two runs at a time until the last kill is done and every run has ended."""
    plans: list[PinnedPlan] = []
    live: dict[str, float] = {}
    killer.start()
    while (not killer.is_done or live) and restarter.failure is None:
        while len(live) < RUNS_AT_ONCE and not killer.is_done:
            plan = chaos.start_run(f"fire-{len(plans)}")
            watcher.follow(plan)
            plans.append(plan)
            live[plan.run_id] = time.monotonic()
        time.sleep(1.0)
        for run_id, since_s in list(live.items()):
            state = chaos.run_state(run_id)
            run_s = time.monotonic() - since_s
            if state in ENDED or run_s > RUN_TIMEOUT_S:
                outcome.run_s[run_id] = run_s
                say(f"{run_id} is {state} after {run_s:.0f} s")
                del live[run_id]
    return plans
