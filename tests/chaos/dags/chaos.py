"""A generation and a training on Ray: small enough to be killed thirty times an hour."""

from datetime import datetime, timedelta

from airflow.sdk import DAG, Param, chain

from operators.defaults import DEFAULT_ARGS
from operators.ray_job import RayJobOperator

# As in every flow, but for the number: here one task may be killed more often than in a night.
MORE_TRIES = {**DEFAULT_ARGS, "retries": 12, "retry_delay": timedelta(seconds=3)}

with DAG(
    "chaos",
    schedule=None,
    start_date=datetime(2026, 1, 5),
    is_paused_upon_creation=False,
    default_args=MORE_TRIES,
    params={"recipe": Param("chaos", type="string")},
):
    chain(
        RayJobOperator(task_id="chaos_generate", stage="chaos_generate", poll_s=1.0),
        RayJobOperator(task_id="chaos_train", stage="chaos_train", poll_s=1.0),
    )
