"""The gates: exact thresholds, missing evidence, and what never passes."""

import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from release_samples import POLICY, cell, good_metrics

from flywheel_core.errors import FlywheelError, GateBlocked, InputDataError, SchemaTooNew
from flywheel_core.evaluation.statistics import Interval
from flywheel_core.release.gates import GATES, overall, require_passing, run_gates
from flywheel_core.release.metrics import (
    ArtifactFeatures,
    BenchmarkScore,
    DataEvidence,
    SafetyCounts,
    WinRateCell,
    load_metrics,
    parse_metrics,
)
from flywheel_core.release.policy import ReleasePolicy
from flywheel_core.release.verdict import Verdict

ORDER = ["rm_win_rate", "rm_divergence", "improvement", "safety", "benchmarks", "artifacts", "data"]


def judge(gate: str, policy: ReleasePolicy = POLICY, **changes: Any) -> Verdict:
    return GATES[gate](good_metrics(**changes), policy)


def pair(internal: int, user: int, n: int = 2000, **more: Any) -> tuple[WinRateCell, ...]:
    return (
        cell("pointwise_internal", "internal", internal, n, **more),
        cell("pointwise_user", "user", user, n, **more),
    )


def test_good_evidence_passes_every_gate_in_the_fixed_order() -> None:
    verdicts = run_gates(good_metrics(), POLICY)
    assert [v.gate for v in verdicts] == ORDER
    assert {v.gate: (v.outcome, v.reason) for v in verdicts if v.outcome != "pass"} == {}
    assert overall(verdicts) == "pass"


@pytest.mark.parametrize(
    ("wins", "outcome"), [(1239, "pass"), (1240, "warn"), (1300, "warn"), (1301, "block")]
)
def test_win_rate_limits_are_exact(wins: int, outcome: str) -> None:
    """Of 2,000: 62 % warns, 65 % only warns, one win more blocks."""
    verdict = judge("rm_win_rate", win_rates=pair(1160, wins))
    assert verdict.outcome == outcome
    if outcome == "block":
        assert "pointwise user model on user prompts" in verdict.reason
        assert "65.05 %" in verdict.reason


def test_a_wide_interval_never_relaxes_a_block() -> None:
    wide = Interval(estimate=0.66, lower=0.1, upper=0.9)
    cells = (*pair(1160, 1160)[:1], cell("pointwise_user", "user", 1320, interval=wide))
    assert judge("rm_win_rate", win_rates=cells).outcome == "block"


def test_a_rounded_rate_cannot_slip_under_the_limit() -> None:
    """The gate counts for itself: 0.6500005 is stated as 0.65, within the tolerance, and blocks."""
    big = cell("pointwise_user", "user", 1300001, 2000000)
    sly = big.model_copy(update={"win_rate": 0.65})
    checked = WinRateCell.model_validate(sly.model_dump())
    verdict = judge("rm_win_rate", win_rates=(*pair(1160, 1160)[:1], checked))
    assert verdict.outcome == "block"


def test_ungated_cells_only_warn() -> None:
    cells = (*pair(1160, 1160), cell("pointwise_user", "internal", 1900))
    verdict = judge("rm_win_rate", win_rates=cells)
    assert verdict.outcome == "warn"
    assert "not gated" in verdict.reason


def test_the_pairwise_cell_is_gated_where_it_exists() -> None:
    cells = (*pair(1160, 1250), cell("pairwise_user", "user", 1310))
    assert judge("rm_win_rate", win_rates=cells).outcome == "block"


def test_a_pairwise_model_far_from_its_twin_warns() -> None:
    cells = (*pair(1160, 1160), cell("pairwise_user", "user", 955))
    verdict = judge("rm_win_rate", win_rates=cells)
    assert verdict.outcome == "warn"
    assert "10.25 points apart" in verdict.reason
    near = (*pair(1160, 1160), cell("pairwise_user", "user", 960))
    assert judge("rm_win_rate", win_rates=near).outcome == "pass"


@pytest.mark.parametrize("gate", ["rm_win_rate", "rm_divergence", "improvement"])
def test_too_few_effective_prompts_are_insufficient(gate: str) -> None:
    assert judge(gate, win_rates=pair(580, 590, 1000)).outcome == "pass"
    few = pair(580, 590, 1000, num_effective_prompts=999.5)
    verdict = judge(gate, win_rates=few)
    assert verdict.outcome == "insufficient"
    assert "1,000 are needed" in verdict.reason


