"""The open experiment, read once a day.

## What is this

The day's figures of the candidate that meets users. Says "none open" where there is none.

## What does red mean

The store could not be read, or the day's exposures are malformed; the last log line says which.
No user sees another model because of it.

## What do I do

Mend the cause, then *Clear* the task.
"""

from datetime import datetime

from airflow.sdk import DAG

from operators.config import paused_at_creation, schedule
from operators.defaults import DEFAULT_ARGS
from operators.docs import document
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
    is_paused_upon_creation=paused_at_creation(),
    default_args=DEFAULT_ARGS,
    params={"recipe": RECIPE_PARAM},
    tags=["flywheel"],
) as dag:
    ReadExperiment(task_id="readout")

document(dag)
