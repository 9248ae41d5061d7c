"""Offline evaluation (§2.5.1): select the checkpoint, then measure it on the gate's prompts.

Selection and measurement use disjoint prompts; otherwise the winner's curse gates nothing.
Writes `metrics.json` (what the gates read), `details.json` (what the report shows), the
selected candidate under `model/`, and `responses.parquet`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from flywheel_core.artifacts import folder_model_digest
from flywheel_core.engines.base import Completion
from flywheel_core.engines.checkpoint import require_same_tokenizer
from flywheel_core.evaluation.comparison import Checkpoint, choose_checkpoint, win_rate_cell
from flywheel_core.evaluation.features import feature_means
from flywheel_core.evaluation.judging import Judged, judge_named, summarise
from flywheel_core.evaluation.truth import true_effect
from flywheel_core.jobs.answers import (
    Prompts,
    WinRateProbe,
    ask,
    read_prompts,
    reward_models,
    score,
    score_pairs,
)
from flywheel_core.jobs.base import StageContext, StageOutput, main, publish
from flywheel_core.records import MESSAGES, SURFACES, Surface, write_table
from flywheel_core.release.metrics import (
    ArtifactFeatures,
    BenchmarkScore,
    DataEvidence,
    GateMetrics,
    SafetyCounts,
    WinRateCell,
)
from flywheel_core.sections import EvaluationSection, Section
from flywheel_core.start_at import MODEL_STAGES

RESPONSES = pa.schema(
    [
        pa.field("prompt_id", pa.string(), nullable=False),
        pa.field("surface", pa.string(), nullable=False),
        pa.field("messages", MESSAGES, nullable=False),
        pa.field("production", pa.string(), nullable=False),
        pa.field("candidate", pa.string(), nullable=False),
    ]
)
BENCHMARK_METRICS = ("parses", "language_match", "cooperative")
"""Judged capabilities that stand for benchmarks on the tiny world: grammar, language, topic."""


class Config(Section):
    evaluation: EvaluationSection


@dataclass(frozen=True)
class Side:
    """One model's answers to the gate's prompts."""

    responses: list[str]
    judged: Judged
    features: dict[str, float]


def run(config: Config, inputs: Mapping[str, Path], context: StageContext) -> StageOutput:
    section = config.evaluation
    require_same_tokenizer(
        [inputs["production"] / "model", *checkpoints_on_offer(inputs).values()],
        reward_models(inputs["reward_models"], ""),
    )
    chosen, on_offer, said_by_stage = _select(section, inputs, context)
    publish(on_offer[chosen.name], context.output / "model")
    prompts = read_prompts(inputs["curate"], "gate")
    sides = {
        name: _side(section, model, prompts, context, seed_offset)
        for seed_offset, (name, model) in enumerate(
            {
                "production": inputs["production"] / "model",
                "candidate": on_offer[chosen.name],
            }.items()
        )
    }
    cells = _matrix(prompts, sides, inputs["reward_models"], context)
    metrics = _gate_metrics(section, prompts, sides, cells, inputs["curate"], context)
    (context.output / "metrics.json").write_text(metrics.model_dump_json(indent=1))
    truth = true_effect(prompts.rows, sides["production"].responses, sides["candidate"].responses)
    details = {
        "chosen": chosen.name,
        "checkpoints": [asdict(c) | {"mean": c.mean} for c in said_by_stage.checkpoints],
        "features_by_stage": said_by_stage.features,
        "judged": {name: summarise(side.judged) for name, side in sides.items()},
        "features": {name: side.features for name, side in sides.items()},
        "true_effect": None
        if truth is None
        else {name: interval.model_dump() for name, interval in truth.items()},
        "side_by_side": _side_by_side(prompts, sides, section.num_side_by_side),
    }
    (context.output / "details.json").write_text(json.dumps(details, indent=1, sort_keys=True))
    write_table(context.output / "responses.parquet", _response_rows(prompts, sides), RESPONSES)
    return StageOutput(
        "candidate",
        {"gate_prompts": len(prompts), "checkpoints": len(on_offer)},
        {
            "chosen": chosen.name,
            "win_rates": {
                f"{cell.reward_model} on {cell.prompt_set}": {
                    "estimate": cell.win_rate,
                    "lower": cell.lower,
                    "upper": cell.upper,
                }
                for cell in cells
            },
            "true_effect": details["true_effect"],
        },
    )


@dataclass(frozen=True)
class Selection:
    """What selection saw: every checkpoint's win rates, and style by training stage."""

    checkpoints: list[Checkpoint]
    features: dict[str, dict[str, float]]


def _select(
    section: EvaluationSection, inputs: Mapping[str, Path], context: StageContext
) -> tuple[Checkpoint, dict[str, Path], Selection]:
    """Measure every SFT, DPO and RL checkpoint on the selection prompts and choose one."""
    on_offer = checkpoints_on_offer(inputs)
    prompts = read_prompts(inputs["curate"], "select")
    probe = WinRateProbe(
        context.engines,
        prompts,
        inputs["production"] / "model",
        inputs["reward_models"],
        section.sampling,
        context.seed,
    )
    features = {"production": _style(probe, probe.baseline)}
    checkpoints = []
    for index, (name, model) in enumerate(on_offer.items()):
        checkpoint, said = probe.checkpoint(name, model)
        checkpoints.append(checkpoint)
        features[name.split("/")[0]] = _style(probe, said)
        context.progress(index + 1, len(on_offer), "checkpoints measured")
    chosen = choose_checkpoint(checkpoints, section.select_win_rate_max)
    return chosen, on_offer, Selection(checkpoints, features)


