"""A simulated A/B test: two models' utilities in, a table of users' days out.

Each user meets a few responses of their arm's model all week; what they are worth moves whether
the user shows up on a day and how much they send. Slopes are set so that a utility step of 0.5
gives about +4 % breadth and +19 % depth, the scale of the paper's launches (§3.1.3).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from flywheel_core.errors import ConfigError
from flywheel_core.world.people import sigmoid
from flywheel_core.world.utility import FloatArray

Arm = Literal["control", "test"]
ARMS: tuple[Arm, ...] = ("control", "test")

USER_DAYS = pa.schema(
    [
        pa.field("user_id", pa.string(), nullable=False),
        pa.field("arm", pa.string(), nullable=False),
        pa.field("day", pa.int32(), nullable=False),
        pa.field("engaged", pa.bool_(), nullable=False),
        pa.field("sends", pa.int32(), nullable=False),
    ]
)
"""One row per user and day, days counted from 0; `sends` is 0 exactly where not engaged."""


class ExperimentConfig(BaseModel):
    """Size and behaviour of a simulated experiment; all values ours.

    20,000 users an arm for 7 days resolve a utility step of 0.5; 5,000 do not.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_users_per_arm: int = Field(default=20_000, ge=2)
    num_days: int = Field(default=7, ge=1)
    responses_per_user: int = Field(default=20, ge=1)
    neutral_utility: float = 1.0
    activity_mean: float = -0.2
    activity_sd: float = 1.3
    log_sends_mean: float = 1.2
    log_sends_sd: float = 0.9
    breadth_slope: float = 0.21
    depth_slope: float = 0.36


@dataclass(frozen=True, slots=True)
class ArmWeek:
    """What an arm's users do: `engaged` and `sends` of shape [num_users, num_days]; by user, how
    likely they come on a day and how much they write under a neutral model, and by how much what
    they met is worth more than the neutral one."""

    engaged: npt.NDArray[np.bool_]
    sends: npt.NDArray[np.int64]
    usual_chance: FloatArray
    usual_rate: FloatArray
    quality: FloatArray


def draw_week(
    utilities: FloatArray, arm: Arm, config: ExperimentConfig, rng: np.random.Generator
) -> ArmWeek:
    """One arm's users; `utilities` are hidden utilities of a sample of the model's responses."""
    if len(utilities) == 0:
        raise ConfigError(f"utilities: the {arm} arm has none; score some of its responses first")
    num_users, num_days = config.num_users_per_arm, config.num_days
    met = rng.integers(len(utilities), size=(num_users, config.responses_per_user))
    quality = np.asarray(utilities, dtype=np.float64)[met].mean(axis=1) - config.neutral_utility
    activity = rng.normal(config.activity_mean, config.activity_sd, num_users)
    chance = sigmoid(activity + config.breadth_slope * quality)
    log_rate = rng.normal(config.log_sends_mean, config.log_sends_sd, num_users)
    rate = np.exp(log_rate + config.depth_slope * quality)
    engaged = rng.random((num_users, num_days)) < chance[:, None]
    sends = np.where(engaged, 1 + rng.poisson(rate[:, None], (num_users, num_days)), 0)
    return ArmWeek(engaged, sends, sigmoid(activity), np.exp(log_rate), quality)


def simulate_arm(
    utilities: FloatArray, arm: Arm, config: ExperimentConfig, rng: np.random.Generator
) -> pa.Table:
    """One arm's users as rows; see `draw_week`."""
    week = draw_week(utilities, arm, config, rng)
    engaged, sends = week.engaged, week.sends
    num_users, num_days = engaged.shape
    users = pa.array([f"{arm}-{index:06d}" for index in range(num_users)])
    return pa.table(
        {
            "user_id": users.take(pa.array(np.repeat(np.arange(num_users), num_days))),
            "arm": pa.array([arm], pa.string()).take(pa.array(np.zeros(engaged.size, np.int32))),
            "day": np.tile(np.arange(num_days, dtype=np.int32), num_users),
            "engaged": engaged.ravel(),
            "sends": sends.ravel().astype(np.int32),
        },
        schema=USER_DAYS,
    )


def simulate_experiment(
    control: FloatArray, test: FloatArray, config: ExperimentConfig, seed: int
) -> pa.Table:
    """Both arms, control first; users are split before anything is shown to them."""
    rng = np.random.default_rng([seed, 0xAB])
    return pa.concat_tables(
        [simulate_arm(control, "control", config, rng), simulate_arm(test, "test", config, rng)]
    )
