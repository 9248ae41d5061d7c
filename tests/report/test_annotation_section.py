"""The report's section on annotation: agreement, who drifts, and style that goes with labels."""

from typing import Any

from report_samples import clean_report

from flywheel_core.artifacts import ArtifactRef, Manifest
from flywheel_core.provenance import CodeVersion
from flywheel_core.report.annotation import summarise_annotation
from flywheel_core.report.render import render_report

AGREED = {"num_tasks": 200, "num_reviews": 600, "alpha": 0.39, "kappa": 0.36}
AGREED |= {"num_kappa_tasks": 200, "share_unanimous": 0.5, "missing": None}
UNKNOWN = {**AGREED, "alpha": None, "kappa": None, "share_unanimous": None, "missing": "why"}


def manifest(stage: str, metrics: dict[str, Any]) -> Manifest:
    return Manifest(
        ref=ArtifactRef(flywheel="tiny", generation=1, stage=stage, key="0" * 16),
        kind="pairs",
        stage_version=2,
        attempt="1",
        files=(),
        metrics=metrics,
        code=CodeVersion(commit="0" * 40, dirty=False),
    )


def compared(flagged: bool, effect: float | None) -> dict[str, Any]:
    return {
        "first_mean": 0.61,
        "second_mean": 0.27,
        "effect_size": effect,
        "q_value": 1e-9,
        "num_prompts": 867,
        "flagged": flagged,
    }


def manifests() -> dict[str, Manifest]:
    one = {"dropped_reviews": {"contradictory": 2}, "remarks": {"rewrite_missing": 3}}
    people = [{"annotator_id": "kim", "drifted": True}, {"annotator_id": "lee", "drifted": False}]
    annotated = {
        "annotators": {
            "static": {"agreement": {"preference": AGREED}, "annotators": people, **one},
            "interactive": {"agreement": {"preference": UNKNOWN}, "annotators": [], **one},
        },
        "dropped_pairs": {"emoji_count_difference": 6},
        "targeted_prompts": {"user_preachy": 40, "internal_preachy": 0},
        "features_chosen_rejected": {
            "question_share": compared(True, 0.35),
            "list_share": compared(False, 0.1),
        },
    }
    sampled = {"features_accepted_rejected": {"question_share": compared(True, None)}}
    return {
        "annotate": manifest("annotate", annotated),
        "rejection_sampling": manifest("rejection_sampling", sampled),
    }


def test_counts_of_all_workflows_are_added_and_only_flagged_features_are_shown() -> None:
    found = summarise_annotation(manifests())
    assert found is not None
    assert found.dropped == {"contradictory": 4, "emoji_count_difference": 6}
    assert found.remarks == {"rewrite_missing": 6}
    assert found.targeted == {"user_preachy": 40}
    assert found.drifting == ("kim",)
    assert [(one.feature, one.sides) for one in found.contrasts] == [
        ("question_share", "accepted against rejected"),
        ("question_share", "chosen against rejected"),
    ]


def test_the_page_says_what_cannot_be_measured_and_who_drifts() -> None:
    report = clean_report().model_copy(update={"annotation": summarise_annotation(manifests())})
    page = render_report(report)
    assert "Drifting: kim." in page
    assert "not measurable" in page
    assert "contradictory 4, emoji count difference 6." in page
    assert "unbounded" in page
    assert "user preachy 40." in page


def test_labels_without_annotators_have_no_section() -> None:
    assert summarise_annotation({}) is None
    assert summarise_annotation({"annotate": manifest("annotate", {})}) is None
    assert "Style that goes with being preferred" not in render_report(clean_report())
