"""Waivers: a named release manager lets a win rate above the limit through, and says why.

Off by default. The policy may allow one for `rm_win_rate`, up to 70 % (section 3.5.5 speaks of
70 %, section 3.1.2 of 65 %). Divergence, missing evidence and anything above 70 % are never
waived, only evaluated again.
"""

from pydantic import Field

from flywheel_core.artifacts import Record
from flywheel_core.errors import PromotionRefused
from flywheel_core.release.policy import HIGHEST_WAIVABLE_RATE, ReleasePolicy
from flywheel_core.release.verdict import Verdict, percent


class WaiverRefused(PromotionRefused):
    """A waiver that the policy, the gate or the verdict does not allow."""


class Waiver(Record):
    """Who waives which verdict, and why. Bound to one verdict by digest, so never reused."""

    gate: str
    verdict_digest: str
    waived_by: str
    reason: str = Field(description="why releasing is right in spite of the verdict")


def apply_waiver(verdict: Verdict, waiver: Waiver, policy: ReleasePolicy) -> Verdict:
    """The verdict as a warning that names who waived it and why, or `WaiverRefused`."""
    _check_subject(verdict, waiver)
    _check_author(waiver, policy)
    rate = _check_rate(verdict, policy)
    reason = (
        f"Waived by {waiver.waived_by} at {percent(rate)}: {waiver.reason.strip()} "
        f"(the gate said: {verdict.reason})"
    )
    return Verdict(
        **verdict.model_dump(exclude={"digest", "outcome", "reason", "evidence"}),
        outcome="warn",
        reason=reason,
        evidence={
            **verdict.evidence,
            "waived_by": waiver.waived_by,
            "waiver_reason": waiver.reason.strip(),
            "waived_verdict_digest": verdict.digest,
        },
    )


def _check_subject(verdict: Verdict, waiver: Waiver) -> None:
    if waiver.gate != "rm_win_rate" or verdict.gate != "rm_win_rate":
        raise WaiverRefused(
            f"gate {verdict.gate} (waiver for {waiver.gate}): only rm_win_rate can be waived; "
            "mend the cause and evaluate again"
        )
    if verdict.outcome != "block":
        raise WaiverRefused(
            f"outcome {verdict.outcome}: only a block of rm_win_rate can be waived; "
            "missing evidence must be gathered, and a warning needs no waiver"
        )
    if verdict.evidence.get("evidence_complete") is not True:
        raise WaiverRefused(
            "evidence_complete false: evidence is missing besides the win rate, and missing "
            "evidence is never waived; evaluate what is missing"
        )
    if waiver.verdict_digest != verdict.digest:
        raise WaiverRefused(
            f"verdict_digest {waiver.verdict_digest!r}: the verdict is {verdict.digest!r}; "
            "read the new verdict and write a new waiver"
        )


def _check_author(waiver: Waiver, policy: ReleasePolicy) -> None:
    if waiver.waived_by not in policy.release_managers:
        raise WaiverRefused(
            f"waived_by {waiver.waived_by!r}: must be one of "
            f"{', '.join(policy.release_managers)}; ask a release manager"
        )
    if not waiver.reason.strip():
        raise WaiverRefused("reason '': must say why releasing is right; write a sentence")


def _check_rate(verdict: Verdict, policy: ReleasePolicy) -> float:
    allowed = policy.waivers.rm_win_rate_up_to_rate
    if allowed is None:
        raise WaiverRefused(
            "waivers.rm_win_rate_up_to_rate null: this policy allows no waivers; "
            "train with less pressure and evaluate again"
        )
    limit = min(allowed, HIGHEST_WAIVABLE_RATE)
    rate = verdict.evidence.get("highest_gated_rate")
    if not isinstance(rate, float) or rate > limit:
        raise WaiverRefused(
            f"highest_gated_rate {rate!r}: at most {percent(limit)} can be waived; "
            "train with less pressure and evaluate again"
        )
    return rate
