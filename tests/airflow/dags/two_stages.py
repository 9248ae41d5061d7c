"""Two stages on Ray and nothing else: what the operator's tests run."""

from datetime import datetime

from airflow.sdk import DAG, Param, chain

from operators.defaults import DEFAULT_ARGS
from operators.ray_job import RayJobOperator

with DAG(
    "two_stages",
    schedule=None,
    start_date=datetime(2026, 1, 5),
    is_paused_upon_creation=False,
    default_args=DEFAULT_ARGS,
    params={"recipe": Param("two", type="string")},
):
    chain(
        RayJobOperator(task_id="first", stage="first", poll_s=0.5),
        RayJobOperator(task_id="second", stage="second", poll_s=0.5),
    )
