"""The open experiment: which candidate meets users, since when, and what it has shown.

An experiment lives in the `candidate` pointer: promotion under `release: ab` opens one, and only
the experiment's own flow moves `production` afterwards. One may be open at a time.
"""

import json
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


class Readout(Record):
    """One day's look at an experiment."""

    experiment_id: str | None
    num_exposure_files: int
    said: str


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


def write_readout(store: Store, flywheel: str, day: str) -> Readout:
    """What the open experiment shows on `day`; kept beside it once there are exposures."""
    experiment = read_open_experiment(store, flywheel)
    if experiment is None:
        return Readout(experiment_id=None, num_exposure_files=0, said="none open")
    files = store.list(experiment.exposures)
    readout = Readout(
        experiment_id=experiment.experiment_id,
        num_exposure_files=len(files),
        said=f"generation {experiment.generation} is under test; "
        + (f"{len(files)} exposure files" if files else "no exposures yet"),
    )
    if files:
        path = f"{flywheel}/experiments/{experiment.experiment_id}/readouts/{day}.json"
        data = json.dumps(readout.model_dump(mode="json"), indent=1).encode()
        store.put_if_absent(path, data)
    return readout
