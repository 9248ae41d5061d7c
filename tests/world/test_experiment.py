"""The simulated A/B test has the paper's scale, and no effect where there is none."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pytest

from flywheel_core.errors import ConfigError
from flywheel_core.world.experiment import USER_DAYS, ExperimentConfig, simulate_experiment


@dataclass(frozen=True)
class Arm:
    breadth: float
    depth: float


def read_arm(table: pa.Table, arm: str) -> Arm:
    """Breadth and depth by the paper's Eq. 9-13, written out anew."""
    engaged = np.array(table.column("engaged"))[np.array(table.column("arm")) == arm]
    sends = np.array(table.column("sends"))[np.array(table.column("arm")) == arm]
    totals = sends.reshape(-1, 7).sum(axis=1)
    return Arm(float(engaged.mean()), float(totals.sum() / (totals > 0).sum()))


def lifts(step: float, seed: int, num_users: int = 20_000) -> tuple[float, float]:
    noise = np.random.default_rng(seed).normal(1.0, 1.6, 3_000)
    config = ExperimentConfig(num_users_per_arm=num_users)
    table = simulate_experiment(noise, noise + step, config, seed)
    control, test = read_arm(table, "control"), read_arm(table, "test")
    return test.breadth / control.breadth - 1, test.depth / control.depth - 1


def test_a_step_of_half_a_unit_has_the_papers_scale() -> None:
    breadth, depth = np.mean([lifts(0.5, seed) for seed in range(5)], axis=0)
    assert breadth == pytest.approx(0.04, abs=0.01)
    assert depth == pytest.approx(0.19, abs=0.03)


def test_no_step_no_lift() -> None:
    breadth, depth = np.mean([lifts(0.0, seed) for seed in range(5)], axis=0)
    assert abs(breadth) < 0.01
    assert abs(depth) < 0.02


def test_the_table_is_one_row_per_user_and_day() -> None:
    table = simulate_experiment(
        np.ones(3), np.ones(3), ExperimentConfig(num_users_per_arm=10), seed=0
    )
    assert table.schema == USER_DAYS
    assert table.num_rows == 2 * 10 * 7
    assert len(set(table.column("user_id").to_pylist())) == 20
    engaged, sends = np.array(table.column("engaged")), np.array(table.column("sends"))
    assert ((sends > 0) == engaged).all()


def test_the_same_seed_gives_the_same_table() -> None:
    config = ExperimentConfig(num_users_per_arm=20)
    first, again, other = (
        simulate_experiment(np.ones(3), np.zeros(3), config, seed) for seed in (4, 4, 5)
    )
    assert first.equals(again)
    assert not first.equals(other)


def test_an_arm_without_responses_is_named() -> None:
    with pytest.raises(ConfigError, match="test arm"):
        simulate_experiment(np.ones(3), np.array([]), ExperimentConfig(), seed=0)
