"""`flywheel status`: what is in production, what waits, and what has been made."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flywheel_core.artifacts import ArtifactRef, is_done, read_manifest
from flywheel_core.deployment import Deployment
from flywheel_core.plan import load_plan
from flywheel_core.pointers import Pointer, PointerRecord
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
        "frozen": bool(freeze and freeze.value.get("frozen")),
        "climbs": {str(generation): runs for generation, runs in sorted(climbs.items())},
    }


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
