"""What a climb would run, what is there already, and what it costs; nothing is pinned for it."""

from flywheel_core.artifacts import ArtifactRef, Record, is_done, read_manifest
from flywheel_core.days import missing_days
from flywheel_core.errors import ArtifactError
from flywheel_core.plan import require_start, sketch
from flywheel_core.planning import gpu_hours_by_stage
from flywheel_core.recipe import Recipe
from flywheel_core.start_at import FROM_THE_START, StartAt
from flywheel_core.store import Store


class StagePreview(Record):
    """One stage. `last_wall_s` is what it took when it was last made; None where it never was.
    `gpu_hours` is the plan's arithmetic; None where the recipe gives no numbers for it."""

    name: str
    key: str
    cached: bool
    last_wall_s: float | None
    gpu_hours: float | None

    @property
    def line(self) -> str:
        """The stage in one line of a log."""
        took = "never run yet" if self.last_wall_s is None else f"last {self.last_wall_s:.0f} s"
        hours = "" if self.gpu_hours is None else f", {self.gpu_hours:g} GPU-h"
        state = "is there already" if self.cached else "will run"
        return f"{self.name} {self.key} {state} ({took}{hours})"


class Preview(Record):
    """A climb before it is started."""

    flywheel: str
    generation: int
    parent_generation: int
    days: tuple[str, ...]
    missing_days: tuple[str, ...]
    stages: tuple[StagePreview, ...]

    @property
    def to_run(self) -> tuple[StagePreview, ...]:
        return tuple(stage for stage in self.stages if not stage.cached)

    def lines(self) -> list[str]:
        """For a log or a terminal."""
        waits = f"; the run would wait for {', '.join(self.missing_days)}"
        return [
            f"dry run: generation {self.generation} of {self.flywheel}, from production "
            f"(generation {self.parent_generation})",
            f"traffic of {', '.join(self.days)}" + (waits if self.missing_days else ""),
            *(stage.line for stage in self.stages),
            self._total(),
        ]

    def _total(self) -> str:
        to_run = self.to_run
        known_s = [stage.last_wall_s for stage in to_run if stage.last_wall_s is not None]
        hours = [stage.gpu_hours for stage in to_run if stage.gpu_hours is not None]
        total = f"in all: {len(self.stages) - len(to_run)} cached, {len(to_run)} to run"
        if known_s:
            total += f", {sum(known_s):.0f} s for the {len(known_s)} with a known time"
        if hours:
            total += f", {sum(hours):g} GPU-h for the {len(hours)} with numbers in the recipe"
        return f"{total}. Nothing was pinned; start the run without dry_run to climb"


def preview(
    recipe: Recipe,
    store: Store,
    *,
    policy_digest: str,
    days: tuple[str, ...] | None = None,
    start_at: StartAt = FROM_THE_START,
) -> Preview:
    """Draft a climb and look at the store; writes nothing. Refuses what `resolve` would refuse."""
    plan = sketch(recipe, store, policy_digest=policy_digest, days=days, start_at=start_at)
    require_start(store, plan)
    ingested = recipe.traffic.source == "ingested"
    times = _last_wall_s(store, recipe.flywheel)
    hours = gpu_hours_by_stage(recipe)
    return Preview(
        flywheel=recipe.flywheel,
        generation=plan.generation,
        parent_generation=plan.parent.ref.generation,
        days=plan.days,
        missing_days=missing_days(store, recipe.flywheel, plan.days) if ingested else (),
        stages=tuple(
            StagePreview(
                name=stage.name,
                key=stage.ref.key,
                cached=is_done(store, stage.ref),
                last_wall_s=times.get(stage.name),
                gpu_hours=hours.get(stage.name),
            )
            for stage in plan.stages
        ),
    )


def _last_wall_s(store: Store, flywheel: str) -> dict[str, float]:
    """By stage: what its newest generation took; the longest, where that has it several times."""
    newest: dict[str, list[ArtifactRef]] = {}
    for path in store.list(flywheel):
        parts = path.split("/")
        if len(parts) != 5 or parts[-1] != "manifest.json" or not parts[1].startswith("gen-"):
            continue
        ref = ArtifactRef(
            flywheel=flywheel,
            generation=int(parts[1].removeprefix("gen-")),
            stage=parts[2],
            key=parts[3],
        )
        found = newest.setdefault(ref.stage, [])
        if found and found[0].generation < ref.generation:
            found.clear()
        found.append(ref)  # paths are sorted, so generations come in order
    return {
        stage: longest
        for stage, refs in newest.items()
        if (longest := max((_wall_s(store, ref) for ref in refs), default=0.0)) > 0
    }


def _wall_s(store: Store, ref: ArtifactRef) -> float:
    """0 where the manifest does not say; a time is a hint, so a bad manifest is no error here."""
    try:
        return read_manifest(store, ref).timings_s.get("total", 0.0)
    except ArtifactError:
        return 0.0
