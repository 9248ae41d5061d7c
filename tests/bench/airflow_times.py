"""Wall seconds of each task of a finished run, read from Airflow's database."""

import sqlite3
from datetime import datetime
from pathlib import Path


def task_seconds(home: Path, run_id: str) -> dict[str, float]:
    """Task id to seconds from its first start to its end, deferral included."""
    with sqlite3.connect(home / "airflow" / "airflow.db") as database:
        found = database.execute(
            "select task_id, start_date, end_date from task_instance where run_id = ?", (run_id,)
        ).fetchall()
    return {
        task: (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
        for task, start, end in found
        if start and end
    }
