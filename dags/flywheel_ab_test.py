"""The open experiment, read once a day.

## What is this

Each run reads the candidate's experiment to the end of its day, cumulatively. Until the last day
only a lost guardrail acts, and it rolls back without asking. On the last day the policy's release
managers are asked; approved, the candidate goes from 10 to 50 and, a day later, to 100 % of users,
which is the release. While one run waits for the answer, the daily ones read on: a guardrail that
is lost meanwhile rolls back, and the answer then moves nothing. Says "none open" where no candidate
meets users.

## What does red mean

The store could not be read, or a log is malformed: the last log line says which. A red
`ramp_approval` is a release manager's rejection, or nobody's answer. No user sees another model
because of a red task.

## What do I do

Mend the cause, then *Clear* the task. A day that was decided is only told again: running an old
day moves nothing.
"""

from datetime import datetime

from airflow.sdk import DAG, chain

from operators.config import paused_at_creation, schedule
from operators.defaults import DEFAULT_ARGS
from operators.docs import document
from operators.experiment import AB_TEST_PARAMS, RampApproval, ReadExperiment, SettleExperiment

with DAG(
    "flywheel_ab_test",
    description="Daily readout of the running experiment; ramp or roll back",
    doc_md=__doc__,
    schedule=schedule("@daily"),
    start_date=datetime(2026, 1, 5),
    catchup=False,
    # A question may wait five days for its answer; the daily runs read on beside it.
    max_active_runs=8,
    is_paused_upon_creation=paused_at_creation(),
    default_args=DEFAULT_ARGS,
    params=AB_TEST_PARAMS,
    tags=["flywheel"],
) as dag:
    readout = ReadExperiment(task_id="readout")
    approval = RampApproval(task_id="ramp_approval")
    ramp = SettleExperiment(task_id="ramp", approval_task_id="ramp_approval")

    chain(readout, approval, ramp)

document(dag)
