"""Asking a release manager about an experiment's last day, and following the answer.

What was asked is bound to the answer by a digest in the question's last line, as for a release: of
the experiment, its models, the day, the readout and the policy. `settle` works it out again from
the logs, so an answer to other figures is no answer.
"""

import datetime
from pathlib import Path
from typing import Literal

from flywheel_core.artifacts import digest_of
from flywheel_core.experiments.config import ReadoutConfig
from flywheel_core.experiments.readout import MetricReadout, Readout
from flywheel_core.release.decision import (
    DIGEST_PREFIX,
    ApprovalRecord,
    RunRecord,
    check_answer,
    digest_in_body,
)
from flywheel_core.release.experiments import Experiment
from flywheel_core.release.policy import ReleasePolicy, policy_digest
from flywheel_core.release.promotion import AirflowRecords, Question
from flywheel_core.release.ramping import DayRun, run_day
from flywheel_core.store import Store


def question_digest(experiment: Experiment, readout: Readout, policy: ReleasePolicy) -> str:
    """All that a release manager decides on, by digest."""
    return digest_of(
        {
            "experiment": experiment.experiment_id,
            "candidate": experiment.candidate_digest,
            "control": experiment.control_digest,
            "day": str(readout.newest.day),
            "readout": digest_of(readout.model_dump(mode="json")),
            "policy": policy_digest(policy),
        }
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
    digest = question_digest(experiment, run.readout, policy)
    lines = [
        run.readout.sentence,
        "",
        f"{run.action.reason}. **Approve** ramps the candidate (generation "
        f"{experiment.generation}) to half of all users and, a day later, if no guardrail is lost, "
        "to all of them. **Reject** rolls it back.",
        "",
        "| metric | lift |",
        "|---|---|",
        *(_row(one) for one in rows),
        "",
        f"Page: `{page}`",
        "",
        DIGEST_PREFIX + digest,
    ]
    subject = f"Ramp generation {experiment.generation}, tested until {run.day}?"
    return Question(subject=subject, body="\n".join(lines), digest=digest)


def _row(read: MetricReadout) -> str:
    name = f"{read.name} (guardrail)" if read.harm else read.name
    return f"| {name} | {read.lift.text() if read.lift else f'not readable: {read.unreadable}'} |"


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
) -> DayRun:
    """Follow the answer to the question of approval `task_id`, if one was to be asked; whatever
    does not hold of Airflow's own record of it is a `PromotionRefused`, and nothing moves."""

    def answered(readout: Readout) -> tuple[Literal["approve", "reject"], str]:
        detail = airflow.approval_record(dag_id, run_id, task_id)
        record = None
        if detail is not None:
            record = ApprovalRecord.from_hitl_detail(
                detail,
                decision_digest=digest_in_body(detail.get("body")),
                automated=bool((detail.get("params_input") or {}).get("automated")),
            )
        return check_answer(
            record,
            policy=policy,
            digest_expected=question_digest(experiment, readout, policy),
            current_try_number=airflow.current_try(dag_id, run_id, task_id),
            run=RunRecord.from_dag_run(airflow.dag_run(dag_id, run_id)),
        )

    config = ReadoutConfig.under(policy.experiment)
    return run_day(store, flywheel, experiment, asked, config, answered=answered)
