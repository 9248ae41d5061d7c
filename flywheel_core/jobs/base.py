"""What every stage's job shares: find the plan, run the stage, commit the manifest.

A stage module has a `Config` and one function, `run(config, inputs, context) -> StageOutput`:

- `config`: exactly the part of the recipe that is in the stage's key, typed;
- `inputs`: name -> local folder with that artifact's verified files;
- `context`: where to write, the engines, the seed and the progress line.

Only this file reads the command line and the environment, and only it commits.
"""

import argparse
import importlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from flywheel_core.artifacts import (
    Attempt,
    InputRecord,
    Manifest,
    is_done,
    materialise,
    read_manifest,
)
from flywheel_core.engines.durable import DurableEngines
from flywheel_core.engines.environment import prepare_environment
from flywheel_core.engines.pool import EnginePool
from flywheel_core.jobs.failures import report_failure
from flywheel_core.jobs.fence import Fence
from flywheel_core.plan import PinnedPlan, PlannedStage, load_plan
from flywheel_core.release.fitness import inherited_marks
from flywheel_core.stages import MODULES_VARIABLE, trusted_module
from flywheel_core.store import Store, open_store
from flywheel_core.studies import MARK, mark_checkpoints
from flywheel_core.training.config import LaunchConfig


class Progress(Protocol):
    """Called with work done, work in all, and what is being worked on."""

    def __call__(self, done: int, total: int, what: str = "") -> None: ...


@dataclass
class LineProgress:
    """Progress as plain lines, at most one every `interval_s`, for a job's log.

    The rate counts from the first call about a piece of work, so it needs a second one; work
    that starts over (another model is asked the same) is counted anew.
    """

    interval_s: float = 5.0
    _first: dict[str, tuple[int, float]] = field(default_factory=dict)
    _newest: dict[str, int] = field(default_factory=dict)
    _last_s: float = 0.0

    def __call__(self, done: int, total: int, what: str = "") -> None:
        now = time.monotonic()
        if done < self._newest.get(what, 0):
            del self._first[what]
        self._newest[what] = done
        first_done, first_s = self._first.setdefault(what, (done, now))
        if done < total and now - self._last_s < self.interval_s:
            return
        self._last_s = now
        pace = ""
        if done > first_done:
            rate = (done - first_done) / max(now - first_s, 1e-9)
            pace = f" {rate:.1f}/s eta {(total - done) / rate:.0f}s"
        print(f"progress: {what} {done}/{total}{pace}", flush=True)


@dataclass(frozen=True)
class StageOutput:
    """What a stage says about the files it wrote; the manifest records it.

    `unfit_for_release` says why nothing made from them may be released; empty where it may.
    """

    kind: str
    row_counts: dict[str, int] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    unfit_for_release: str = ""


@dataclass
class StageContext:
    """Where a stage runs.

    `output` becomes the artifact. `work` survives a failed try: shards and checkpoints with
    their completion marks go there, and it is removed after the commit. `unfit_for_release` are
    the marks of the inputs: why nothing made from them may be released.
    """

    plan: PinnedPlan
    stage: PlannedStage
    output: Path
    work: Path
    engines: DurableEngines
    launch: LaunchConfig
    progress: Progress
    unfit_for_release: tuple[str, ...] = ()

    @property
    def seed(self) -> int:
        return self.stage.seed


@dataclass
class Site:
    """The machine a stage runs on: the store, and folders for what need not last.

    `work_root` holds the shards and checkpoints of unfinished stages. On a cluster it is a folder
    that all nodes share, so that a retry on another node goes on from them. It is never inside
    the store: checkpoints hold pickles, and nothing read from the store may.
    """

    store: Store
    scratch: Path
    work_root: Path
    engines: EnginePool
    launch: LaunchConfig
    progress: Progress

    def work_folder(self, stage: PlannedStage) -> Path:
        return self.work_root / stage.ref.flywheel / f"{stage.name}-{stage.ref.key}"


