"""Filter, diversify and balance the traffic into six disjoint prompt sets (§2.2.1)."""

import json
from collections.abc import Mapping
from pathlib import Path

from flywheel_core.curation.pipeline import TrafficFiles, Workshop, curate_files
from flywheel_core.engines.executor import make_executor
from flywheel_core.erasure.users import of_inputs
from flywheel_core.jobs.base import StageContext, StageOutput, main
from flywheel_core.recipe import CurationSection, Section
from flywheel_core.records import PROMPTS, write_table


class Config(Section):
    curation: CurationSection


def run(config: Config, inputs: Mapping[str, Path], context: StageContext) -> StageOutput:
    """Writes `prompts.parquet` and `report.json`."""
    executor = context.plan.parsed_recipe().execution.executor
    curated = curate_files(
        _traffic(inputs["traffic"], context),
        config.curation,
        context.engines.embedder(config.curation.embedder),
        context.seed,
        production_digest=context.plan.parent.digest,
        erasures=of_inputs(inputs),
        workshop=Workshop(make_executor(executor), executor, context.work, context.progress),
    )
    count = write_table(context.output / "prompts.parquet", curated.prompts, PROMPTS)
    (context.output / "report.json").write_text(json.dumps(curated.report, indent=1))
    row_counts = {"rows": curated.report["rows"], "prompts": count}
    return StageOutput("prompts", row_counts, curated.report)


def _traffic(folder: Path, context: StageContext) -> TrafficFiles:
    """The week's file; a prompt's source is the day it was pinned from, or the week's artifact."""
    return TrafficFiles(
        files=(folder / "traffic.parquet",),
        key=context.stage.inputs["traffic"].key,
        keys_by_day={day: ref.key for day, ref in context.plan.pinned_days.items()},
    )


if __name__ == "__main__":
    main("curate")
