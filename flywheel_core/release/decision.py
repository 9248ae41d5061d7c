"""The human decision: what was shown, who answered, and whether it may move a pointer.

The proof is Airflow's own record of the human task, read over REST; an XCom or a task state
proves nothing, because anyone with write access to the DAG can set one. `check_approval` goes
through every condition and raises the first that fails, each as its own exception:

    PromotionRefused
    ├── NoResponse             nobody has answered
    ├── ResponseOutdated       the answer belongs to an earlier try, or came too late
    ├── NotApproved            the answer is not exactly ["Approve"]
    ├── ResponderNotAllowed    the answer is not a release manager's
    ├── SelfApprovalNotAllowed whoever triggered the run answered, or cannot be told from them
    ├── AutomatedNotAllowed    a program answered, and the policy wants a person
    ├── PlanMismatch           the plan in the store is not the one of this run
    ├── DigestMismatch         what was approved is not what would be promoted
    ├── GatesNotPassed         a gate blocks, lacks evidence or gave no verdict
    ├── StaleCandidate         the candidate's parent is no longer production
    ├── UnprovenRecord         the pointer names the candidate, but no approval put it there
    ├── ExperimentOpen         another experiment is running
    ├── ReleasesFrozen         the freeze switch is on
    ├── UnfitForRelease        a study made the candidate: see release/fitness.py
    └── WaiverRefused          see release/waivers.py
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from pydantic import AwareDatetime, Field, ValidationError

from flywheel_core.artifacts import Record, digest_of
from flywheel_core.errors import InputDataError, PromotionRefused
from flywheel_core.release.gates import GATES, check_belong_together, missing_gates
from flywheel_core.release.policy import ReleasePolicy, policy_digest
from flywheel_core.release.verdict import BLOCKING, Verdict

APPROVE = "Approve"
REJECT = "Reject"
DIGEST_PREFIX = "decision digest: "
CLOCK_SKEW = timedelta(minutes=1)  # two machines' clocks may differ by this much
IN_PROCESS = "in_process"
STARTED_BY_NOBODY = frozenset({"scheduled", "asset_triggered", IN_PROCESS})
"""Types of a run that no person has started: a schedule or another flow's data did."""


class NoResponse(PromotionRefused):
    """Nobody has answered."""


class ResponseOutdated(PromotionRefused):
    """The answer belongs to an earlier try, or came too late."""


class NotApproved(PromotionRefused):
    """The answer is not exactly ["Approve"]."""


class ResponderNotAllowed(PromotionRefused):
    """The answer is not a release manager's."""


class AutomatedNotAllowed(PromotionRefused):
    """A program answered, and the policy wants a person."""


class SelfApprovalNotAllowed(PromotionRefused):
    """Whoever triggered the run answered, or cannot be told from whoever answered."""


class PlanMismatch(PromotionRefused):
    """The plan in the store is not the one of this run."""


class DigestMismatch(PromotionRefused):
    """What was approved is not what would be promoted."""


class GatesNotPassed(PromotionRefused):
    """A gate blocks, lacks evidence or gave no verdict."""


class StaleCandidate(PromotionRefused):
    """The candidate's parent is no longer production."""


class UnprovenRecord(PromotionRefused):
    """The pointer names the candidate already, but no approval put it there."""


class ExperimentOpen(PromotionRefused):
    """Another experiment is running."""


class ReleasesFrozen(PromotionRefused):
    """The freeze switch is on."""


