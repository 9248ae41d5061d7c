"""The open experiment, read once a day. Says "none open" where no candidate meets users."""

from datetime import datetime

from airflow.sdk import DAG

from operators.config import paused_at_creation, schedule
from operators.defaults import DEFAULT_ARGS
from operators.experiment import ReadExperiment
from operators.plans import RECIPE_PARAM

with DAG(
    "flywheel_ab_test",
    description="Daily readout of the running experiment",
    doc_md=__doc__,
    schedule=schedule("@daily"),
    start_date=datetime(2026, 1, 5),
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULT_ARGS,
    is_paused_upon_creation=paused_at_creation(),
    params={"recipe": RECIPE_PARAM},
    tags=["flywheel"],
) as dag:
    ReadExperiment(task_id="readout")
