"""The annotated batches and reward models of the generations that production descends from."""

from collections.abc import Iterator

from flywheel_core.artifacts import ArtifactRef, is_done, read_tombstone
from flywheel_core.errors import ArtifactError
from flywheel_core.pointers import Pointer
from flywheel_core.stages import BATCH, PRIOR
from flywheel_core.store import Store


def earlier_batches(store: Store, flywheel: str, pointer_number: int) -> dict[str, ArtifactRef]:
    """`batch-0001`, … : every earlier generation's pairs, which preference models go on learning
    from (§3.4); and `prior`: the reward models in force, whose zero-shot accuracy the ledger wants.

    They are found by the plans that production's records name, from record `pointer_number` back.
    A batch that was retired (erased users) is gone, and one of a climb that was not promoted is
    not on the way.
    """
    found: dict[str, ArtifactRef] = {}
    for generation, annotated, rewards in _generations(store, flywheel, pointer_number):
        if _is_there(store, annotated):
            found[f"{BATCH}-{generation:04d}"] = annotated
        if PRIOR not in found and _is_there(store, rewards):
            found[PRIOR] = rewards
    return dict(sorted(found.items()))


def _generations(
    store: Store, flywheel: str, pointer_number: int
) -> Iterator[tuple[int, ArtifactRef, ArtifactRef]]:
    """Generation, its pairs and its reward models, newest first."""
    from flywheel_core.plan import load_plan

    records = {record.number: record for record in Pointer(store, flywheel, "production").history()}
    number = pointer_number
    while number in records and "plan" in records[number].value:
        try:
            plan = load_plan(store, records[number].value["plan"])
        except ArtifactError:
            return
        yield plan.generation, plan.stage("annotate").ref, plan.stage("reward_models").ref
        if plan.parent.pointer_number >= number:
            return
        number = plan.parent.pointer_number


def _is_there(store: Store, ref: ArtifactRef) -> bool:
    tombstone = read_tombstone(store, ref)
    return is_done(store, ref) and (tombstone is None or tombstone.usable)