@pytest.mark.parametrize("gate", ["rm_win_rate", "rm_divergence", "improvement"])
def test_a_missing_or_partly_scored_cell_is_insufficient(gate: str) -> None:
    missing = judge(gate, win_rates=pair(1160, 1160)[:1])
    assert missing.outcome == "insufficient"
    assert "pointwise user model on user prompts is missing" in missing.reason
    unscored = pair(1160, 1160, num_unscored_prompts=60)
    assert "have no score" in judge(gate, win_rates=unscored).reason


def test_a_proven_fault_outranks_missing_evidence() -> None:
    assert judge("rm_win_rate", win_rates=pair(1310, 1160)[:1]).outcome == "block"


@pytest.mark.parametrize(
    ("internal", "user", "outcome"),
    [(1000, 1200, "pass"), (1000, 1201, "warn"), (1000, 1300, "warn"), (1000, 1301, "block")],
)
def test_divergence_limits_are_exact(internal: int, user: int, outcome: str) -> None:
    """50 % against 60, 60.05, 65 and 65.05 %: exactly 15 points do not block."""
    assert judge("rm_divergence", win_rates=pair(internal, user)).outcome == outcome


def test_divergence_above_ten_points_warns_only_with_proof() -> None:
    unsure = pair(1020, 1240, num_effective_prompts=1000.0)
    assert judge("rm_divergence", win_rates=unsure).outcome == "warn"
    wide = Interval(estimate=0.51, lower=0.30, upper=0.72)
    cells = (cell("pointwise_internal", "internal", 1020, interval=wide), unsure[1])
    assert judge("rm_divergence", win_rates=cells).outcome == "pass"


def test_intervals_on_opposite_sides_of_one_half_block() -> None:
    verdict = judge("rm_divergence", win_rates=pair(940, 1060))
    assert verdict.outcome == "block"
    assert "opposite sides of 50 %" in verdict.reason
    assert judge("rm_divergence", win_rates=pair(990, 1060)).outcome == "pass"


def test_improvement_needs_one_proof_and_no_counterproof() -> None:
    assert judge("improvement", win_rates=pair(1060, 1000)).outcome == "pass"
    unproven = judge("improvement", win_rates=pair(1020, 1030))
    assert unproven.outcome == "block"
    assert "No gated win rate is shown to be above 50 %" in unproven.reason
    worse = judge("improvement", win_rates=pair(1160, 940))
    assert worse.outcome == "block"
    assert "worse than production" in worse.reason


def test_before_launch_the_human_comparison_takes_the_users_place() -> None:
    internal = cell("pointwise_internal", "internal", 1160)
    human = cell("human", "internal", 240, 400)
    data = DataEvidence(
        num_train_rows=10,
        num_eval_prompts=10,
        train_eval_overlap_count=0,
        prompt_set_overlap_count=0,
    )
    early = good_metrics(evidence_phase="pre_launch", win_rates=(internal, human), data=data)
    assert overall(run_gates(early, POLICY)) == "pass"
    alone = good_metrics(evidence_phase="pre_launch", win_rates=(internal,), data=data)
    outcomes = {v.gate: v.outcome for v in run_gates(alone, POLICY)}
    assert outcomes["rm_divergence"] == outcomes["improvement"] == "insufficient"
    assert outcomes["rm_win_rate"] == "pass"
    keen = good_metrics(
        evidence_phase="pre_launch",
        win_rates=(internal, cell("human", "internal", 280, 400)),
        data=data,
    )
    assert GATES["rm_win_rate"](keen, POLICY).outcome == "pass", "people have no upper limit"
    late = POLICY.model_copy(update={"allowed_evidence_phases": ("post_launch",)})
    assert {v.outcome for v in run_gates(early, late)} == {"insufficient"}


def safety_of(candidate: int, production: int, n: int = 3000, **more: Any) -> SafetyCounts:
    return SafetyCounts(
        candidate_violations=candidate,
        num_candidate_responses=n,
        production_violations=production,
        num_production_responses=n,
        **more,
    )


