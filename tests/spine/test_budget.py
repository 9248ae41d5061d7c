"""A climb's GPU-hours: counted once a job, and never exceeded."""

from pathlib import Path

import pytest
import yaml

from flywheel_core.budget import allowance_of, gpu_hours_used, record_usage
from flywheel_core.errors import BudgetExceeded
from flywheel_core.plan import PinnedPlan, resolve
from flywheel_core.recipe import RECIPE_FOLDER, parse_recipe
from flywheel_core.release.policy import ReleasePolicy
from flywheel_core.store import LocalStore

HOURS_10 = ReleasePolicy(release_managers=("rm",), gpu_hours_per_climb_max=10)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(str(tmp_path))


@pytest.fixture
def plan(store: LocalStore) -> PinnedPlan:
    """The tiny climb on GPUs: two of the driver's, and four ranks of one each."""
    data = yaml.safe_load((RECIPE_FOLDER / "tiny_cpu.yaml").read_text())
    data["execution"]["launch"] |= {"device": "cuda", "gpus_per_worker": 1, "num_workers": 4}
    data["execution"]["default_resources"] |= {"driver_gpus": 2}
    return resolve(parse_recipe(data, "test"), store, "run", policy_digest="none")


def test_a_job_may_run_until_the_climb_has_used_its_hours(
    store: LocalStore, plan: PinnedPlan
) -> None:
    first = allowance_of(store, plan, plan.stage("annotate"), HOURS_10)
    assert (first.num_gpus, first.job_s) == (2, 5 * 3600)
    record_usage(store, first.usage_path("annotate-1"), 2, 3600)
    record_usage(store, first.usage_path("annotate-1"), 2, 9999)  # a second record of one job
    assert gpu_hours_used(store, plan) == 2
    sft = allowance_of(store, plan, plan.stage("sft"), HOURS_10)
    assert (sft.num_gpus, sft.job_s) == (6, pytest.approx(8 / 6 * 3600))
    record_usage(store, sft.usage_path("sft-1"), 6, sft.job_s or 0)
    rl = allowance_of(store, plan, plan.stage("rl"), HOURS_10)
    assert rl.job_s == 0  # of a job that lives already: it is stopped, not abandoned
    with pytest.raises(BudgetExceeded, match=r"10: this climb has used 10\.00 GPU-hours"):
        rl.require()


def test_without_a_limit_or_without_gpus_nothing_is_held_back(
    store: LocalStore, plan: PinnedPlan, tmp_path: Path
) -> None:
    free = HOURS_10.model_copy(update={"gpu_hours_per_climb_max": None})
    assert allowance_of(store, plan, plan.stage("sft"), free).job_s is None
    data = yaml.safe_load((RECIPE_FOLDER / "tiny_cpu.yaml").read_text())
    on_cpu = resolve(parse_recipe(data, "test"), store, "cpu", policy_digest="none")
    assert allowance_of(store, on_cpu, on_cpu.stage("sft"), HOURS_10).job_s is None
