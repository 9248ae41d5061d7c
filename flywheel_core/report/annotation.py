"""What the report says of annotation, read from the manifests of the stages that know."""

from collections.abc import Mapping
from typing import Any

from flywheel_core.artifacts import Manifest
from flywheel_core.report.model import AgreementRow, AnnotationSummary, FeatureContrast

AGREEMENT_FIELDS = ("num_tasks", "alpha", "kappa", "share_unanimous")
SIDES = {
    "annotate": ("features_chosen_rejected", "chosen against rejected"),
    "rejection_sampling": ("features_accepted_rejected", "accepted against rejected"),
}


def summarise_annotation(manifests: Mapping[str, Manifest]) -> AnnotationSummary | None:
    """None where the labels have no annotators, or were made by an older flywheel."""
    annotated = manifests.get("annotate")
    if annotated is None or not annotated.metrics.get("annotators"):
        return None
    by_workflow = annotated.metrics["annotators"]
    return AnnotationSummary(
        agreement=tuple(
            AgreementRow(
                workflow=workflow,
                question=question,
                **{name: found[name] for name in AGREEMENT_FIELDS},
            )
            for workflow, one in by_workflow.items()
            for question, found in one["agreement"].items()
        ),
        drifting=tuple(
            person["annotator_id"]
            for one in by_workflow.values()
            for person in one["annotators"]
            if person["drifted"]
        ),
        dropped=_nonzero(
            annotated.metrics.get("dropped_pairs", {}),
            *(one["dropped_reviews"] for one in by_workflow.values()),
        ),
        remarks=_nonzero(*(one["remarks"] for one in by_workflow.values())),
        targeted=_nonzero(annotated.metrics.get("targeted_prompts", {})),
        contrasts=tuple(_contrasts(manifests)),
    )


def _nonzero(*counts: Mapping[str, int]) -> dict[str, int]:
    """The counts added up by name, without zeros."""
    total: dict[str, int] = {}
    for one in counts:
        for name, count in one.items():
            total[name] = total.get(name, 0) + count
    return {name: count for name, count in sorted(total.items()) if count}


def _contrasts(manifests: Mapping[str, Manifest]) -> list[FeatureContrast]:
    """Flagged features of both comparisons, the largest effect first."""
    found = [
        FeatureContrast(feature=feature, sides=sides, **_numbers(values))
        for stage, (metric, sides) in SIDES.items()
        if stage in manifests
        for feature, values in manifests[stage].metrics.get(metric, {}).items()
        if values["flagged"]
    ]
    return sorted(found, key=lambda one: (one.sides, -abs(one.effect_size or 0.0)))


def _numbers(values: Mapping[str, Any]) -> dict[str, Any]:
    fields = ("first_mean", "second_mean", "effect_size", "q_value", "num_prompts")
    return {name: values[name] for name in fields}
