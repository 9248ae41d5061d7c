"""A generation's report from what the store holds: the plan, the evaluation and the verdicts."""

import datetime
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flywheel_core.artifacts import Manifest, is_done, model_digest, read_file, read_manifest
from flywheel_core.errors import ArtifactMissing, ConfigError
from flywheel_core.evaluation.statistics import Interval
from flywheel_core.plan import PinnedPlan, load_plan
from flywheel_core.pointers import Pointer
from flywheel_core.provenance import code_version
from flywheel_core.release.gates import run_gates
from flywheel_core.release.metrics import parse_metrics
from flywheel_core.release.policy import ReleasePolicy
from flywheel_core.report.annotation import summarise_annotation
from flywheel_core.report.model import (
    DataCount,
    Decision,
    FeatureShift,
    GenerationReport,
    HiddenEffect,
    LineageRow,
    SideBySide,
    SignalSummary,
    StageMean,
    StageTiming,
    Turn,
)
from flywheel_core.report.render import render_report
from flywheel_core.rewards.ledger import LEDGER_FILE, Ledger
from flywheel_core.store import Store, checked_path

FEATURE_LABELS: Mapping[str, tuple[str, str]] = {
    "length_tokens": ("Length", "tokens"),
    "emoji_count": ("Emoji a response", "count"),
    "emoji_share": ("Contains emoji", "share"),
    "list_share": ("Contains a list", "share"),
    "templated_share": ("Templated phrase", "share"),
    "question_share": ("Asks a question", "share"),
    "repeats_history_share": ("Repeats an earlier turn", "share"),
}
"""Length comes first, as in §2.4.4."""
STAGE_ORDER = ("production", "sft", "dpo", "rl")


def write_report(
    store: Store,
    flywheel: str,
    generation: int,
    folder: Path,
    policy: ReleasePolicy,
    *,
    plan: PinnedPlan | None = None,
) -> Path:
    """Render one climb of a generation below `folder`: `plan`, or the one that was promoted."""
    plan = plan or newest_plan(store, flywheel, generation)
    folder.mkdir(parents=True, exist_ok=True)
    path = report_path(folder, flywheel, generation)
    path.write_text(render_report(build_report(store, plan, policy)), encoding="utf-8")
    return path


def report_path(folder: Path, flywheel: str, generation: int) -> Path:
    """Where a generation's page lies; a flywheel's name is data, and must stay in the folder."""
    name = checked_path(f"{flywheel}-gen-{generation:04d}.html")
    if "/" in name:
        raise ConfigError(
            f"flywheel {flywheel!r}: a flywheel's name is one plain path part (letters, digits, "
            "_ . -); mend the recipe or start a new run"
        )
    return folder / name


def newest_plan(store: Store, flywheel: str, generation: int) -> PinnedPlan:
    """The plan of that generation whose evaluation is committed; the promoted one if there is."""
    found = [load_plan(store, path) for path in store.list(f"{flywheel}/plans")]
    # A night's plan has no evaluation.
    plans = [plan for plan in found if any(stage.name == "evaluate" for stage in plan.stages)]
    done = [
        plan
        for plan in plans
        if plan.generation == generation and is_done(store, plan.stage("evaluate").ref)
    ]
    if not done:
        raise ArtifactMissing(
            f"generation {generation} of {flywheel!r} has no finished evaluation; "
            f"generations planned: {sorted({plan.generation for plan in plans}) or 'none'}"
        )
    promoted = {
        record.value.get("ref", {}).get("key")
        for record in Pointer(store, flywheel, "production").history()
    }
    return max(done, key=lambda plan: plan.stage("evaluate").ref.key in promoted)


def build_report(store: Store, plan: PinnedPlan, policy: ReleasePolicy) -> GenerationReport:
    """Everything the page shows, read and verified from the store."""
    evaluated = plan.stage("evaluate").ref
    metrics = parse_metrics(read_file(store, evaluated, "metrics.json"), evaluated.path)
    details = json.loads(read_file(store, evaluated, "details.json"))
    manifests = {
        stage.name: read_manifest(store, stage.ref)
        for stage in plan.stages
        if is_done(store, stage.ref)
    }
    recipe = plan.parsed_recipe()
    shifts = _feature_shifts(details["features_by_stage"])
    shown = {shift.feature for shift in shifts}
    return GenerationReport(
        flywheel=plan.flywheel,
        generation=plan.generation,
        recipe=recipe.name,
        created_at=datetime.datetime.now(datetime.UTC),
        code=code_version(),
        policy=policy,
        metrics=metrics,
        verdicts=tuple(run_gates(metrics, policy)),
        decision=_decision(store, plan),
        feature_shifts=shifts,
        features_not_measured=tuple(
            label for feature, (label, _) in FEATURE_LABELS.items() if feature not in shown
        ),
        annotation=summarise_annotation(manifests),
        conversations=tuple(_conversation(row) for row in details["side_by_side"]),
        hidden_effect=_hidden_effect(details["true_effect"]),
        ledger=_ledger(store, manifests.get("reward_models")),
        signals=_signals(manifests.get("reward_models")),
        data_counts=_data_counts(manifests),
        lineage=_lineage(store, plan, manifests),
        timings=tuple(
            StageTiming(stage=name, wall_s=manifest.timings_s.get("total", 0.0))
            for name, manifest in manifests.items()
        ),
    )


