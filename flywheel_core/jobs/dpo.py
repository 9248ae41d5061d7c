"""DPO as a small patch for urgent faults (§2.4.2): tagged responses against clean ones."""

from collections.abc import Mapping
from pathlib import Path

import pyarrow.parquet as pq

from flywheel_core.jobs.base import StageContext, StageOutput, main, publish
from flywheel_core.sections import Section
from flywheel_core.training.config import DpoConfig
from flywheel_core.training.dpo import run_dpo

MIN_PAIRS = 16


class Config(Section):
    dpo: DpoConfig


def run(config: Config, inputs: Mapping[str, Path], context: StageContext) -> StageOutput:
    """Writes the patched model; with hardly any faulty pair, SFT's model as it is, and says so."""
    pairs = inputs["annotate"] / "patch.parquet"
    count = pq.read_metadata(pairs).num_rows
    model, metrics = inputs["sft"] / "model", {"patched": False}
    if count >= MIN_PAIRS:
        result = run_dpo(
            config.dpo,
            model_dir=model,
            dataset_path=pairs,
            output_dir=context.work / "dpo",
            launch_config=context.launch,
        )
        model, metrics = result.model_dir, {"patched": True} | result.metrics
    publish(model, context.output / "model")
    publish(model, context.output / "checkpoints" / "final")
    return StageOutput("model", {"pairs": count}, metrics)


if __name__ == "__main__":
    main("dpo")