class ApprovalRecord(Record):
    """Airflow's record of one human task, as `hitlDetails` returns it.

    `responded_by` is the user *id* that the API server took from the authenticated session (a
    display name may be the user's to edit: it allows nothing, and only `SelfApprovalNotAllowed`
    looks at it). `decision_digest` is read from the task's body,
    which was written when the question was asked. `automated` says that a program answered.
    """

    try_number: int = Field(ge=1)
    asked_at: AwareDatetime
    decision_digest: str
    response_received: bool = False
    responded_at: AwareDatetime | None = None
    responded_by: str | None = None
    responded_by_name: str | None = None
    chosen_options: tuple[str, ...] = ()
    automated: bool = False

    @classmethod
    def from_hitl_detail(
        cls, detail: Mapping[str, Any], *, decision_digest: str, automated: bool
    ) -> "ApprovalRecord":
        """Read Airflow 3.3's JSON. The caller takes the digest out of the record's body."""
        try:
            user = detail["responded_by_user"] or {}
            return cls(
                try_number=detail["task_instance"]["try_number"],
                asked_at=detail["created_at"],
                decision_digest=decision_digest,
                response_received=detail["response_received"],
                responded_at=detail["responded_at"],
                responded_by=user.get("id"),
                responded_by_name=user.get("name"),
                chosen_options=tuple(detail["chosen_options"] or ()),
                automated=automated,
            )
        except (AttributeError, KeyError, TypeError, ValidationError) as error:
            raise InputDataError(
                f"hitlDetails: is not a record this version understands ({error}); "
                "check that Airflow is 3.3"
            ) from error


class RunRecord(Record):
    """Airflow's record of the run that promotes.

    `triggering_user` is the name of the user whose session started it, as the API server wrote
    it down; a scheduled run has none.
    """

    run_type: str
    triggering_user: str | None = None

    @classmethod
    def from_dag_run(cls, found: Mapping[str, Any]) -> "RunRecord":
        """Read Airflow 3.3's JSON of `dagRuns/{run_id}`."""
        try:
            return cls(run_type=found["run_type"], triggering_user=found["triggering_user_name"])
        except (KeyError, TypeError, ValidationError) as error:
            raise InputDataError(
                f"dagRuns: is not a record this version understands ({error}); "
                "check that Airflow is 3.3"
            ) from error


class Decision(Record):
    """All that a release manager decides on, by digest; kept in the pointer's record.

    `plan` is the pinned plan's: an approval of one run, generation or flywheel is none of another,
    even where both would release the same model. `verdicts` are pairs of gate and digest.
    """

    candidate: str
    parent: str
    plan: str
    policy: str
    verdicts: tuple[tuple[str, str], ...]

    @classmethod
    def on(
        cls, candidate: str, verdicts: Sequence[Verdict], policy: str, parent: str, plan: str
    ) -> "Decision":
        """The order of the verdicts is no matter."""
        pairs = sorted((verdict.gate, verdict.digest) for verdict in verdicts)
        return cls(
            candidate=candidate, parent=parent, plan=plan, policy=policy, verdicts=tuple(pairs)
        )

    @property
    def digest(self) -> str:
        return digest_of(self.model_dump(mode="json"))


def decision_digest(
    candidate: str, verdicts: Sequence[Verdict], policy_digest: str, parent: str, plan: str
) -> str:
    """Digest of all that a release manager decides on; the order of the verdicts is no matter."""
    return Decision.on(candidate, verdicts, policy_digest, parent, plan).digest


def digest_in_body(body: str | None) -> str:
    """The decision digest in the last line of an approval's body; empty where there is none."""
    last = (body or "").rstrip().rsplit("\n", 1)[-1].strip()
    return last.removeprefix(DIGEST_PREFIX).strip() if last.startswith(DIGEST_PREFIX) else ""


def check_approval(
    record: ApprovalRecord | None,
    *,
    policy: ReleasePolicy,
    verdicts: Sequence[Verdict],
    digest_expected: str,
    candidate: str,
    candidate_parent: str,
    plan_digest: str,
    production_now: str,
    current_try_number: int,
    run: RunRecord | None,
    frozen: bool,
    open_experiment: str | None = None,
    now: datetime | None = None,
) -> None:
    """Return only if this record allows this promotion now; otherwise raise why not.

    `digest_expected` is recomputed by the caller from the artifacts, and checked here against
    the arguments, so that a caller cannot pass on the digest it found in the record. `run` None
    means that who triggered the run is not known; `now` is the clock unless a test gives it.
    """
    _check_state(policy, candidate, candidate_parent, production_now, frozen, open_experiment)
    answered = _check_response(record, policy, current_try_number, now or datetime.now(UTC))
    _check_responder(answered, policy)
    _check_self_approval(answered, run, policy)
    _check_digest(
        answered,
        decision_digest(candidate, verdicts, policy_digest(policy), candidate_parent, plan_digest),
        digest_expected,
    )
    _check_gates(verdicts, policy, candidate, candidate_parent)


