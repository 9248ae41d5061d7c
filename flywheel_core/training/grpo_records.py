"""What online RL reports. Light: imports nothing but pydantic."""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """Base: frozen, and unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class PolicyCheckpoint(Record):
    """A model folder on the way, and its win rates on the stopping prompts by reward model.

    `path` is relative to the run's `models/`; only the last few folders are kept.
    """

    step: int
    path: str
    win_rates: dict[str, float]


class StepRecord(Record):
    """One optimiser step.

    `importance_ratio` is the mean of π_old/π_gen after truncation and `logprob_gap_max` the
    largest |log π_old − log π_gen| of a token: near 1 and 0 while the weight sync works.
    """

    step: int
    reward: float
    reward_sd: float
    kl: float
    entropy: float
    length_tokens: float
    importance_ratio: float
    logprob_gap_max: float
    grad_norm: float
    clip_share: float

    @staticmethod
    def of(step: int, logs: dict[str, Any]) -> "StepRecord":
        """From what TRL logs."""
        names = {
            "reward": "reward",
            "reward_sd": "reward_std",
            "kl": "kl",
            "entropy": "entropy",
            "length_tokens": "completions/mean_length",
            "importance_ratio": "sampling/importance_sampling_ratio/mean",
            "logprob_gap_max": "sampling/sampling_logp_difference/max",
            "grad_norm": "grad_norm",
            "clip_share": "clip_ratio/region_mean",
        }
        return StepRecord(step=step, **{field: float(logs[name]) for field, name in names.items()})


class RlState(Record):
    """Everything a resumed run must still know."""

    stopped_by: Literal["max_steps", "win_rate"] = "max_steps"
    checkpoints: tuple[PolicyCheckpoint, ...] = ()
    history: tuple[StepRecord, ...] = ()

    def with_checkpoint(self, checkpoint: PolicyCheckpoint) -> "RlState":
        return self.model_copy(update={"checkpoints": (*self.checkpoints, checkpoint)})

    def with_step(self, record: StepRecord) -> "RlState":
        return self.model_copy(update={"history": (*self.history, record)})


class GrpoResult(Record):
    """The outcome of a run.

    `checkpoints` are the ones whose folders were kept, oldest first; the last is the final model.
    `num_nan_logprobs` counts sampled tokens without a log-probability.
    """

    model_dir: Path
    num_steps: int
    stopped_by: Literal["max_steps", "win_rate"]
    checkpoints: tuple[PolicyCheckpoint, ...]
    win_rate_history: tuple[PolicyCheckpoint, ...]
    history: tuple[StepRecord, ...]
    num_nan_logprobs: int

    def checkpoint_dir(self, checkpoint: PolicyCheckpoint) -> Path:
        """The model folder of a kept checkpoint."""
        return self.model_dir.parent / checkpoint.path
