"""Asking a release manager about an experiment's last day, and following the answer.

What was asked is bound to the answer by a digest in the question's last line, as for a release: of
the experiment, its models, the day, the readout and the policy. `settle` works it out again from
the logs, so an answer to other figures is no answer. The days after the last one are read too,
daily and once more before an answer is followed: they change no figure that was asked about, but a
guardrail that is lost on them rolls back, and then no answer moves anything.
"""

import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from flywheel_core.artifacts import digest_of
from flywheel_core.experiments.approval import Answered, Approval, Asked
from flywheel_core.experiments.config import ReadoutConfig
from flywheel_core.experiments.readout import MetricReadout, Readout
from flywheel_core.release.decision import (
    DIGEST_PREFIX,
    ApprovalRecord,
    RunRecord,
    UnprovenRecord,
    check_answer,
    digest_in_body,
)
from flywheel_core.release.experiments import Experiment
from flywheel_core.release.policy import ReleasePolicy, policy_digest
from flywheel_core.release.promotion import AirflowRecords, Question
from flywheel_core.release.ramping import DayRun, run_day
from flywheel_core.release.releasing import Proof
from flywheel_core.store import Store


def asked_about(experiment: Experiment, readout: Readout, policy: ReleasePolicy) -> Asked:
    """All that a release manager decides on, by digest."""
    return Asked(
        experiment=experiment.experiment_id,
        candidate=experiment.candidate_digest,
        control=experiment.control_digest,
        day=readout.newest.day,
        readout=digest_of(readout.model_dump(mode="json")),
        policy=policy_digest(policy),
    )


def experiment_question(
    experiment: Experiment, run: DayRun, policy: ReleasePolicy, page: Path
) -> Question:
    """What to ask after the last day; only for a run whose action is `ask`."""
    if run.readout is None or run.action.kind != "ask":
        raise ValueError(f"day {run.day}: the action is {run.action.kind}, nothing is to be asked")
    read = run.readout.newest
    others = [one for name, one in read.guardrails.items() if name not in read.metrics]
    rows = [*read.metrics.values(), *others]
    digest = asked_about(experiment, run.readout, policy).digest
    lines = [
        run.readout.sentence,
        "",
        f"{run.action.reason}. **Approve** ramps the candidate (generation "
        f"{experiment.generation}) to half of all users and, a day later, if no guardrail is lost, "
        "to all of them. **Reject** rolls it back.",
        "",
        "| metric | lift | detectable |",
        "|---|---|---|",
        *(_row(one) for one in rows),
        *(["", f"Since then: {run.since.reason}."] if run.since else []),
        "",
        f"Page: `{page}`",
        "",
        DIGEST_PREFIX + digest,
    ]
    subject = f"Ramp generation {experiment.generation}, tested until {run.day}?"
    return Question(subject=subject, body="\n".join(lines), digest=digest)


def _row(read: MetricReadout) -> str:
    name = f"{read.name} (guardrail)" if read.harm else read.name
    if read.lift is None:
        return f"| {name} | not readable: {read.unreadable} | |"
    least = read.minimum_detectable_lift_pct
    return f"| {name} | {read.lift.text()} | {'' if least is None else f'{least:.2g} %'} |"


class OpenQuestions(Protocol):
    """What else Airflow is asked: where a task waits for an answer."""

    def open_questions(self, dag_id: str, task_id: str) -> list[dict[str, Any]]: ...


def asked_elsewhere(
    airflow: OpenQuestions, question: Question, *, dag_id: str, task_id: str
) -> str | None:
    """The run in which exactly this is asked and not answered yet, by Airflow's own records: daily
    runs go on while it waits, and one question is enough."""
    return next(
        (
            str(one["task_instance"]["dag_run_id"])
            for one in airflow.open_questions(dag_id, task_id)
            if digest_in_body(one.get("body")) == question.digest
        ),
        None,
    )


def settle(
    store: Store,
    flywheel: str,
    experiment: Experiment,
    asked: datetime.date,
    policy: ReleasePolicy,
    airflow: AirflowRecords,
    *,
    dag_id: str,
    run_id: str,
    task_id: str,
    today: datetime.date | None = None,
) -> DayRun:
    """Follow the answer to the question of approval `task_id`, if one was to be asked; whatever
    does not hold of Airflow's own record of it is a `PromotionRefused`, and nothing moves."""

    def answered(readout: Readout) -> Answered:
        about = asked_about(experiment, readout, policy)
        current_try = airflow.current_try(dag_id, run_id, task_id)
        answer, by = check_answer(
            _record(airflow.approval_record(dag_id, run_id, task_id)),
            policy=policy,
            digest_expected=about.digest,
            current_try_number=current_try,
            run=RunRecord.from_dag_run(airflow.dag_run(dag_id, run_id)),
        )
        approval = Approval(
            asked=about,
            dag_id=dag_id,
            run_id=run_id,
            task_id=task_id,
            try_number=current_try,
            by=by,
        )
        return Answered(answer=answer, by=by, approval=approval)

    return run_day(
        store,
        flywheel,
        experiment,
        asked,
        ReadoutConfig.under(policy.experiment),
        answered=answered,
        proof=proof_by(airflow, policy),
        today=today,
    )


def proof_by(airflow: AirflowRecords, policy: ReleasePolicy) -> Proof:
    """Bears an approval out by Airflow's record of the very try it was given in, checked anew in
    everything; a `PromotionRefused` where that does not hold."""

    def prove(approval: Approval) -> None:
        task = (approval.dag_id, approval.run_id, approval.task_id)
        tries = airflow.approval_tries(*task, up_to=approval.try_number)
        records = [_record(detail) for detail in tries]
        answer, by = check_answer(
            next((one for one in records if one and one.try_number == approval.try_number), None),
            policy=policy,
            digest_expected=approval.asked.digest,
            current_try_number=approval.try_number,
            run=RunRecord.from_dag_run(airflow.dag_run(approval.dag_id, approval.run_id)),
        )
        if (answer, by) != ("approve", approval.by):
            raise UnprovenRecord(
                f"the ramp says that {approval.by} approved it in run {approval.run_id!r}, but "
                f"Airflow says {answer} by {by}; end the experiment by `flywheel ab end`"
            )

    return prove


def _record(detail: Mapping[str, Any] | None) -> ApprovalRecord | None:
    if detail is None:
        return None
    return ApprovalRecord.from_hitl_detail(
        detail,
        decision_digest=digest_in_body(detail.get("body")),
        automated=bool((detail.get("params_input") or {}).get("automated")),
    )