def check_answer(
    record: ApprovalRecord | None,
    *,
    policy: ReleasePolicy,
    digest_expected: str,
    current_try_number: int,
    run: RunRecord | None,
    now: datetime | None = None,
) -> tuple[Literal["approve", "reject"], str]:
    """What a release manager answered to an experiment's question, and who; or why the record
    proves no answer. The checks are those of `check_approval`; a rejection takes no second person.
    """
    answered = _check_answered(record, policy, current_try_number, now or datetime.now(UTC))
    _check_responder(answered, policy)
    if answered.decision_digest != digest_expected:
        raise DigestMismatch(
            f"decision_digest {answered.decision_digest}: what was answered is not what would be "
            f"done ({digest_expected}); the logs or the policy changed since; clear the approval "
            "task and ask again"
        )
    who = str(answered.responded_by)
    if answered.chosen_options == (REJECT,):
        return "reject", who
    if answered.chosen_options != (APPROVE,):
        raise NotApproved(
            f"chosen_options {list(answered.chosen_options)}: must be exactly ['{APPROVE}'] or "
            f"['{REJECT}']; clear the approval task and ask again"
        )
    _check_self_approval(answered, run, policy)
    return "approve", who


def _check_state(
    policy: ReleasePolicy,
    candidate: str,
    candidate_parent: str,
    production_now: str,
    frozen: bool,
    open_experiment: str | None,
) -> None:
    if frozen:
        raise ReleasesFrozen(
            "frozen true: releases are frozen, nothing is promoted; lift the freeze first"
        )
    if candidate_parent != production_now:
        raise StaleCandidate(
            f"candidate_parent {candidate_parent}: candidate {candidate} was trained and judged "
            f"against it, but production is now {production_now}; run a new climb from production"
        )
    if policy.release == "ab" and open_experiment is not None:
        raise ExperimentOpen(
            f"open_experiment {open_experiment}: only one experiment may be open; "
            "finish or roll back that one first"
        )


def _check_response(
    record: ApprovalRecord | None,
    policy: ReleasePolicy,
    current_try_number: int,
    now: datetime,
) -> ApprovalRecord:
    """The record, if it holds an "Approve" given to this try's question and in time."""
    answered = _check_answered(record, policy, current_try_number, now)
    if answered.chosen_options != (APPROVE,):
        raise NotApproved(
            f"chosen_options {list(answered.chosen_options)}: must be exactly ['{APPROVE}']; "
            "this candidate was not approved, and stays where it is"
        )
    return answered


def _check_answered(
    record: ApprovalRecord | None,
    policy: ReleasePolicy,
    current_try_number: int,
    now: datetime,
) -> ApprovalRecord:
    """The record, if this try's question was answered, and in time."""
    if record is None or not record.response_received or record.responded_at is None:
        raise NoResponse(
            "response_received false: nobody has answered the approval; "
            f"ask one of {', '.join(policy.release_managers)}"
        )
    if record.try_number != current_try_number:
        raise ResponseOutdated(
            f"try_number {record.try_number}: the answer was given to another try, the current "
            f"one is {current_try_number}; answer the current question"
        )
    _check_time(record.asked_at, record.responded_at, policy, now)
    return record


