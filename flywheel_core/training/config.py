"""How models are trained. Light: imports nothing but pydantic.

Learning rates and sizes are not published by the paper; the defaults are ours, for the large
end. The tiny recipe states its own.
"""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class TrainingSection(BaseModel):
    """Base: frozen, and a misspelt key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class LaunchConfig(TrainingSection):
    """Where and how wide training runs. *Execution*: part of no key.

    `ray_train` starts `num_workers` ranks under Ray Train with DeepSpeed ZeRO; `inline` trains
    in this process, one rank, without DeepSpeed.
    """

    mode: Literal["ray_train", "inline"] = "ray_train"
    num_workers: int = Field(2, ge=1)
    cpus_per_worker: float = Field(1, gt=0)
    gpus_per_worker: float = Field(0, ge=0)
    zero_stage: Literal[2, 3] = 3
    device: Literal["cpu", "cuda"] = "cpu"
    precision: Literal["fp32", "bf16"] = "fp32"
    start_timeout_s: int = Field(300, ge=1)
    max_failures: int = Field(1, ge=0)
    """Ranks that died and are started again at the newest whole checkpoint. An error that the
    next try would meet again (of code, configuration or data) is not tried again."""
    rows_per_device_max: int | None = Field(None, ge=1)
    """Rows a rank takes at once; the rest of its share of a batch is accumulated."""
    checkpoint_every_steps: int | None = Field(None, ge=1)
    """Resumable checkpoints besides the planned ones; two are kept."""

    @model_validator(mode="after")
    def _devices_fit(self) -> Self:
        if self.mode == "ray_train" and (self.device == "cuda") != (self.gpus_per_worker > 0):
            raise ValueError(
                f"device {self.device!r} with gpus_per_worker {self.gpus_per_worker:g}: a rank on "
                "cuda needs a GPU (usually 1), a rank on the cpu takes 0"
            )
        return self


class OptimiserSection(TrainingSection):
    """What every training has: steps, batch, rate, seed. Batches are counted over all ranks."""

    learning_rate: float = Field(gt=0)
    num_epochs: float = Field(gt=0)
    global_batch_size: int = Field(ge=1)
    max_length_tokens: int = Field(ge=8)
    warmup_share: float = Field(0.05, ge=0, le=1)
    schedule: Literal["cosine", "linear", "constant_with_warmup"] = "cosine"
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    seed: int = 0


class SftConfig(OptimiserSection):
    """Supervised fine-tuning (§2.4.2); `num_checkpoints` models are kept, evenly spaced, the last
    step's among them."""

    num_checkpoints: int = Field(4, ge=1)


class DpoConfig(OptimiserSection):
    """The DPO patch (§2.4.2). `mask_eot` takes the end-of-turn token out of the loss (Table 7)."""

    beta: float = Field(0.1, gt=0)
    mask_eot: bool = True


class RewardModelConfig(OptimiserSection):
    """A preference or signal model (Eq. 1–3, 6–7). `pointwise` is Bradley-Terry over pairs,
    `pairwise` a cross-encoder of both responses, `signal` a classifier of one response."""

    kind: Literal["pointwise", "pairwise", "signal"]
