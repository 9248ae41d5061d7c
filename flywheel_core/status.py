"""`flywheel status`: what is in production, what waits, and what has been made."""

import datetime
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flywheel_core.artifacts import ArtifactRef, is_done, read_manifest
from flywheel_core.deployment import Deployment
from flywheel_core.experiments.journal import Journal
from flywheel_core.experiments.ramp import RampState, last_day_of, num_days_of
from flywheel_core.plan import load_plan
from flywheel_core.pointers import Pointer, PointerRecord
from flywheel_core.release.experiments import read_open_experiment
from flywheel_core.release.fitness import known_marks, marks_of
from flywheel_core.store import Store


def describe_status(deployment: Deployment) -> dict[str, Any]:
    """Each flywheel in the store, as a program may read it."""
    store = deployment.store()
    names = sorted({path.split("/")[0] for path in store.list("") if "/pointers/" in path})
    return {
        "store": deployment.store_root,
        "flywheels": {name: _flywheel(store, name) for name in names},
    }


def _flywheel(store: Store, name: str) -> dict[str, Any]:
    production = Pointer(store, name, "production").newest()
    freeze = Pointer(store, name, "freeze").newest()
    candidate = Pointer(store, name, "candidate").newest()
    climbs: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for path in store.list(f"{name}/plans"):
        plan = load_plan(store, path)
        done = [stage.name for stage in plan.stages if is_done(store, stage.ref)]
        climbs[plan.generation].append(
            {
                "run_id": plan.run_id,
                "done": done,
                "of": len(plan.stages),
                "unfit_for_release": known_marks(store, plan),
            }
        )
    return {
        "production": production.model_dump(mode="json") if production else None,
        "production_unfit_for_release": _marks_in_production(store, production),
        "candidate": candidate.model_dump(mode="json") if candidate else None,
        "experiment": _experiment(store, name),
        "frozen": bool(freeze and freeze.value.get("frozen")),
        "climbs": {str(generation): runs for generation, runs in sorted(climbs.items())},
    }


def _experiment(store: Store, flywheel: str) -> dict[str, Any] | None:
    """The open experiment: `test_share` of all users meet its candidate, `decided` is the newest
    day with a decision."""
    opened = read_open_experiment(store, flywheel)
    if opened is None:
        return None
    journal = Journal(store, flywheel, opened.experiment_id)
    state = journal.state() if journal.is_allocated else None
    return {
        "experiment_id": opened.experiment_id,
        "phase": state.phase if state else "opened",
        "test_share": state.allocation.test_share if state else 0.0,
        "decided": str(state.decided) if state and state.decided else None,
        "waits_for": _awaited(state),
    }


def _awaited(state: RampState | None) -> str:
    """What an open experiment goes on with; a run is one of `flywheel_ab_test`."""
    if state is None:
        return "its first run, which lets the router expose users"
    if state.is_over:
        return "the run that closes it"
    if state.first_day is None:
        return "its first exposures"
    following = state.first_day
    if state.decided is not None:
        following = max(following, state.decided + datetime.timedelta(days=1))
    number, of = (following - state.first_day).days + 1, num_days_of(state)
    day = f"the decision of {following} (day {number} of {of})"
    is_asked = state.phase == "window" and following == last_day_of(state)
    return f"{day}, which asks a release manager" if is_asked else day


def _marks_in_production(store: Store, production: PointerRecord | None) -> tuple[str, ...]:
    """Not empty where a study's flywheel began from the checkpoint of a study."""
    if production is None:
        return ()
    ref = ArtifactRef.model_validate(production.value["ref"])
    return marks_of(read_manifest(store, ref)) if is_done(store, ref) else ()


def show_status(described: dict[str, Any], console: Console) -> None:
    """The same for a person."""
    if not described["flywheels"]:
        console.print(f"{described['store']} holds no flywheel yet; run `flywheel climb`")
    for name, flywheel in described["flywheels"].items():
        production = flywheel["production"]
        console.print(f"[bold]{name}[/]", "[bold red]frozen[/]" if flywheel["frozen"] else "")
        if production:
            ref = production["value"]["ref"]
            console.print(
                f"  production: generation {ref['generation']} ({ref['key']}), "
                f"record {production['number']} by {production['by']}: {production['reason']}"
                f"{_unfit(flywheel['production_unfit_for_release'], '; ')}"
            )
        if experiment := flywheel["experiment"]:
            console.print(
                f"  experiment {escape(experiment['experiment_id'])}: {experiment['phase']}, test "
                f"{100 * experiment['test_share']:g} % of users, newest decided day "
                f"{experiment['decided'] or 'none'}; waits for {experiment['waits_for']}",
                highlight=False,
            )
        table = Table("generation", "run", "stages done", "", box=None, pad_edge=False)
        for generation, runs in flywheel["climbs"].items():
            for run in runs:
                table.add_row(
                    generation,
                    run["run_id"],
                    f"{len(run['done'])} of {run['of']}",
                    _unfit(run["unfit_for_release"]),
                )
        console.print(table)


def _unfit(marks: Sequence[str], before: str = "") -> str:
    return f"{before}[red]unfit for release:[/] {escape(', '.join(marks))}" if marks else ""
