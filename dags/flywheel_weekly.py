"""One climbing step, in the order of the paper's Figure 3.

## What is this

It waits for a week of traffic, makes a candidate from it, measures it against production, and
asks a release manager. By hand, *Trigger* offers `week_ending`, `start_from`, `checkpoint` and
`dry_run`; a dry run says what would run, what is there already and what it costs.

**One at a time.** While a run is open, a run that is started by hand stays *queued*, and next
week's scheduled run is not created yet. An approval that nobody answers rejects itself after the
policy's timeout, five days at most and so less than a week. Then the next run starts, from
whatever is production at that moment.

## What does red mean

A task's last log line says why, in one sentence, and where the whole log lies.

- `wait_for_traffic`: days did not come; it names them.
- `gate_*`: the candidate may not be released; the sentence is the reason.
- `approval`: rejected, or nobody answered in time.
- `promote`: the approval does not hold for what would be promoted; it says which check failed.

## What do I do

Mend the cause, then *Clear* the red task: finished work is found in the store and is not done
again. Clearing a gate does not help; a new climb does. Clearing `approval` asks again. Each
task's own documentation says more.
"""

from datetime import datetime

from airflow.sdk import DAG, chain

from operators.approval import ReleaseApproval
from operators.asked import WEEKLY_PARAMS
from operators.config import paused_at_creation, schedule
from operators.defaults import DEFAULT_ARGS
from operators.docs import document
from operators.gates import GATE_NAMES, GateTask
from operators.promote import PromoteCandidate
from operators.ray_job import RayJobOperator
from operators.report import WriteReport
from operators.resolve import ResolvePlan
from operators.wait import WaitForTraffic

TRAINING = {"pool": "ray_training"}

with DAG(
    "flywheel_weekly",
    description="Deploy → log → curate → annotate → reward models → herding → gates → release",
    doc_md=__doc__,
    schedule=schedule("@weekly"),
    start_date=datetime(2026, 1, 5),
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=paused_at_creation(),
    default_args=DEFAULT_ARGS,
    params=WEEKLY_PARAMS,
    tags=["flywheel"],
) as dag:
    wait_for_traffic = WaitForTraffic(task_id="wait_for_traffic")
    resolve = ResolvePlan(task_id="resolve")

    # What users and testers said to production, and what may be learned from it.
    traffic = RayJobOperator(task_id="traffic", stage="traffic")
    curate = RayJobOperator(task_id="curate", stage="curate")
    annotate = RayJobOperator(task_id="annotate", stage="annotate")

    # Pre-herding: what people prefer. Herding: a model that does it.
    reward_models = RayJobOperator(task_id="reward_models", stage="reward_models", **TRAINING)
    rejection_sampling = RayJobOperator(task_id="rejection_sampling", stage="rejection_sampling")
    sft = RayJobOperator(task_id="sft", stage="sft", **TRAINING)
    dpo = RayJobOperator(task_id="dpo", stage="dpo", **TRAINING)
    rl = RayJobOperator(task_id="rl", stage="rl", **TRAINING)

    # Is it better, and may it meet users?
    evaluate = RayJobOperator(task_id="evaluate", stage="evaluate")
    gates = [GateTask(task_id=f"gate_{name}", gate=name) for name in GATE_NAMES]
    report = WriteReport(task_id="report", trigger_rule="all_done")
    approval = ReleaseApproval(task_id="approval")
    promote = PromoteCandidate(task_id="promote", approval_task_id="approval")

    chain(wait_for_traffic, resolve, traffic, curate, annotate, reward_models, rejection_sampling)
    chain(rejection_sampling, sft, dpo, rl, evaluate, gates, approval, promote)
    chain(gates, report)

document(dag)
