"""A metrics document that passes every gate, and helpers to spoil it."""

from typing import Any

from flywheel_core.release.metrics import (
    ArtifactFeatures,
    BenchmarkScore,
    DataEvidence,
    GateMetrics,
    PromptSet,
    RewardModelName,
    SafetyCounts,
    WinRateCell,
)
from flywheel_core.release.policy import ReleasePolicy

POLICY = ReleasePolicy(release_managers=("alice", "bob"), release="direct")


def cell(
    reward_model: RewardModelName, prompt_set: PromptSet, wins: int, n: int = 2000, **more: Any
) -> WinRateCell:
    """A cell without ties: `wins` of `n`."""
    return WinRateCell.from_counts(reward_model, prompt_set, wins, 0, n - wins, **more)


def good_metrics(**changes: Any) -> GateMetrics:
    """Post-launch evidence under which every gate passes, with fields replaced."""
    fields: dict[str, Any] = {
        "candidate": "c" * 64,
        "parent": "p" * 64,
        "evidence_phase": "post_launch",
        "win_rates": (
            cell("pointwise_internal", "internal", 1160),
            cell("pointwise_user", "user", 1180),
            cell("pairwise_user", "user", 1150),
        ),
        "safety": (
            SafetyCounts(
                candidate_violations=20,
                num_candidate_responses=3000,
                production_violations=24,
                num_production_responses=3000,
            ),
        ),
        "benchmarks": (
            BenchmarkScore(name="ifeval", candidate=0.84, production=0.85, num_items=541),
        ),
        "artifacts": ArtifactFeatures(
            num_responses=1000,
            candidate={
                "length_tokens": 28.0,
                "list_share": 0.11,
                "emoji_count": 1.4,
                "templated_share": 0.05,
            },
            production={
                "length_tokens": 26.0,
                "list_share": 0.12,
                "emoji_count": 1.3,
                "templated_share": 0.06,
            },
        ),
        "data": DataEvidence(
            num_train_rows=4000,
            num_eval_prompts=2000,
            train_eval_overlap_count=0,
            prompt_set_overlap_count=0,
            near_policy_share=0.92,
        ),
    }
    return GateMetrics(**{**fields, **changes})
