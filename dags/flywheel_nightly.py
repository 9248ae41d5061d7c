"""Yesterday's traffic, curated: one day, ready for the week's climb.

With the simulated world, "yesterday" is the next day of the current week that does not exist
yet. **Red task?** Clear it: a day that is there is not made again.
"""

from datetime import datetime

from airflow.sdk import DAG, chain

from operators.config import paused_at_creation, schedule
from operators.defaults import DEFAULT_ARGS
from operators.plans import RECIPE_PARAM
from operators.publish import PublishDay
from operators.ray_job import RayJobOperator
from operators.resolve import ResolvePlan

with DAG(
    "flywheel_nightly",
    description="One day of traffic, logged and curated",
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
    chain(
        ResolvePlan(task_id="resolve", nightly=True),
        RayJobOperator(task_id="traffic", stage="traffic", nightly=True),
        PublishDay(task_id="publish"),
        RayJobOperator(task_id="curate", stage="curate", nightly=True),
    )
