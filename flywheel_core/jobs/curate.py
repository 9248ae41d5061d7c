"""Filter, diversify and balance the traffic into six disjoint prompt sets (§2.2.1)."""

import json
from collections.abc import Mapping
from pathlib import Path

from flywheel_core.curation.curate import curate
from flywheel_core.erasure.users import of_inputs, without_erased
from flywheel_core.errors import InputDataError
from flywheel_core.jobs.base import StageContext, StageOutput, main
from flywheel_core.recipe import CurationSection, Section
from flywheel_core.records import PROMPTS, TRAFFIC, read_table, write_table


class Config(Section):
    curation: CurationSection


def run(config: Config, inputs: Mapping[str, Path], context: StageContext) -> StageOutput:
    """Writes `prompts.parquet` and `report.json`."""
    table = read_table(inputs["traffic"] / "traffic.parquet", TRAFFIC)
    rows = without_erased(table, of_inputs(inputs)).to_pylist()
    curated = curate(
        rows,
        config.curation,
        context.engines.embedder(config.curation.embedder),
        context.seed,
        production_digest=context.plan.parent.digest,
    )
    if not curated.prompts:
        raise InputDataError(
            f"curation kept none of {len(rows)} rows: {curated.report['rejected']}; look at the "
            "traffic and the rules that rejected it"
        )
    count = write_table(context.output / "prompts.parquet", curated.prompts, PROMPTS)
    (context.output / "report.json").write_text(json.dumps(curated.report, indent=1))
    return StageOutput("prompts", {"rows": len(rows), "prompts": count}, curated.report)


if __name__ == "__main__":
    main("curate")
