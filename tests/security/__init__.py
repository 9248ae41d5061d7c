"""What must not happen, wherever the input comes from: paths that leave, code in data, open doors.

The tests that need a running stack are in `tests/airflow/test_security.py`.
"""
