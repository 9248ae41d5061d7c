"""Placeholder until the flows branch is merged."""

from typing import Any


def tell(subject: str, body: str, log: Any) -> None:
    log.info("%s: %s", subject, body)
