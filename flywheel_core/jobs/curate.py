"""Filter, diversify and balance the traffic into six disjoint prompt sets (§2.2.1)."""

import json
from collections.abc import Mapping
from pathlib import Path

from flywheel_core.curation.guard import Guard, llama_guard
from flywheel_core.curation.lint_tables import LINT_EDITS, LINT_FILE, lint_rl_prompts
from flywheel_core.curation.pipeline import TrafficFiles, Workshop, curate_files
from flywheel_core.curation.section import CurationSection
from flywheel_core.engines.executor import make_executor
from flywheel_core.erasure.users import of_inputs
from flywheel_core.jobs.base import StageContext, StageOutput, main
from flywheel_core.records import PROMPTS, write_table
from flywheel_core.sections import Section
from flywheel_core.stages import GUARD


class Config(Section):
    curation: CurationSection


def run(config: Config, inputs: Mapping[str, Path], context: StageContext) -> StageOutput:
    """Writes `prompts.parquet`, `report.json`, and the linter's edits where it is asked for."""
    executor = context.plan.parsed_recipe().execution.executor
    curated = curate_files(
        _traffic(inputs["traffic"], context),
        config.curation,
        context.engines.embedder(config.curation.embedder),
        context.seed,
        production_digest=context.plan.parent.digest,
        erasures=of_inputs(inputs),
        workshop=Workshop(
            make_executor(executor),
            executor,
            context.work,
            context.progress,
            _guard(config, inputs, context),
        ),
    )
    prompts, report = curated.prompts, curated.report
    if config.curation.lint:
        linted = lint_rl_prompts(prompts, config.curation.lint)
        prompts, report = linted.rows, report | {"lint": linted.report}
        write_table(context.output / LINT_FILE, linted.edits, LINT_EDITS)
    count = write_table(context.output / "prompts.parquet", prompts, PROMPTS)
    (context.output / "report.json").write_text(json.dumps(report, indent=1))
    row_counts = {"rows": report["rows"], "prompts": count}
    return StageOutput("prompts", row_counts, report)


def _guard(config: Config, inputs: Mapping[str, Path], context: StageContext) -> Guard | None:
    """The guard model on this stage's engine, known by its artifact's key. What it answers is
    kept by the marks of its shards."""
    safety = config.curation.safety
    if safety.model is None:
        return None
    pool = context.engines.pool
    key = context.stage.inputs[GUARD].key
    return llama_guard(safety, key, inputs[GUARD] / "model", pool.generator, pool.close)


def _traffic(folder: Path, context: StageContext) -> TrafficFiles:
    """The week's file; a prompt's source is the day it was pinned from, or the week's artifact."""
    return TrafficFiles(
        files=(folder / "traffic.parquet",),
        key=context.stage.inputs["traffic"].key,
        keys_by_day={day: ref.key for day, ref in context.plan.pinned_days.items()},
    )


if __name__ == "__main__":
    main("curate")
