"""Supervised fine-tuning (§2.4.2), stopped at its share of the step.

SFT saves several checkpoints; the one with the highest win rate on the stopping prompts that is
still at or below `sft_stop_win_rate` goes on to DPO, so that RL has room below the 60 % target.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from flywheel_core.engines.checkpoint import require_same_tokenizer
from flywheel_core.evaluation.comparison import Checkpoint, choose_checkpoint
from flywheel_core.jobs.answers import WinRateProbe, read_prompts, reward_models
from flywheel_core.jobs.base import StageContext, StageOutput, main, publish
from flywheel_core.sections import EvaluationSection, Section
from flywheel_core.training.config import SftConfig
from flywheel_core.training.sft import run_sft


class Config(Section):
    sft: SftConfig
    evaluation: EvaluationSection
    sft_starts_from: Literal["base", "production"]


def run(config: Config, inputs: Mapping[str, Path], context: StageContext) -> StageOutput:
    """Writes the chosen model as `model/` and as a checkpoint, and every win rate."""
    policies = [inputs[name] / "model" for name in (config.sft_starts_from, "production")]
    require_same_tokenizer(policies, reward_models(inputs["reward_models"], "pointwise_"))
    result = run_sft(
        config.sft,
        model_dir=inputs[config.sft_starts_from] / "model",
        dataset_path=inputs["rejection_sampling"] / "training.parquet",
        output_dir=context.work / "sft",
        launch_config=context.launch,
    )
    probe = WinRateProbe(
        context.engines,
        read_prompts(inputs["curate"], "stop"),
        inputs["production"] / "model",
        inputs["reward_models"],
        config.evaluation.sampling,
        context.seed,
    )
    measured: list[Checkpoint] = []
    paths = {f"step-{saved.step:05d}": saved.path for saved in result.checkpoints}
    for name, path in paths.items():
        checkpoint, _ = probe.checkpoint(name, path)
        measured.append(checkpoint)
        print(f"stop prompts: {name} win rate {checkpoint.highest:.3f}", flush=True)
    chosen = choose_checkpoint(measured, config.evaluation.sft_stop_win_rate)
    publish(paths[chosen.name], context.output / "model")
    publish(paths[chosen.name], context.output / "checkpoints" / chosen.name)
    (context.output / "stopping.json").write_text(
        json.dumps({"chosen": chosen.name, "checkpoints": [asdict(c) for c in measured]}, indent=1)
    )
    return StageOutput(
        "model",
        {"checkpoints": len(measured)},
        {"chosen": chosen.name, "stop_win_rates": dict(chosen.win_rates)} | result.metrics,
    )


if __name__ == "__main__":
    main("sft")
