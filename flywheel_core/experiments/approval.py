"""A release manager's approval of a ramp, kept with the ramp so that it can be borne out again.

Light: what was asked, by digest, and where Airflow keeps its own record of the answer.
"""

import datetime
from typing import Literal

from pydantic import model_validator

from flywheel_core.artifacts import Record, digest_of
from flywheel_core.experiments.readout import Readout


class Asked(Record):
    """All that a release manager decides on: an experiment's models, the day, and the digests of
    its readout and of the deployed policy."""

    experiment: str
    candidate: str
    control: str
    day: datetime.date
    readout: str
    policy: str

    @property
    def digest(self) -> str:
        return digest_of(self.model_dump(mode="json"))

    def is_about(self, readout: Readout) -> bool:
        """Whether exactly these figures were asked about."""
        return self.readout == digest_of(readout.model_dump(mode="json"))


class Approval(Record):
    """Where Airflow's record of an approval lies, and what it must say."""

    asked: Asked
    dag_id: str
    run_id: str
    task_id: str
    try_number: int
    by: str


class Answered(Record):
    """An answer that was checked, and who gave it."""

    answer: Literal["approve", "reject"]
    by: str
    approval: Approval | None = None

    @model_validator(mode="after")
    def _can_be_borne_out(self) -> "Answered":
        if self.answer == "approve" and self.approval is None:
            raise ValueError("approval: must say where an approval is recorded")
        return self
