"""One climbing step, in the order of the paper's Figure 3.

**Red task?** Its last log line says why, in one sentence, and where the whole log lies. Mend the
cause, then *Clear* the task: finished work is found in the store and is not done again.

- `gate_*` red: the candidate may not be released; the sentence is the reason. Clearing does not
  help, a new climb does.
- `approval` red: rejected, or nobody answered in time. Clear it to ask again.
- `promote` red: the approval does not hold for what would be promoted; the sentence says which
  check failed.
"""

from datetime import datetime

from airflow.sdk import DAG, chain

from operators.approval import ReleaseApproval
from operators.config import paused_at_creation, schedule
from operators.defaults import DEFAULT_ARGS
from operators.gates import GATE_NAMES, GateTask
from operators.plans import RECIPE_PARAM
from operators.promote import PromoteCandidate
from operators.ray_job import RayJobOperator
from operators.report import WriteReport
from operators.resolve import ResolvePlan

TRAINING = {"pool": "ray_training"}

with DAG(
    "flywheel_weekly",
    description="Deploy → log → curate → annotate → reward models → herding → gates → release",
    doc_md=__doc__,
    schedule=schedule("@weekly"),
    start_date=datetime(2026, 1, 5),
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULT_ARGS,
    is_paused_upon_creation=paused_at_creation(),
    params={"recipe": RECIPE_PARAM},
    tags=["flywheel"],
) as dag:
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

    chain(resolve, traffic, curate, annotate, reward_models, rejection_sampling)
    chain(rejection_sampling, sft, dpo, rl, evaluate, gates, approval, promote)
    chain(gates, report)
