"""Airflow and a local Ray head on 127.0.0.1, started and stopped together (`flywheel up`).

stack.py         the whole: up, down, status, restart of one part
airflow_side.py  its configuration file, users, commands
ray_side.py      the Ray head's command
secrets.py       passwords and keys, made once, in files only the owner can read
processes.py     process groups, free ports, and nothing left running
supervisor.py    starts anew what has died, and gives up on a crash loop
"""

from flywheel_core.stack.stack import Stack, StackInfo, StackStatus
from flywheel_core.stack.supervisor import Supervisor

__all__ = ["Stack", "StackInfo", "StackStatus", "Supervisor"]
