"""A night on call: every part of the stack killed again and again, and what it cost."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from flywheel_core.recipe import RECIPE_FOLDER
from tests.bench import Row
from tests.chaos.proofs import (
    DUPLICATE_JOB,
    LOST_ARTIFACT,
    REPEATED_WORK,
    SECOND_COMMIT,
    STOPPED_JOB,
    WRONG_END_STATE,
)
from tests.chaos.session import Outcome, run_chaos
from tests.forgeries.catalogue import forged_attempts

NUM_KILLS = 35
SLOT_S = 45.0
SEED = 1973
MAX_PARSE_S = 0.5
MAX_OVERHEAD_S = 15.0
MIN_FORGERIES = 100

PARSE = """
import json, runpy, sys, time
import airflow.sdk, airflow.sdk.definitions.context
import airflow.providers.standard.operators.hitl, airflow.triggers.base
import airflow.timetables.base, airflow.sdk.definitions.timetables.trigger
airflow.sdk.DAG, airflow.sdk.BaseOperator, airflow.sdk.Param
started_s = time.perf_counter()
runpy.run_path(sys.argv[1])
print(json.dumps(time.perf_counter() - started_s))
"""


def rows() -> Iterator[Row]:
    """`dag_parse_s`, `forged_promotions_through`, then the chaos, which takes most of an hour."""
    yield _parse()
    yield _forgeries()
    home = Path(tempfile.mkdtemp(prefix="fw-chaos-"))
    print(f"chaos: logs, store and outcome.json stay in {home}", flush=True)
    outcome = run_chaos(
        home,
        num_kills=NUM_KILLS,
        slot_s=SLOT_S,
        seed=SEED,
        say=lambda line: print(line, flush=True),
    )
    for violation in outcome.violations:
        print(violation, flush=True)
    yield from _counts(outcome)
    yield _overhead(outcome)


def _counts(outcome: Outcome) -> Iterator[Row]:
    by_target = ", ".join(f"{name} {count}" for name, count in outcome.kills_by_target.items())
    kills = len(outcome.kills)
    yield Row(
        "chaos_kills",
        float(kills),
        "",
        ">= 30",
        kills >= 30,
        f"SIGKILL at random moments, seed {SEED}: {by_target}; {len(outcome.run_s)} runs, "
        f"{outcome.wall_s / 60:.0f} min, {outcome.num_looks} looks at all processes",
    )
    for name, kinds, how in (
        ("chaos_duplicate_jobs", (DUPLICATE_JOB,), "two live drivers of a key, orphans included"),
        ("chaos_second_commits", (SECOND_COMMIT,), "a manifest that was written twice"),
        ("chaos_lost_artifacts", (LOST_ARTIFACT,), "missing, corrupt, or not the calm run's bytes"),
        ("chaos_wrong_end_states", (WRONG_END_STATE,), "a run, job or process not as it should be"),
        ("chaos_jobs_stopped_by_restarts", (STOPPED_JOB,), "a driver that ended though not killed"),
        ("chaos_repeated_work", (REPEATED_WORK,), _most_repeated(outcome)),
    ):
        count = outcome.count(*kinds)
        yield Row(name, float(count), "", "0", count == 0, how)


def _most_repeated(outcome: Outcome) -> str:
    most = ", ".join(f"{stage} {max(units, default=0)}" for stage, units in outcome.redone.items())
    return f"resumes that repeat more than a shard or a checkpoint's 5 steps; most: {most}"


def _overhead(outcome: Outcome) -> Row:
    said = ", ".join(f"{name} {seconds:.1f}" for name, seconds in outcome.overheads_s.items())
    return Row(
        "stage_overhead_s",
        outcome.overhead_s,
        "s",
        f"< {MAX_OVERHEAD_S:.0f}",
        outcome.overhead_s < MAX_OVERHEAD_S,
        f"task wall - execute(), two undisturbed runs at once on one worker slot: {said}",
    )


def _parse() -> Row:
    """A flow's own parse, each in a fresh interpreter, imports of Airflow itself excluded (its
    DAG processor has them): what each DAG file adds. The best of three."""

    def parse_s(path: Path) -> float:
        done = subprocess.run(
            [sys.executable, "-c", PARSE, str(path)], capture_output=True, text=True, check=True
        )
        return float(json.loads(done.stdout.splitlines()[-1]))

    flows = sorted(RECIPE_FOLDER.parent.glob("*.py"))
    times = {path.name: min(parse_s(path) for _ in range(3)) for path in flows}
    slowest = max(times.values())
    said = ", ".join(f"{name} {seconds:.3f}" for name, seconds in times.items())
    return Row(
        "dag_parse_s",
        slowest,
        "s",
        f"< {MAX_PARSE_S}",
        slowest < MAX_PARSE_S,
        f"the slowest: {said}",
    )


def _forgeries() -> Row:
    """How many forged promotions got through `promote`."""
    tried, through = forged_attempts()
    return Row(
        "forged_promotions_through",
        float(through),
        "",
        "0",
        through == 0 and tried >= MIN_FORGERIES,
        f"{tried} forged attempts on seeded climbs, single and in pairs; more through the "
        "real Airflow in tests/airflow/test_forged_approvals.py",
    )
