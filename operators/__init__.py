"""Airflow's side of the flywheel. Nothing here, and nothing it imports, knows torch or Ray at
parse time."""