def _check_time(
    asked_at: datetime, responded_at: datetime, policy: ReleasePolicy, now: datetime
) -> None:
    if responded_at < asked_at - CLOCK_SKEW:
        raise ResponseOutdated(
            f"responded_at {responded_at.isoformat()}: is before the question was asked "
            f"({asked_at.isoformat()}); answer the current question"
        )
    if responded_at > asked_at + timedelta(hours=policy.response_timeout_h):
        raise ResponseOutdated(
            f"responded_at {responded_at.isoformat()}: is more than "
            f"{policy.response_timeout_h:g} h after the question ({asked_at.isoformat()}); "
            "clear the approval task and ask again"
        )
    if responded_at > now + CLOCK_SKEW:
        raise ResponseOutdated(
            f"responded_at {responded_at.isoformat()}: lies in the future of this machine's clock "
            f"({now.isoformat()}); set the clocks right, then clear this task"
        )


def _check_responder(record: ApprovalRecord, policy: ReleasePolicy) -> None:
    if record.responded_by not in policy.release_managers:
        raise ResponderNotAllowed(
            f"responded_by {record.responded_by!r}: must be one of "
            f"{', '.join(policy.release_managers)}; a release manager has to answer"
        )
    if record.automated and not policy.automated_approval_allowed:
        raise AutomatedNotAllowed(
            f"automated true: {record.responded_by} let a program answer, and this policy has "
            "automated_approval_allowed false; answer in the Airflow UI"
        )


def _check_self_approval(
    record: ApprovalRecord, run: RunRecord | None, policy: ReleasePolicy
) -> None:
    """Four eyes: an approval by whoever triggered the run is no second pair."""
    if policy.self_approval_allowed:
        return
    if run is None or (run.triggering_user is None and run.run_type not in STARTED_BY_NOBODY):
        raise SelfApprovalNotAllowed(
            "triggering_user null: Airflow does not say who triggered this run, and this policy "
            "has self_approval_allowed false; trigger a new run through Airflow's UI or API"
        )
    if run.triggering_user is None:
        return
    known_as = {record.responded_by, record.responded_by_name} - {None}
    if run.triggering_user.casefold() in {str(name).casefold() for name in known_as}:
        raise SelfApprovalNotAllowed(
            f"triggering_user {run.triggering_user!r}: the same user triggered this run and "
            "approved its candidate, and this policy has self_approval_allowed false; clear the "
            "approval task and let another release manager answer"
        )


def _check_digest(record: ApprovalRecord, computed: str, digest_expected: str) -> None:
    if digest_expected != computed:
        raise DigestMismatch(
            f"digest_expected {digest_expected}: these verdicts, policy, candidate, parent and "
            f"plan give {computed}; recompute it from the artifacts and the deployed policy"
        )
    if record.decision_digest != computed:
        raise DigestMismatch(
            f"decision_digest {record.decision_digest}: what was approved is not what would be "
            f"promoted ({computed}); verdicts, policy, candidate, parent or plan changed since; "
            "clear the approval task and ask again"
        )


def _check_gates(
    verdicts: Sequence[Verdict], policy: ReleasePolicy, candidate: str, candidate_parent: str
) -> None:
    check_belong_together(verdicts)
    missing = missing_gates(verdicts)
    if missing:
        raise GatesNotPassed(
            f"verdicts: {', '.join(missing)} gave no verdict, all of {', '.join(GATES)} must; "
            "run the missing gates"
        )
    for verdict in verdicts:
        about = (verdict.candidate, verdict.parent, verdict.policy_digest)
        if about != (candidate, candidate_parent, policy_digest(policy)):
            raise GatesNotPassed(
                f"verdict of {verdict.gate}: is about another candidate, parent or policy; "
                "run the gates again on this one"
            )
    stopping = [verdict for verdict in verdicts if verdict.outcome in BLOCKING]
    if stopping:
        sentences = " ".join(f"{v.gate} ({v.outcome}): {v.reason}" for v in stopping)
        raise GatesNotPassed(f"verdicts: {len(stopping)} stop the release. {sentences}")
