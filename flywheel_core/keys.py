"""Keys: what an artifact is called, from what was asked for, and how one is taken out of use."""

from collections.abc import Mapping
from typing import Any

from flywheel_core.artifacts import KEY_HEX_DIGITS, digest_of
from flywheel_core.errors import ArtifactMissing
from flywheel_core.pointers import Pointer, PointerRecord
from flywheel_core.store import Store


def stage_key(store: Store, flywheel: str, asked_for: Mapping[str, Any]) -> str:
    """Key of what is asked for; each `invalidate` of the key in force raises its revision."""
    base = digest_of(dict(asked_for))[:KEY_HEX_DIGITS]
    key = base
    while Pointer(store, flywheel, f"invalidated/{key}").newest() is not None:
        key = digest_of([base, key])[:KEY_HEX_DIGITS]
    return key


def invalidate(store: Store, flywheel: str, key: str, *, by: str, reason: str) -> PointerRecord:
    """Record that the artifact under `key` is bad; plans drafted later use another key."""
    if not any(f"/{key}/manifest.json" in path for path in store.list(flywheel)):
        raise ArtifactMissing(
            f"key {key!r}: no artifact of {flywheel!r} has it; see `flywheel status`"
        )
    return Pointer(store, flywheel, f"invalidated/{key}").append({"key": key}, by=by, reason=reason)
