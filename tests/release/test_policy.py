"""The deployed policy: shipped files, refusals, and waivers."""

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError
from release_samples import POLICY, cell, good_metrics

from flywheel_core.errors import ConfigError
from flywheel_core.experiments.config import ExperimentRule
from flywheel_core.experiments.eligibility import Eligibility
from flywheel_core.release.gates import GATES
from flywheel_core.release.policy import (
    ReleasePolicy,
    Thresholds,
    WaiverRule,
    load_policy,
    policy_digest,
)
from flywheel_core.release.verdict import Verdict
from flywheel_core.release.waivers import Waiver, WaiverRefused, apply_waiver

SHIPPED = Path(__file__).parents[2] / "dags" / "policy"


@pytest.mark.parametrize("name", ["tiny_cpu.yaml", "production.yaml"])
def test_shipped_policies_load_and_keep_the_papers_limits(name: str) -> None:
    policy = load_policy(SHIPPED / name)
    assert policy.thresholds == Thresholds()
    assert policy.waivers.rm_win_rate_up_to_rate is None


def test_production_wants_a_person_and_an_experiment() -> None:
    production, tiny = (load_policy(SHIPPED / f"{n}.yaml") for n in ("production", "tiny_cpu"))
    assert (production.automated_approval_allowed, production.release) == (False, "ab")
    assert (tiny.automated_approval_allowed, tiny.release) == (True, "direct")
    assert tiny.release_managers == ("release_manager",)


def test_production_shows_every_field_of_an_experiment() -> None:
    shown = yaml.safe_load((SHIPPED / "production.yaml").read_text())["experiment"]
    assert shown.keys() == ExperimentRule.model_fields.keys()
    assert shown["eligibility"].keys() == Eligibility.model_fields.keys()
    assert Eligibility.model_validate(shown["eligibility"]) == Eligibility()


def test_the_digest_is_of_the_meaning() -> None:
    same = ReleasePolicy(
        release_managers=("alice", "bob"), release="direct", thresholds=Thresholds()
    )
    assert policy_digest(same) == policy_digest(POLICY)
    assert policy_digest(POLICY.model_copy(update={"release": "ab"})) != policy_digest(POLICY)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("release_managers: []", "release_managers: got .*at least 1 item"),
        ("release: ab", "release_managers: is missing and has no default"),
        ("release_managers: [a]\nreponse_timeout_h: 5", "reponse_timeout_h: is not a field"),
        ("release_managers: [a]\nresponse_timeout_h: 121", "got 121; .*less than or equal to 120"),
        ("release_managers: [a]\nresponse_timeout_h: .nan", "response_timeout_h: got nan"),
        ("release_managers: [a, a]", "name each once"),
        ("release_managers: [' ']", "at least 1 character"),
        ("release_managers: [a]\nrelease_managers: [b]", "given twice"),
        ("release_managers: [a]\nthresholds: {rm_win_rate: {block_above_rate: 0.8}}", "got 0.8"),
        ("release_managers: [a]\nthresholds: {rm_win_rate: {warn_from_rate: 0.66}}", "decrease"),
        ("release_managers: [a]\nthresholds: {rm_divergence: {warn_above_points: 16}}", "at most"),
        ("release_managers: [a]\nthresholds: {artifacts: {bands: {x: {}}}}", "needs one of"),
        ("release_managers: [a]\nwaivers: {rm_win_rate_up_to_rate: 0.71}", "got 0.71"),
        ("release_managers: [a]\nwaivers: {rm_win_rate_up_to_rate: 0.64}", "above the blocking"),
        ("- a", "must be a mapping"),
        ("a: [", "not valid YAML"),
    ],
)
def test_a_wrong_policy_is_refused_by_name(text: str, says: str, tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=says):
        load_policy(file)


def test_an_absent_policy_names_the_next_step(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be read.*production\.yaml"):
        load_policy(tmp_path / "none.yaml")


LENIENT = POLICY.model_copy(update={"waivers": WaiverRule(rm_win_rate_up_to_rate=0.70)})


def blocked(wins: int, policy: ReleasePolicy = LENIENT, n: int = 2000) -> Verdict:
    cells = (
        cell("pointwise_internal", "internal", 1160),
        cell("pointwise_user", "user", wins, n),
    )
    return GATES["rm_win_rate"](good_metrics(win_rates=cells), policy)


def waiver(verdict: Verdict, **changes: str) -> Waiver:
    fields = {
        "gate": verdict.gate,
        "verdict_digest": verdict.digest,
        "waived_by": "alice",
        "reason": "V14 was like this and gained.",
    }
    return Waiver(**{**fields, **changes})


def test_a_waiver_turns_a_block_into_a_warning_that_names_it() -> None:
    verdict = blocked(1362)
    waived = apply_waiver(verdict, waiver(verdict), LENIENT)
    assert waived.outcome == "warn"
    assert waived.reason.startswith("Waived by alice at 68.1 %: V14 was like this and gained.")
    assert waived.evidence["waived_verdict_digest"] == verdict.digest
    assert waived.digest != verdict.digest
    assert apply_waiver(blocked(1400), waiver(blocked(1400)), LENIENT).outcome == "warn"


def test_waivers_are_refused_beyond_the_policy() -> None:
    verdict = blocked(1362)
    with pytest.raises(WaiverRefused, match="allows no waivers"):
        apply_waiver(blocked(1362, POLICY), waiver(blocked(1362, POLICY)), POLICY)
    with pytest.raises(WaiverRefused, match="at most 70 % can be waived"):
        apply_waiver(blocked(1401), waiver(blocked(1401)), LENIENT)
    with pytest.raises(WaiverRefused, match="must be one of alice, bob"):
        apply_waiver(verdict, waiver(verdict, waived_by="mallory"), LENIENT)
    with pytest.raises(WaiverRefused, match="must say why"):
        apply_waiver(verdict, waiver(verdict, reason="  "), LENIENT)
    with pytest.raises(WaiverRefused, match="write a new waiver"):
        apply_waiver(verdict, waiver(blocked(1380)), LENIENT)
    with pytest.raises(WaiverRefused, match="a warning needs no waiver"):
        apply_waiver(blocked(1250), waiver(blocked(1250)), LENIENT)


def test_divergence_and_missing_evidence_are_never_waived() -> None:
    cells = (
        cell("pointwise_internal", "internal", 900),
        cell("pointwise_user", "user", 1300),
    )
    divergence = GATES["rm_divergence"](good_metrics(win_rates=cells), LENIENT)
    assert divergence.outcome == "block"
    with pytest.raises(WaiverRefused, match="only rm_win_rate"):
        apply_waiver(divergence, waiver(divergence), LENIENT)
    with pytest.raises(WaiverRefused, match="only rm_win_rate"):
        apply_waiver(divergence, waiver(divergence, gate="rm_win_rate"), LENIENT)
    half = blocked(680, n=999)
    assert half.outcome == "block"
    with pytest.raises(WaiverRefused, match="missing evidence is never waived"):
        apply_waiver(half, waiver(half), LENIENT)


def test_the_schema_itself_holds_the_ceilings() -> None:
    with pytest.raises(ValidationError):
        WaiverRule(rm_win_rate_up_to_rate=0.7000001)


def test_a_test_arm_as_large_as_the_ramp_is_refused() -> None:
    rule = ExperimentRule(test_share=0.5, control_share=0.5)
    with pytest.raises(ValueError, match=r"test_share 0\.5: must be below 0\.5"):
        ReleasePolicy(release_managers=("rm",), release="ab", experiment=rule)
    assert ReleasePolicy(release_managers=("rm",), release="direct", experiment=rule)