def execute(site: Site, plan: PinnedPlan, stage_name: str, *, driver: str = "") -> Manifest:
    """Run one stage of a plan, unless its artifact is there already. `driver` names who does it:
    the submission id of the Ray job, or this process."""
    stage = plan.stage(stage_name)
    if is_done(site.store, stage.ref):
        return read_manifest(site.store, stage.ref)
    with Fence(site.store, stage.ref, driver or f"process {os.getpid()}") as fence:
        return _execute(site, plan, stage, fence)


def _execute(site: Site, plan: PinnedPlan, stage: PlannedStage, fence: Fence) -> Manifest:
    started_s = time.monotonic()
    inputs = {
        name: materialise(site.store, ref, site.scratch / "cache")
        for name, ref in stage.inputs.items()
    }
    read_s = time.monotonic() - started_s
    attempt = Attempt(site.store, stage.ref, site.scratch / "attempts")
    work = site.work_folder(stage)
    work.mkdir(parents=True, exist_ok=True, mode=0o700)
    engines = DurableEngines(site.engines, work / "answers", site.progress)
    marks = inherited_marks(read_manifest(site.store, ref) for ref in stage.inputs.values())
    context = StageContext(
        plan, stage, attempt.folder, work, engines, site.launch, site.progress, marks
    )
    allowed = os.environ.get(MODULES_VARIABLE, "")
    module = importlib.import_module(trusted_module(stage.name, stage.module, allowed))
    run: Callable[..., StageOutput] = module.run
    try:
        output = run(module.Config.model_validate(stage.config), inputs, context)
        fence.check()
    except BaseException:
        attempt.drop()
        raise
    metrics = _marked(output, marks)
    if MARK in metrics and output.kind == "model":
        mark_checkpoints(attempt.folder, metrics[MARK])
    manifest = attempt.commit(
        kind=output.kind,
        stage_version=stage.version,
        row_counts=output.row_counts,
        metrics=metrics,
        config=stage.config,
        inputs=_input_records(site.store, stage),
        seed=stage.seed,
        timings_s={"read": read_s, "total": time.monotonic() - started_s},
    )
    shutil.rmtree(work, ignore_errors=True)
    return manifest


def _marked(output: StageOutput, inherited: tuple[str, ...]) -> dict[str, Any]:
    """The stage's metrics, with its own marks and its inputs' where there are any."""
    marks = sorted({*inherited, output.unfit_for_release} - {""})
    return output.metrics | ({MARK: marks} if marks else {})


def publish(source: Path, target: Path) -> None:
    """Put a finished folder of `work` into `output` without moving its bytes where links work."""

    def link(path: str, copy: str) -> None:
        try:
            os.link(path, copy)
        except OSError:
            shutil.copyfile(path, copy)

    shutil.copytree(source, target, copy_function=link)


def _input_records(store: Store, stage: PlannedStage) -> Mapping[str, InputRecord]:
    return {
        name: InputRecord(ref=ref, digest=read_manifest(store, ref).digest)
        for name, ref in stage.inputs.items()
    }


def main(stage_name: str) -> None:
    """Entry point of a stage's Ray job; the last line of a failure is `error: …`."""
    parser = argparse.ArgumentParser(description=f"Run the stage {stage_name!r} of a pinned plan.")
    parser.add_argument("--store", required=True, help="store root")
    parser.add_argument("--plan", required=True, help="path of the pinned plan in the store")
    parser.add_argument("--work", default="", help="folder of unfinished work, shared by all nodes")
    parser.add_argument("--job", default="", help="submission id of the Ray job")
    arguments = parser.parse_args()
    try:
        store = open_store(arguments.store)
        plan = load_plan(store, arguments.plan)
        recipe = plan.parsed_recipe()
        prepare_environment(recipe.execution.engine)
        scratch = Path(tempfile.gettempdir()) / f"flywheel-scratch-{os.getuid()}"
        scratch.mkdir(mode=0o700, exist_ok=True)
        site = Site(
            store=store,
            scratch=scratch,
            work_root=Path(arguments.work) if arguments.work else scratch / "work",
            engines=EnginePool(recipe.execution.engine),
            launch=recipe.execution.launch,
            progress=LineProgress(),
        )
        manifest = execute(site, plan, stage_name, driver=arguments.job)
    except Exception as error:
        sys.exit(report_failure(error))
    print(f"committed: {manifest.ref.path} {manifest.digest[:12]}", flush=True)
