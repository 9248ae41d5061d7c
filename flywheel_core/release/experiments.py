"""The open experiment: which candidate meets users, since when, and what it has shown.

An experiment lives in the `candidate` pointer: promotion under `release: ab` opens one, and only
the experiment's own flow moves `production` afterwards. One may be open at a time.
"""

from typing import Any, Literal

from pydantic import ValidationError

from flywheel_core.artifacts import Record
from flywheel_core.errors import ArtifactCorrupt
from flywheel_core.plan import PinnedPlan, plan_path
from flywheel_core.pointers import Pointer
from flywheel_core.store import Store

CANDIDATE = "candidate"


class Experiment(Record):
    """An experiment as it was opened. `exposures` is where its logged exposures lie."""

    experiment_id: str
    state: Literal["open", "closed"]
    generation: int
    candidate_digest: str
    control_digest: str
    exposures: str


def open_experiment(plan: PinnedPlan, candidate_digest: str) -> dict[str, Any]:
    """The record of a new experiment, for the `candidate` pointer's value."""
    experiment_id = plan_path("x", plan.run_id).rsplit("/", 1)[-1].removesuffix(".json")
    return Experiment(
        experiment_id=experiment_id,
        state="open",
        generation=plan.generation,
        candidate_digest=candidate_digest,
        control_digest=plan.parent.digest,
        exposures=f"{plan.flywheel}/experiments/{experiment_id}/exposures",
    ).model_dump(mode="json")


def read_open_experiment(store: Store, flywheel: str) -> Experiment | None:
    """The open experiment, or None."""
    newest = Pointer(store, flywheel, CANDIDATE).newest()
    if newest is None or not newest.value.get("experiment"):
        return None
    try:
        experiment = Experiment.model_validate(newest.value["experiment"])
    except ValidationError as error:
        raise ArtifactCorrupt(
            f"record {newest.number} of {flywheel}'s candidate holds no experiment as promote "
            f"writes it ({error.errors()[0]['msg']}); restore the record from a copy"
        ) from error
    return experiment if experiment.state == "open" else None