def _decision(store: Store, plan: PinnedPlan) -> Decision | None:
    key = plan.stage("evaluate").ref.key
    for name in ("production", "candidate"):
        for record in Pointer(store, plan.flywheel, name).history():
            if record.value.get("ref", {}).get("key") == key and "decision_digest" in record.value:
                return Decision(
                    answer="approved",
                    responded_by=record.by,
                    automated=bool(record.value.get("automated")),
                    decision_digest=record.value["decision_digest"],
                )
    return None


def _feature_shifts(by_stage: Mapping[str, Mapping[str, float]]) -> tuple[FeatureShift, ...]:
    stages = [stage for stage in STAGE_ORDER if stage in by_stage]
    return tuple(
        FeatureShift(
            feature=feature,
            label=label,
            unit=unit,
            stages=tuple(StageMean(stage=stage, mean=by_stage[stage][feature]) for stage in stages),
        )
        for feature, (label, unit) in FEATURE_LABELS.items()
        if stages and all(feature in by_stage[stage] for stage in stages)
    )


def _conversation(row: Mapping[str, Any]) -> SideBySide:
    roles = {"user": "user", "assistant": "character"}
    turns = tuple(
        Turn(role=roles[turn["role"]], text=turn["content"])
        for turn in row["messages"]
        if turn["role"] in roles
    )
    system = next((t["content"] for t in row["messages"] if t["role"] == "system"), "")
    return SideBySide(
        character=row["character_id"] or "no character",
        instructions=system,
        job=row.get("jtbd") or "",
        language=row.get("language") or "",
        history=turns,
        production=row["production"],
        candidate=row["candidate"],
    )


def _hidden_effect(effect: Mapping[str, Any] | None) -> HiddenEffect | None:
    if effect is None:
        return None
    return HiddenEffect(**{name: Interval.model_validate(value) for name, value in effect.items()})


def _ledger(store: Store, rewards: Manifest | None) -> Ledger | None:
    """The ledger beside the reward models; those of older flywheels have none."""
    if rewards is None or LEDGER_FILE not in {entry.name for entry in rewards.files}:
        return None
    return Ledger.model_validate_json(read_file(store, rewards.ref, LEDGER_FILE))


def _signals(rewards: Manifest | None) -> tuple[SignalSummary, ...]:
    found = rewards.metrics.get("signals", {}) if rewards is not None else {}
    return tuple(
        SignalSummary(
            name=name,
            biases=values["summary"],
            **{field: values[field] for field in ("auc", "ece", "base_rate")},
        )
        for name, values in sorted(found.items())
    )


def _data_counts(manifests: Mapping[str, Manifest]) -> tuple[DataCount, ...]:
    labels = {
        ("traffic", "rows"): "logged turns",
        ("annotate", "internal"): "internal pairs",
        ("annotate", "user"): "user pairs",
        ("rejection_sampling", "candidates"): "rejection samples",
        ("rejection_sampling", "accepted"): "accepted",
        ("dpo", "pairs"): "patch pairs",
        ("evaluate", "gate_prompts"): "gate prompts",
    }
    return tuple(
        DataCount(label=label, count=manifests[stage].row_counts[count])
        for (stage, count), label in labels.items()
        if stage in manifests and count in manifests[stage].row_counts
    )


def _lineage(
    store: Store, plan: PinnedPlan, manifests: Mapping[str, Manifest]
) -> tuple[LineageRow, ...]:
    parent = read_manifest(store, plan.parent.ref)
    rows = [
        LineageRow(
            stage="production",
            kind="parent",
            key=parent.ref.key,
            digest=model_digest(parent),
            model=f"generation {parent.ref.generation}",
        )
    ]
    rows += [
        LineageRow(
            stage=name,
            kind=manifest.kind,
            key=manifest.ref.key,
            digest=manifest.digest,
            num_rows=sum(manifest.row_counts.values()) if len(manifest.row_counts) == 1 else None,
            model=str(manifest.metrics["chosen"]) if "chosen" in manifest.metrics else None,
        )
        for name, manifest in manifests.items()
    ]
    return tuple(rows)
