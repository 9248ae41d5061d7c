"""`flywheel status`: what is in production, what waits, and what has been made."""

from collections import defaultdict
from typing import Any

from rich.console import Console
from rich.table import Table

from flywheel_core.artifacts import is_done
from flywheel_core.deployment import Deployment
from flywheel_core.plan import load_plan
from flywheel_core.pointers import Pointer
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
            {"run_id": plan.run_id, "done": done, "of": len(plan.stages)}
        )
    return {
        "production": production.model_dump(mode="json") if production else None,
        "candidate": candidate.model_dump(mode="json") if candidate else None,
        "frozen": bool(freeze and freeze.value.get("frozen")),
        "climbs": {str(generation): runs for generation, runs in sorted(climbs.items())},
    }


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
            )
        table = Table("generation", "run", "stages done", box=None, pad_edge=False)
        for generation, runs in flywheel["climbs"].items():
            for run in runs:
                table.add_row(generation, run["run_id"], f"{len(run['done'])} of {run['of']}")
        console.print(table)
