"""What every task of every flow has in common."""

from typing import Any

from operators.notify import on_failure
from operators.retries import retry_defaults

DEFAULT_ARGS: dict[str, Any] = {"on_failure_callback": on_failure, **retry_defaults()}
