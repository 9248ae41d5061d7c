"""Yesterday's traffic, curated: one day, ready for the week's climb.

## What is this

It waits for one day of traffic and curates it. A scheduled run takes the day before its date; by
hand, *Trigger* offers `day`, and without one takes the newest day ingested. With the simulated
world, "yesterday" is the next day of the current week that does not exist yet.

A day that is ingested late, or again, is a new version: run its day again, and the newest version
is curated. A day without news changes nothing.

## What does red mean

The day did not come, or a job failed; the last log line says which, in one sentence.

## What do I do

Mend the cause, then *Clear* the red task: a day that is there is not made again. The week's climb
waits for its own days and does not need this flow.
"""

from datetime import datetime

from airflow.sdk import DAG, chain

from operators.asked import NIGHTLY_PARAMS
from operators.config import paused_at_creation, schedule
from operators.defaults import DEFAULT_ARGS
from operators.docs import document
from operators.publish import PublishDay
from operators.ray_job import RayJobOperator
from operators.resolve import ResolvePlan
from operators.wait import WaitForTraffic

with DAG(
    "flywheel_nightly",
    description="One day of traffic, logged and curated",
    doc_md=__doc__,
    schedule=schedule("@daily"),
    start_date=datetime(2026, 1, 5),
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=paused_at_creation(),
    default_args=DEFAULT_ARGS,
    params=NIGHTLY_PARAMS,
    tags=["flywheel"],
) as dag:
    chain(
        WaitForTraffic(task_id="wait_for_traffic", nightly=True),
        ResolvePlan(task_id="resolve", nightly=True),
        RayJobOperator(task_id="traffic", stage="traffic", nightly=True),
        PublishDay(task_id="publish"),
        RayJobOperator(task_id="curate", stage="curate", nightly=True),
    )

document(dag)
