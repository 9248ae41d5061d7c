"""Tasks and labels of retired batches, in the folders that annotators' tools read and write.

They hold whole conversations and lie outside the store. The recipe of each plan says where.
"""

import shutil
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from flywheel_core.annotation.exchange import batch_folder
from flywheel_core.artifacts import ArtifactRef
from flywheel_core.plan import PinnedPlan, load_plan
from flywheel_core.store import Store

STAGE = "annotate"
WITHOUT_EXCHANGE = ("world", "signals")
"""Sources of labels that write no files (`recipe.AnnotationSourceName`)."""


@dataclass(frozen=True)
class ExchangeFolder:
    """One batch's folder. What is not `removed` was not there, seen from this machine: it was
    never made, or it lies where only the annotators' tools or the cluster can reach it."""

    folder: str
    removed: bool

    def summary(self) -> str:
        if self.removed:
            return f"  removed annotation exchange {self.folder}"
        return f"  remove annotation exchange {self.folder} where it is mounted; it is not here"


def remove_exchanges(
    store: Store, flywheel: str, retired: Collection[ArtifactRef], unchecked: list[str]
) -> list[ExchangeFolder]:
    """Every batch's folder of `retired`, removed where this machine reaches it. One that is here
    and cannot be removed goes into `unchecked`."""
    folders = {
        batch_folder(root, ref)
        for plan in (load_plan(store, path) for path in store.list(f"{flywheel}/plans"))
        for root in _exchange(plan)
        for ref in (stage.ref for stage in plan.stages if stage.name == STAGE)
        if ref in retired
    }
    return [_remove(folder, unchecked) for folder in sorted(folders)]


def _exchange(plan: PinnedPlan) -> Iterator[str]:
    """The plan's exchange, if it has one; read as it was pinned, because a plan of an older
    version need not be a recipe of this one."""
    source = plan.recipe.get("annotation", {}).get("source")
    root = plan.recipe.get("execution", {}).get("annotation_exchange")
    if root and source not in WITHOUT_EXCHANGE:
        yield root


def _remove(folder: Path, unchecked: list[str]) -> ExchangeFolder:
    here = folder.is_dir()
    if here:
        try:
            shutil.rmtree(folder)
        except OSError as error:
            unchecked.append(f"{folder}: {type(error).__name__}; remove it by hand")
            here = False
    return ExchangeFolder(str(folder), here)
