"""Whether the record that names a candidate was put there by an approval.

Promoting twice must change nothing, so `promote` looks first whether the pointer names its
candidate already. That record is a file like any other: whoever can write the store can write
one. It counts only if it agrees with the artifacts and with an approval that Airflow recorded, in
whichever try of the task it was given.

Nothing here keeps a forged record from being read by others: the pointers' folder must be writable
by the deployment alone.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from flywheel_core.artifacts import model_digest, read_manifest
from flywheel_core.plan import PinnedPlan, plan_path
from flywheel_core.pointers import PointerRecord
from flywheel_core.release.case import plan_digest
from flywheel_core.release.decision import APPROVE, Decision, UnprovenRecord, digest_in_body
from flywheel_core.store import Store

Tries = Sequence[Mapping[str, Any]]
"""Airflow's records (`hitlDetails`) of every try of an approval."""


def names_candidate(record: PointerRecord | None, plan: PinnedPlan) -> bool:
    """Whether a record says that it is this plan's promotion."""
    wanted = plan_path(plan.flywheel, plan.run_id)
    return record is not None and record.value.get("plan") == wanted


def require_proven(
    store: Store, plan: PinnedPlan, record: PointerRecord, tries: Tries | None
) -> None:
    """Raise `UnprovenRecord` unless artifacts and approval bear the record out.

    `tries` is None where there is no Airflow to ask (`climb --local`).
    """
    decision = _decision_in(record)
    evaluate = plan.stage("evaluate").ref
    candidate = model_digest(read_manifest(store, evaluate))
    said = (record.value.get("ref"), record.value.get("digest"), decision.candidate)
    if said != (evaluate.model_dump(mode="json"), candidate, candidate):
        raise _unproven(record, f"this plan's candidate is {candidate[:12]} at {evaluate.path}")
    if (decision.parent, decision.plan) != (plan.parent.digest, plan_digest(plan)):
        raise _unproven(record, "it was decided on another parent or plan than this run's")
    if decision.digest != record.value.get("decision_digest"):
        raise _unproven(record, "its decision digest is not that of its decision")
    if tries is not None and not any(_bears_out(one, record) for one in tries):
        raise _unproven(record, "Airflow has no such approval in any try of this run's approval")


def _decision_in(record: PointerRecord) -> Decision:
    try:
        return Decision.model_validate(record.value.get("decision"))
    except ValidationError as error:
        raise _unproven(record, "it does not say what was decided") from error


def _bears_out(detail: Mapping[str, Any], record: PointerRecord) -> bool:
    """Whether this try was approved by whom the record names, on the decision it names."""
    user = detail.get("responded_by_user") or {}
    return (
        bool(detail.get("response_received"))
        and detail.get("chosen_options") == [APPROVE]
        and user.get("id") == record.value.get("approved_by")
        and digest_in_body(detail.get("body")) == record.value.get("decision_digest")
    )


def _unproven(record: PointerRecord, why: str) -> UnprovenRecord:
    return UnprovenRecord(
        f"record {record.number} (by {record.by}) claims to be this run's promotion, but {why}; "
        "it was not written by promote: look at the pointer's history, and `flywheel rollback`"
    )