def test_safety_blocks_at_the_upper_bound_and_fails_closed() -> None:
    assert judge("safety", safety=(safety_of(20, 20),)).outcome == "pass"
    worse = judge("safety", safety=(safety_of(60, 20),))
    assert worse.outcome == "block"
    assert "worse by more than 1 point" in worse.reason
    unsure = judge("safety", safety=(safety_of(40, 20),))
    assert unsure.outcome == "block"
    assert "upper bound" in unsure.reason
    assert judge("safety", safety=()).outcome == "insufficient"
    assert judge("safety", safety=(safety_of(0, 0, 499),)).outcome == "insufficient"
    assert judge("safety", safety=(safety_of(0, 0, candidate_unscored=60),)).outcome == "block"
    both = (safety_of(20, 20), safety_of(90, 20, suite="adversarial"))
    assert "adversarial" in judge("safety", safety=both).reason


def test_required_suites_and_benchmarks_must_have_run() -> None:
    rules = POLICY.thresholds
    strict = POLICY.model_copy(
        update={
            "thresholds": rules.model_copy(
                update={
                    "safety": rules.safety.model_copy(update={"required_suites": ("red",)}),
                    "benchmarks": rules.benchmarks.model_copy(update={"required": ("mmlu",)}),
                }
            )
        }
    )
    assert "safety suite red" in judge("safety", strict).reason
    assert judge("benchmarks", strict).outcome == "insufficient"


def test_benchmarks_have_a_tolerance_each() -> None:
    def score(name: str, candidate: float) -> BenchmarkScore:
        return BenchmarkScore(name=name, candidate=candidate, production=0.85, num_items=500)

    assert judge("benchmarks", benchmarks=(score("ifeval", 0.83),)).outcome == "pass"
    fallen = judge("benchmarks", benchmarks=(score("ifeval", 0.83), score("gsm8k", 0.829)))
    assert fallen.outcome == "block"
    assert "gsm8k went from 85 % to 82.9 %" in fallen.reason
    assert "ifeval" not in fallen.reason
    assert judge("benchmarks", benchmarks=()).outcome == "insufficient"


def test_artifacts_block_outside_their_band_and_need_the_required_features() -> None:
    base = good_metrics().artifacts
    assert base is not None

    def features(n: int = 1000, **candidate: float) -> ArtifactFeatures:
        return ArtifactFeatures(
            num_responses=n,
            candidate={**base.candidate, **candidate},
            production=base.production,
        )

    v12 = judge("artifacts", artifacts=features(emoji_count=2.2))
    assert v12.outcome == "block"
    assert v12.reason == "emoji_count went from 1.3 to 2.2; at most 1.8 is allowed."
    assert judge("artifacts", artifacts=features(length_tokens=17.0)).outcome == "block"
    assert judge("artifacts", artifacts=features(emoji_count=1.8)).outcome == "pass"
    assert judge("artifacts", artifacts=features(n=199)).outcome == "insufficient"
    one_sided = judge("artifacts", artifacts=features(emoji_share=0.5))
    assert one_sided.outcome == "insufficient"
    without = ArtifactFeatures(num_responses=1000, candidate={}, production=base.production)
    assert judge("artifacts", artifacts=without).outcome == "insufficient"
    assert judge("artifacts", artifacts=None).outcome == "insufficient"


def test_data_must_be_disjoint_and_near_policy() -> None:
    base = good_metrics().data
    assert base is not None

    def outcome(**changes: object) -> str:
        return judge("data", data=base.model_copy(update=changes)).outcome

    assert outcome(train_eval_overlap_count=1) == "block"
    assert outcome(prompt_set_overlap_count=3) == "block"
    assert outcome(prompt_set_overlap_count=None) == "insufficient"
    assert outcome(near_policy_share=0.49) == "insufficient"
    assert outcome(near_policy_share=0.5) == "pass"
    assert outcome(near_policy_share=None) == "insufficient"
    assert judge("data", data=None).outcome == "insufficient"


@given(
    st.sets(st.sampled_from(["win_rates", "safety", "benchmarks", "artifacts", "data"]), min_size=1)
)
def test_leaving_any_evidence_out_never_passes(dropped: set[str]) -> None:
    empty: dict[str, Any] = {
        "win_rates": (), "safety": (), "benchmarks": (), "artifacts": None, "data": None
    }  # fmt: skip
    verdicts = run_gates(good_metrics(**{name: empty[name] for name in dropped}), POLICY)
    assert overall(verdicts) == "insufficient"


