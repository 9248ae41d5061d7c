"""Everything of the flywheel that is not Airflow."""
