"""Ways to move production without a valid approval, and the proof that none of them does.

scene.py      one approved climb, with everything that promote reads in reach of an attacker
answers.py    attacks on the approval: who answered, what, when, and to which question
artifacts.py  attacks on what was evaluated: model, metrics, verdicts, manifests
pointers.py   attacks on plans, pointers, policy and switches
catalogue.py  all of them, one by one and in pairs; `forged_attempts()` counts

Who attacks (DESIGN, threat model): users of Airflow's UI and API, and whoever can edit what lies
in the store. Not holders of Airflow's database, its secrets, or DAG code. The attacks that need a
real Airflow are in `tests/airflow/test_forged_approvals.py`.
"""