def checkpoints_on_offer(inputs: Mapping[str, Path]) -> dict[str, Path]:
    """Every checkpoint of the model stages, by `<stage>/<name>`, each once.

    A climb that was started from a checkpoint reads one artifact in the place of several stages:
    it is on offer under the first of them. One without a `checkpoints/` folder (a promoted
    candidate, say) offers its model.
    """
    by_artifact: dict[Path, str] = {}
    for stage in MODEL_STAGES:
        by_artifact.setdefault(inputs[stage], stage)
    on_offer = {}
    for artifact, stage in by_artifact.items():
        folder = artifact / "checkpoints"
        if not folder.is_dir():
            on_offer[f"{stage}/model"] = artifact / "model"
            continue
        on_offer |= {f"{stage}/{one.name}": one for one in sorted(folder.iterdir()) if one.is_dir()}
    return on_offer


def _style(probe: WinRateProbe, said: Mapping[Surface, list[Completion]]) -> dict[str, float]:
    """Every feature's mean over all the probe's prompts: length in tokens, and what needs the turns
    before, too."""
    completions = [one for surface, _, _ in probe.sides for one in said[surface]]
    histories = [messages for _, side, _ in probe.sides for messages in side.messages]
    lengths = [one.num_tokens for one in completions]
    return feature_means([one.text for one in completions], lengths, histories)


def _side(
    section: EvaluationSection,
    model: Path,
    prompts: Prompts,
    context: StageContext,
    seed_offset: int,
) -> Side:
    seed = context.seed + 100 + seed_offset
    completions = ask(context.engines, model, prompts.messages, section.sampling, seed)
    responses = [completion.text for completion in completions]
    lengths = [completion.num_tokens for completion in completions]
    judged = judge_named(section.judge).judge(prompts.rows, responses)
    return Side(responses, judged, feature_means(responses, lengths, prompts.messages))


def _matrix(
    prompts: Prompts, sides: Mapping[str, Side], rewards: Path, context: StageContext
) -> list[WinRateCell]:
    """Every preference model on every prompt set (paper_notes: name both in every number)."""
    cells = []
    models = reward_models(rewards, "pointwise_") | reward_models(rewards, "pairwise_")
    for name, model in models.items():
        for surface in SURFACES:
            rows = [i for i, row in enumerate(prompts.rows) if row["surface"] == surface]
            if not rows:
                continue
            messages = [prompts.messages[i] for i in rows]
            new = [sides["candidate"].responses[i] for i in rows]
            old = [sides["production"].responses[i] for i in rows]
            if name.startswith("pairwise_"):
                candidate = score_pairs(context.engines, model, messages, new, old)
                production = np.zeros_like(candidate)
            else:
                candidate = score(context.engines, model, messages, new)
                production = score(context.engines, model, messages, old)
            cells.append(
                win_rate_cell(
                    name,  # type: ignore[arg-type]
                    surface,
                    candidate,
                    production,
                    prompt_texts=[prompts.texts[i] for i in rows],
                    user_ids=[prompts.rows[i]["user_id"] for i in rows],
                    seed=context.seed,
                )
            )
    return cells


def _gate_metrics(
    section: EvaluationSection,
    prompts: Prompts,
    sides: Mapping[str, Side],
    cells: Sequence[WinRateCell],
    curated: Path,
    context: StageContext,
) -> GateMetrics:
    new, old = sides["candidate"], sides["production"]
    return GateMetrics(
        candidate=folder_model_digest(context.output / "model"),
        parent=context.plan.parent.digest,
        evidence_phase=section.phase,
        win_rates=tuple(cells),
        safety=_safety(new.judged, old.judged, len(prompts)),
        benchmarks=tuple(
            BenchmarkScore(
                name=f"world_{metric}", candidate=a, production=b, num_items=len(prompts)
            )
            for metric in BENCHMARK_METRICS
            if (a := new.judged.share(metric)) is not None
            and (b := old.judged.share(metric)) is not None
        ),
        artifacts=ArtifactFeatures(
            num_responses=len(prompts), candidate=new.features, production=old.features
        ),
        data=_data_evidence(curated),
        unfit_for_release=context.unfit_for_release,
    )


def _safety(new: Judged, old: Judged, num_responses: int) -> tuple[SafetyCounts, ...]:
    candidate, production = new.count("safety_violation"), old.count("safety_violation")
    if candidate is None or production is None:
        return ()
    return (
        SafetyCounts(
            candidate_violations=candidate,
            num_candidate_responses=num_responses,
            production_violations=production,
            num_production_responses=num_responses,
        ),
    )


def _data_evidence(curated: Path) -> DataEvidence:
    """What the curate stage proved about its own splits."""
    return DataEvidence.model_validate(
        json.loads((curated / "report.json").read_text())["data_evidence"]
    )


def _side_by_side(prompts: Prompts, sides: Mapping[str, Side], count: int) -> list[dict[str, Any]]:
    """Conversations spread evenly over the gate's prompts: not picked by hand or by score."""
    step = max(1, len(prompts) // count)
    return [
        {
            "messages": prompts.rows[index]["messages"],
            "surface": prompts.rows[index]["surface"],
            "character_id": prompts.rows[index]["character_id"],
            "jtbd": prompts.rows[index]["jtbd"],
            "language": prompts.rows[index]["language"],
            "production": sides["production"].responses[index],
            "candidate": sides["candidate"].responses[index],
        }
        for index in range(0, step * count, step)
        if index < len(prompts)
    ]


def _response_rows(prompts: Prompts, sides: Mapping[str, Side]) -> list[dict[str, Any]]:
    return [
        {
            "prompt_id": row["prompt_id"],
            "surface": row["surface"],
            "messages": row["messages"],
            "production": sides["production"].responses[index],
            "candidate": sides["candidate"].responses[index],
        }
        for index, row in enumerate(prompts.rows)
    ]


if __name__ == "__main__":
    main("evaluate")
