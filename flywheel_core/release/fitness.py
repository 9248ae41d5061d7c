"""Whether a candidate may be released at all: nothing that a study made is, nor its descendants.

The mark is in every manifest on the way (`metrics["unfit_for_release"]`) and in the document that
the gates read; the plan's own recipe says it once more. Promotion looks at all of them.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from flywheel_core.artifacts import ArtifactRef, Manifest, is_done, read_manifest
from flywheel_core.errors import PromotionRefused
from flywheel_core.plan import PinnedPlan
from flywheel_core.store import Store
from flywheel_core.studies import MARK, StudySection, why_unfit


class UnfitForRelease(PromotionRefused):
    """A study made the candidate, or something it was made from."""


def marks_of(manifest: Manifest) -> tuple[str, ...]:
    """Why this artifact is unfit for release; empty where it is not."""
    found: Any = manifest.metrics.get(MARK, ())
    return tuple(str(mark) for mark in (found if isinstance(found, list | tuple) else [found]))


def inherited_marks(manifests: Iterable[Manifest]) -> tuple[str, ...]:
    """The marks of what an artifact is made from: they are its own marks too."""
    return tuple(sorted({mark for manifest in manifests for mark in marks_of(manifest)}))


def known_marks(store: Store, plan: PinnedPlan) -> tuple[str, ...]:
    """Why what this plan makes is unfit for release, as far as is known while it runs: its recipe,
    and what its stages have made and were given, which carries the marks of all before it."""
    refs = {ref for stage in plan.stages for ref in (stage.ref, *stage.inputs.values())}
    done = (read_manifest(store, ref) for ref in refs if is_done(store, ref))
    return tuple(sorted({*_own_marks(plan), *inherited_marks(done)}))


def _own_marks(plan: PinnedPlan) -> set[str]:
    study = plan.recipe.get("study")
    return {why_unfit(StudySection.model_validate(study))} if study else set()


def require_fit(store: Store, plan: PinnedPlan) -> None:
    """Raise `UnfitForRelease` where a study made the plan's candidate or any ancestor of it."""
    marks = _own_marks(plan)
    for manifest in _lineage(store, plan.stage("evaluate").ref):
        marks |= set(marks_of(manifest))
    if marks:
        raise UnfitForRelease(
            f"unfit_for_release: the candidate of run {plan.run_id!r} comes from "
            f"{', '.join(sorted(marks))}; what a study makes is never released: run a climb "
            "without the recipe's study section"
        )


def _lineage(store: Store, ref: ArtifactRef) -> Iterator[Manifest]:
    """The manifest of an artifact and of all it was made from, each once."""
    waiting, seen = [ref], {ref}
    while waiting:
        current = waiting.pop()
        if not is_done(store, current):
            continue
        manifest = read_manifest(store, current)
        yield manifest
        for record in manifest.inputs.values():
            if record.ref not in seen:
                seen.add(record.ref)
                waiting.append(record.ref)
