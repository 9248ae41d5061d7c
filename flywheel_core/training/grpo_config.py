"""What online RL is asked to do (§2.4.3, Eq. 8). Light: imports nothing but pydantic."""

from pydantic import BaseModel, ConfigDict, Field, model_validator


class GrpoConfig(BaseModel):
    """GRPO with an importance correction and a moving reference. *Semantic*: part of the key.

    The paper gives the loss but no number for it: every number here is ours, and stays near the
    values common for GRPO, except for these:

    - `stop_win_rate` is the paper's target (§3.1.2): a step is "large enough to ensure progress
      but small enough to avoid overfitting" (§2.1).
    - `temperature` is 1: the sampler's own distribution is Eq. 8's π_gen.
    - `num_iterations` is not offered: one update a batch, so π_old is the policy that was synced.

    `ema_alpha` weights the *new* policy: every `ema_sync_steps`, π_ref ← (1−α) π_ref + α π_θ.
    A completion longer than `long_response_start_tokens` loses reward linearly, up to
    `long_response_penalty` (in standard deviations of the reward) at `max_completion_tokens`
    (Table 7's long-response penalty). `reward_weights` defaults to 1 for every reward model.
    `nan_logprobs_max` is the largest share of sampled tokens without a usable log-probability;
    TRL would count their ratio as 1 without a word.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = 0
    max_steps: int = Field(default=120, ge=1)
    prompts_per_step: int = Field(default=64, ge=1)
    num_generations: int = Field(default=8, ge=2)
    learning_rate: float = Field(default=1e-6, gt=0)
    warmup_steps: int = Field(default=5, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    epsilon: float = Field(default=0.2, gt=0, lt=1)
    beta: float = Field(default=0.04, gt=0)
    ema_alpha: float = Field(default=0.1, gt=0, le=1)
    ema_sync_steps: int = Field(default=5, ge=1)
    temperature: float = Field(default=1.0, gt=0)
    max_completion_tokens: int = Field(default=256, ge=1)
    importance_ratio_max: float = Field(default=2.0, ge=1)
    nan_logprobs_max: float = Field(default=0.0, ge=0, le=1)
    reward_weights: dict[str, float] = {}
    long_response_start_tokens: int = Field(default=192, ge=1)
    long_response_penalty: float = Field(default=1.0, ge=0)
    stop_win_rate: float = Field(default=0.60, gt=0.5, le=1)
    stop_every_steps: int = Field(default=10, ge=1)
    checkpoint_every_steps: int = Field(default=10, ge=1)
    num_kept_checkpoints: int = Field(default=3, ge=1)
    micro_batch_completions: int = Field(default=0, ge=0)
    """Completions a rank takes through the model at once; 0 takes its whole share. Changes
    memory and speed; the gradient stays the same up to rounding."""

    @model_validator(mode="after")
    def _penalty_has_room(self) -> "GrpoConfig":
        if self.long_response_penalty and (
            self.long_response_start_tokens > self.max_completion_tokens
        ):
            raise ValueError(
                f"long_response_start_tokens {self.long_response_start_tokens} is above "
                f"max_completion_tokens {self.max_completion_tokens}, so the penalty never "
                "applies; lower it, or set long_response_penalty to 0"
            )
        return self

    @property
    def completions_per_step(self) -> int:
        """Sampled responses in one optimiser step, over all ranks."""
        return self.prompts_per_step * self.num_generations