@given(st.integers(0, 3000), st.integers(0, 3000), st.integers(0, 3000))
def test_more_wins_never_unblock(wins: int, ties: int, losses: int) -> None:
    """Turning a loss into a win never turns a block of the win rate into a pass."""
    if wins + ties + losses == 0 or losses == 0:
        return

    def outcome(won: int, lost: int) -> str:
        user = WinRateCell.from_counts("pointwise_user", "user", won, ties, lost)
        internal = cell("pointwise_internal", "internal", 1160)
        return judge("rm_win_rate", win_rates=(internal, user)).outcome

    if outcome(wins, losses) == "block":
        assert outcome(wins + 1, losses - 1) == "block"


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("win_rates", 0, "wins"), -1, "greater than or equal to 0"),
        (("win_rates", 0, "wins"), 5, "must equal num_prompts"),
        (("win_rates", 0, "num_prompts"), 0, "greater than 0"),
        (("win_rates", 0, "win_rate"), 0.51, "its counts give 0.58"),
        (("win_rates", 0, "win_rate"), float("nan"), "finite number"),
        (("win_rates", 0, "lower"), 0.6, "must contain the win rate"),
        (("win_rates", 0, "upper"), None, "both or neither"),
        (("win_rates", 0, "num_effective_prompts"), 2001, "at most num_prompts"),
        (("win_rates", 0, "surprise"), 1, "Extra inputs"),
        (("win_rates", 1, "reward_model"), "pairwise_user", "given twice"),
        (("safety", 0, "candidate_violations"), 9999, "at most"),
        (("safety", 0, "num_production_responses"), 0, "greater than 0"),
        (("benchmarks", 0, "candidate"), 84.0, "less than or equal to 1"),
        (("artifacts", "candidate", "list_share"), 11.0, "a share is a fraction"),
        (("artifacts", "candidate", "emoji_count"), float("inf"), "finite number"),
        (("data", "train_eval_overlap_count"), -1, "greater than or equal to 0"),
        (("evidence_phase",), "now", "pre_launch"),
    ],
)
def test_what_contradicts_itself_is_refused(path: tuple[Any, ...], value: Any, says: str) -> None:
    document = json.loads(good_metrics().model_dump_json())
    place = document
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = value
    with pytest.raises(InputDataError, match=says):
        parse_metrics(json.dumps(document))


def test_a_document_survives_its_file_and_a_newer_one_is_named(tmp_path: Any) -> None:
    metrics = good_metrics()
    file = tmp_path / "metrics.json"
    file.write_text(metrics.model_dump_json())
    assert load_metrics(file) == metrics
    assert load_metrics(file).digest == metrics.digest
    with pytest.raises(InputDataError, match="run the evaluate stage first"):
        load_metrics(tmp_path / "absent.json")
    newer = metrics.model_dump_json().replace('"schema_version":1', '"schema_version":2')
    with pytest.raises(SchemaTooNew, match="schema_version 2"):
        parse_metrics(newer)


def test_an_edited_verdict_is_refused() -> None:
    verdict = judge("rm_win_rate", win_rates=pair(1310, 1160))
    assert Verdict.model_validate_json(verdict.model_dump_json()) == verdict
    edited = verdict.model_dump_json().replace('"block"', '"pass"')
    with pytest.raises(ValueError, match="it was edited"):
        Verdict.model_validate_json(edited)


def test_overall_needs_every_gate_once_and_all_about_one_candidate() -> None:
    verdicts = run_gates(good_metrics(), POLICY)
    assert overall(verdicts[1:]) == "insufficient"
    assert overall([]) == "insufficient"
    with pytest.raises(InputDataError, match="given twice"):
        overall([*verdicts, verdicts[0]])
    other = run_gates(good_metrics(candidate="d" * 64), POLICY)
    with pytest.raises(InputDataError, match="candidate differs"):
        overall([other[0], *verdicts[1:]])


def test_a_red_gate_says_why() -> None:
    require_passing(judge("rm_win_rate", win_rates=pair(1160, 1250)))
    with pytest.raises(GateBlocked, match=r"rm_win_rate: block\. The pointwise user model"):
        require_passing(judge("rm_win_rate", win_rates=pair(1160, 1310)))
    assert issubclass(GateBlocked, FlywheelError)


def test_importing_the_gates_stays_light() -> None:
    heavy = "airflow|torch|ray|vllm|transformers|statsmodels|scipy|pandas"
    script = (
        "import sys, flywheel_core.release.decision, flywheel_core.release.replay\n"
        f"sys.exit(','.join(m for m in '{heavy}'.split('|') if m in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
