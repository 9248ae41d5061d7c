"""Online RL (§2.4.3): GRPO on near-policy prompts, stopped at the win-rate target.

The pointwise preference models guide it. User-signal models do not (§3.5.5), unless a study puts
them in by name: its policy is then marked unfit for release.
"""

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
from pydantic import model_validator

from flywheel_core.engines.checkpoint import require_same_tokenizer
from flywheel_core.jobs.answers import (
    POINTWISE,
    answer,
    read_prompts,
    read_standards,
    reward_models,
)
from flywheel_core.jobs.base import StageContext, StageOutput, main, publish
from flywheel_core.records import MESSAGES, PROMPTS, write_table
from flywheel_core.sections import EvaluationSection, Section
from flywheel_core.studies import StudySection, check_rl_rewards, signals_in, why_unfit
from flywheel_core.training.grpo import run_grpo
from flywheel_core.training.grpo_config import GrpoConfig

STOP_PROMPTS = pa.schema(
    [
        pa.field("prompt_id", pa.string(), nullable=False),
        pa.field("messages", MESSAGES, nullable=False),
        pa.field("surface", pa.string(), nullable=False),
        pa.field("production_response", pa.string(), nullable=False),
    ]
)


class Config(Section):
    rl: GrpoConfig
    evaluation: EvaluationSection
    study: StudySection | None = None

    @model_validator(mode="after")
    def _rewards_are_the_papers(self) -> "Config":
        check_rl_rewards(self.rl.reward_weights, self.study)
        return self


def run(config: Config, inputs: Mapping[str, Path], context: StageContext) -> StageOutput:
    """Writes the final policy as `model/`, and the last ones on the way as checkpoints."""
    models = reward_models(inputs["reward_models"], "pointwise_")
    studied = signals_in(config.rl.reward_weights)
    trained = reward_models(inputs["reward_models"], "signal_")
    models |= {name: trained[name] for name in studied if name in trained}
    require_same_tokenizer((inputs[name] / "model" for name in ("dpo", "production")), models)
    standards = read_standards(inputs["reward_models"])
    inline = context.launch.mode == "inline"
    result = run_grpo(
        config.rl,
        model_dir=inputs["dpo"] / "model",
        reward_models=models,
        prompts_path=_rl_prompts(inputs["curate"], context.work),
        stop_prompts_path=_stop_prompts(config, inputs, context),
        output_dir=context.work / "rl",
        launch_config=context.launch,
        engine=context.engines.config,
        engines=context.engines.pool if inline else None,
        standards={name: standards[name] for name in models},
        surface_of={model: surface for surface, model in POINTWISE.items() if model in models}
        | {name: "user" for name in studied},
        stop_sampling=config.evaluation.sampling,
    )
    publish(result.model_dir, context.output / "model")
    for checkpoint in result.checkpoints:
        publish(
            result.checkpoint_dir(checkpoint),
            context.output / "checkpoints" / f"step-{checkpoint.step:05d}",
        )
    (context.output / "result.json").write_text(
        result.model_copy(update={"model_dir": Path("model")}).model_dump_json(indent=1)
    )
    return StageOutput(
        "model",
        {"steps": result.num_steps, "checkpoints": len(result.checkpoints)},
        {
            "stopped_by": result.stopped_by,
            "stop_win_rates": result.checkpoints[-1].win_rates,
            "num_nan_logprobs": result.num_nan_logprobs,
        },
        unfit_for_release=why_unfit(config.study) if config.study else "",
    )


def _rl_prompts(curated: Path, work: Path) -> Path:
    path = work / "rl_prompts.parquet"
    rows = read_prompts(curated, "rl").rows
    write_table(path, rows, PROMPTS)
    return path


def _stop_prompts(config: Config, inputs: Mapping[str, Path], context: StageContext) -> Path:
    """The stopping prompts with production's answers, made once for every try."""
    path = context.work / "stop_prompts.parquet"
    if path.exists():
        return path
    prompts = read_prompts(inputs["curate"], "stop")
    said = answer(
        context.engines,
        inputs["production"] / "model",
        prompts.messages,
        config.evaluation.sampling,
        context.seed,
    )
    rows = [
        {
            "prompt_id": row["prompt_id"],
            "messages": row["messages"],
            "surface": row["surface"],
            "production_response": text,
        }
        for row, text in zip(prompts.rows, said, strict=True)
    ]
    write_table(path, rows, STOP_PROMPTS)
    return path


if __name__ == "__main__":
    main("rl")
