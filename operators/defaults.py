"""What every task of every flow is given."""

from typing import Any

from operators.retries import retry_defaults

DEFAULT_ARGS: dict[str, Any] = {**retry_defaults()}
