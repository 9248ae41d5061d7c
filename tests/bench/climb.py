"""One climbing step: does it climb, how long does it take, and what does the house cost?"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.bench import Row

SEEDS = range(5)
SEEDS_AT_ONCE = 2
REPEATS = 5
REPEAT_S = 60.0


def rows() -> Iterator[Row]:
    """`climb_seeds_up`, `climb_total_s`, `stage_overhead_s`, `generation_vs_bare`, …"""
    yield from _seeds()
    with tempfile.TemporaryDirectory(prefix="fw-bench-") as home:
        ended = _flywheel(
            home, "climb", "--approve-as", "release_manager", "--json", expect_json=True
        )
        first = ended[0]
        yield Row(
            "climb_total_s",
            first["wall_s"],
            "s",
            "<= 1200",
            first["outcome"] == "promoted" and first["wall_s"] <= 1200,
            f"flywheel climb through Airflow, stack start excluded; ended {first['outcome']}",
        )
        yield _overhead(Path(home), first["run_id"])
    yield from _generation()


def _flywheel(home: str, *arguments: str, expect_json: bool = False) -> Any:
    """The command line, in a home of its own; its last JSON document."""
    done = subprocess.run(
        [sys.executable, "-m", "flywheel_core.cli", *arguments],
        env=_environment(home),
        capture_output=True,
        text=True,
        check=False,
    )
    if not expect_json:
        return done
    start = done.stdout.find("[\n {")
    if start < 0:
        raise RuntimeError(f"flywheel {arguments[0]} failed:\n{done.stdout[-2000:]}{done.stderr}")
    return json.loads(done.stdout[start:])


def _environment(home: str) -> dict[str, str]:
    import os

    return {**os.environ, "FLYWHEEL_HOME": home}


def _one_seed(seed: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="fw-bench-") as home:
        (ended,) = _flywheel(
            home, "climb", "--local", "--seed", str(seed), "--json", expect_json=True
        )
    return dict(ended)


def _seeds() -> Iterator[Row]:
    """Five seeds through the in-process runner, two at a time: each computes on one thread. An
    interval on each true difference."""
    ups, times, details = 0, [], []
    with ThreadPoolExecutor(SEEDS_AT_ONCE) as pool:
        climbs = list(pool.map(_one_seed, SEEDS))
    for seed, ended in zip(SEEDS, climbs, strict=True):
        change = ended["true_effect"]["difference"]
        ups += change["estimate"] > 0
        times.append(ended["wall_s"])
        details.append(
            f"seed {seed}: {change['estimate']:+.3f} [{change['lower']:+.3f}, "
            f"{change['upper']:+.3f}], {ended['outcome']}, win rates "
            + "/".join(f"{rate['estimate']:.3f}" for rate in ended["win_rates"].values())
        )
        print(details[-1], flush=True)
    yield Row(
        "climb_seeds_up",
        float(ups),
        f"of {len(SEEDS)}",
        ">= 4",
        ups >= 4,
        "in-process runner, true hidden utility of generation 1 above 0; " + "; ".join(details),
    )
    yield Row(
        "climb_seed_s",
        statistics.median(times),
        "s",
        "<= 240 a seed",
        max(times) <= 240,
        "wall time of each seed, two at a time on two cores: "
        + ", ".join(f"{seconds:.0f}" for seconds in times),
    )


def _overhead(home: Path, run_id: str) -> Row:
    """What a stage costs in Airflow and Ray Jobs beyond the same stage called directly.

    A stage's manifest holds the time of `execute` itself, Ray Train included; the task's wall
    time in Airflow is what an on-call engineer waits for.
    """
    from flywheel_core.plan import load_plan, plan_path
    from flywheel_core.store import open_store
    from tests.bench.airflow_times import task_seconds

    store = open_store(str(home / "store"))
    plan = load_plan(store, plan_path("tiny", run_id))
    waited = task_seconds(home, run_id)
    from flywheel_core.artifacts import read_manifest

    overheads = {
        stage.name: waited[stage.name] - read_manifest(store, stage.ref).timings_s["total"]
        for stage in plan.stages
    }
    median = statistics.median(overheads.values())
    said = ", ".join(f"{name} {seconds:.0f}" for name, seconds in overheads.items())
    return Row(
        "stage_overhead_s", median, "s", "< 15", median < 15, f"task wall - execute(): {said}"
    )


def _generation() -> Iterator[Row]:
    """Tokens per second of our generator against bare `LLM.generate` on the same prompts.

    Ours seeds each request, so that a sample does not depend on batch, order or retry; a user's
    bare call would not. Both comparisons are shown.
    """
    from flywheel_core.engines.config import EngineConfig, SamplingConfig
    from flywheel_core.engines.environment import prepare_environment
    from flywheel_core.parents import BUILTIN_TINY

    config = EngineConfig(max_model_len=256, num_threads=1)
    prepare_environment(config)
    from vllm import SamplingParams

    from flywheel_core.engines.rendering import encode, render_prompt
    from flywheel_core.engines.vllm_engine import load_tokenizer
    from flywheel_core.engines.vllm_generator import VllmGenerator
    from flywheel_core.world.product import sample_contexts

    prompts = [draft.messages for draft in sample_contexts("user", 1024, 0)]
    ours = VllmGenerator(config)
    ours.load(BUILTIN_TINY)
    sampling = SamplingConfig(max_tokens=56, seed=1)
    tokenizer = load_tokenizer(BUILTIN_TINY)
    ids = encode(tokenizer, [render_prompt(tokenizer, messages) for messages in prompts])

    def with_ours() -> int:
        return sum(samples[0].num_tokens for samples in ours.generate(prompts, sampling))

    def bare(seed: int | None) -> int:
        outputs = ours.engine.llm.generate(
            [{"prompt_token_ids": one} for one in ids],
            SamplingParams(temperature=1.0, max_tokens=56, seed=seed),
            use_tqdm=False,
        )
        return sum(len(output.outputs[0].token_ids) for output in outputs)

    unseeded, seeded = [], []
    for _ in range(REPEATS):
        own, without_seeds, with_seeds = _rates(with_ours, lambda: bare(None), lambda: bare(1))
        unseeded.append(own / without_seeds)
        seeded.append(own / with_seeds)
    for name, ratios, goal in (
        ("generation_vs_bare", unseeded, 0.95),
        ("generation_vs_bare_seeded", seeded, 0.95),
    ):
        median = statistics.median(ratios)
        said = ", ".join(f"{ratio:.3f}" for ratio in ratios)
        how = f"tokens/s, same engine and prompts, interleaved, a minute each, median of 5: {said}"
        yield Row(name, median, "x", f">= {goal}", median >= goal, how)


def _rates(*works: Callable[[], int]) -> list[float]:
    """Tokens per second of each, in turns until each has had a minute: what else the machine
    does, and how warm it is, then meets all of them alike."""
    tokens, seconds = [0] * len(works), [0.0] * len(works)
    while min(seconds) < REPEAT_S:
        for index, work in enumerate(works):
            started_s = time.monotonic()
            tokens[index] += work()
            seconds[index] += time.monotonic() - started_s
    return [count / spent for count, spent in zip(tokens, seconds, strict=True)]
