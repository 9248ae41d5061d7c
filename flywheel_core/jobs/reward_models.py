"""Pre-herding (§2.3): every reward model of the climb, in one launch.

One pointwise model from internal batches and one from user batches, a pairwise one from user
batches, and the user-signal models. Preference models start from the base every time and learn
from all batches so far, as §3.4's do; the ledger says what each has gained and lost. A surface
without pairs has no model, and the gates will say that its evidence is missing. Signal models learn
from turns apart from the evaluation prompts, and every one is reported on with its calibration and
the four biases of §3.5.5, because they are why signals rank rejection samples and never guide RL.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from flywheel_core.annotation.pairs import held_out_unit, is_held_out
from flywheel_core.curation.splits import EVALUATION_SPLITS, unit_of
from flywheel_core.engines.checkpoint import require_same_tokenizer
from flywheel_core.erasure.users import of_inputs, without_erased
from flywheel_core.errors import InputDataError
from flywheel_core.jobs.answers import (
    POINTWISE,
    STANDARDS_FILE,
    Scores,
    score_or_nan,
    score_pairs_or_nan,
)
from flywheel_core.jobs.base import StageContext, StageOutput, main, publish
from flywheel_core.jobs.preference_batches import Training, read_batches, training_rows
from flywheel_core.jobs.reward_ledger import write_ledger
from flywheel_core.records import PROMPTS, SURFACES, TRAFFIC, Surface, read_table
from flywheel_core.rewards.ledger import summary
from flywheel_core.rewards.signal_report import PREFIX, base_rates, report_signal
from flywheel_core.sampling.rejection import Standard
from flywheel_core.sections import RewardModelsSection, Section
from flywheel_core.stages import SIGNAL_BASE
from flywheel_core.training.config import RewardModelConfig
from flywheel_core.training.rewards import RewardModelSpec, run_reward_models

SIGNALS_FILE = "signals.json"
PAIRWISE = "pairwise_user"
MIN_PAIRS = 50
"""To train on, besides the held-out ones."""

MIN_SIGNAL_ROWS = 160
"""Labelled turns to train on, of both classes, besides the held-out ones."""

NUM_STANDARD_ROWS = 600
SIGNAL_HELD_OUT_SHARE = 0.2


class Config(Section):
    reward_models: RewardModelsSection


def run(config: Config, inputs: Mapping[str, Path], context: StageContext) -> StageOutput:
    """Writes a folder for each model, `standards.json` with its scores on traffic, `signals.json`
    and the ledger."""
    section = config.reward_models
    if SIGNAL_BASE in inputs:  # rejection sampling would refuse them, hours later
        require_same_tokenizer(
            [inputs["base"] / "model"], {SIGNAL_BASE: inputs[SIGNAL_BASE] / "model"}
        )
    erasures = of_inputs(inputs)
    traffic = without_erased(read_table(inputs["traffic"] / "traffic.parquet", TRAFFIC), erasures)
    batches = {
        surface: read_batches(inputs, context.plan.generation, surface, erasures)
        for surface in SURFACES
    }
    training = {
        surface: training_rows(mine, section.reviews, section.earlier_batches_max)
        for surface, mine in batches.items()
    }
    specs = _preference_specs(section, training, context.work)
    start = inputs[SIGNAL_BASE] / "model" if SIGNAL_BASE in inputs else None
    prompts = without_erased(read_table(inputs["curate"] / "prompts.parquet", PROMPTS), erasures)
    apart = _apart_from_evaluation(traffic, prompts)
    specs += [
        replace(spec, model_dir=start) for spec in _signal_specs(section, apart, context.work)
    ]
    if not any(spec.name.startswith("pointwise_") for spec in specs):
        raise InputDataError(
            f"no surface has {MIN_PAIRS} annotated pairs to train on, so there is no preference "
            "model; look at the annotate stage's row counts and its dropped pairs"
        )
    result = run_reward_models(
        specs,
        model_dir=inputs["base"] / "model",
        output_dir=context.work / "models",
        launch_config=context.launch,
    )
    for spec in specs:
        publish(result.model_dirs[spec.name], context.output / spec.name)
    _write_standards([spec.name for spec in specs], traffic, context)
    signals = _report_signals(specs, context)
    surface_of = {**{name: surface for surface, name in POINTWISE.items()}, PAIRWISE: "user"}
    ledger = write_ledger(
        {spec.name: batches[surface_of[spec.name]] for spec in specs if spec.name in surface_of},
        inputs,
        context,
    )
    return StageOutput(
        "reward_models",
        {spec.name: pq.read_metadata(spec.train_path).num_rows for spec in specs},
        {
            "models": result.reports,
            "pairs_held_out_by_another_batch": {
                surface: found.num_left_out for surface, found in training.items()
            },
            "turns_on_the_evaluation_side": traffic.num_rows - apart.num_rows,
            "ledger": summary(ledger),
            "signals": {
                name: {key: report[key] for key in ("auc", "ece", "base_rate", "summary")}
                for name, report in signals.items()
            },
            "signals_without_model": [
                signal for signal in section.signals if PREFIX + signal not in signals
            ],
        },
    )


def _preference_specs(
    section: RewardModelsSection, training: Mapping[Surface, Training], work: Path
) -> list[RewardModelSpec]:
    specs = []
    for surface, name in POINTWISE.items():
        table = training[surface].table
        num_trained = pc.sum(pc.invert(table.column("held_out")), min_count=0).as_py()
        if num_trained >= MIN_PAIRS:
            specs.append(_spec(name, section.preference, table, work))
            if surface == "user":
                specs.append(_spec(PAIRWISE, section.pairwise, table, work))
    return specs


def _apart_from_evaluation(traffic: pa.Table, prompts: pa.Table) -> pa.Table:
    """The turns of nobody, and of no conversation, that `stop`, `select` or `gate` has a prompt of:
    what is sampled for evaluation and for training is kept apart (§2.5.1)."""
    columns = ["user_id", "conversation_id"]
    chosen = prompts.filter(pc.is_in(prompts.column("split"), pa.array(EVALUATION_SPLITS)))
    evaluated = chosen.select(columns).to_pylist()
    units = {unit_of(row) for row in evaluated}
    conversations = {row["conversation_id"] for row in evaluated}
    apart = [
        unit_of(row) not in units and row["conversation_id"] not in conversations
        for row in traffic.select(columns).to_pylist()
    ]
    return traffic.filter(pa.array(apart, pa.bool_()))


def _signal_specs(
    section: RewardModelsSection, traffic: pa.Table, work: Path
) -> list[RewardModelSpec]:
    held_out = [
        is_held_out(held_out_unit(row), SIGNAL_HELD_OUT_SHARE)
        for row in traffic.select(["user_id", "conversation_id"]).to_pylist()
    ]
    table = traffic.append_column("held_out", pa.array(held_out))
    specs = []
    for signal in section.signals:
        known = table.filter(pc.is_valid(table.column(signal)))
        taken = min(known.num_rows, section.signal_rows_max)
        known = known.take([row * known.num_rows // taken for row in range(taken)])
        trained = known.filter(pc.invert(known.column("held_out")))
        labels = set(trained.column(signal).to_pylist())
        if trained.num_rows >= MIN_SIGNAL_ROWS and labels == {True, False}:
            known = known.append_column("label", known.column(signal).cast(pa.float32()))
            specs.append(_spec(PREFIX + signal, section.signal, known, work))
    return specs


def _spec(name: str, config: RewardModelConfig, table: pa.Table, work: Path) -> RewardModelSpec:
    """Split the table by its `held_out` column into the two files a model is trained from."""
    paths = {}
    for part, wanted in (("train", False), ("held_out", True)):
        paths[part] = work / f"{name}_{part}.parquet"
        pq.write_table(table.filter(pc.equal(table.column("held_out"), wanted)), paths[part])
    return RewardModelSpec(
        name=name, config=config, train_path=paths["train"], held_out_path=paths["held_out"]
    )


def _report_signals(
    specs: Sequence[RewardModelSpec], context: StageContext
) -> dict[str, dict[str, Any]]:
    """Writes `signals.json`: calibration and biases of each signal model on held-out turns."""
    judges = [
        POINTWISE[surface]
        for surface in ("user", "internal")  # the users' own model first
        if (context.output / POINTWISE[surface]).is_dir()
    ]
    reports = {}
    for spec in specs:
        if not spec.name.startswith(PREFIX):
            continue
        rows = read_table(spec.held_out_path).to_pylist()
        messages, responses = [row["messages"] for row in rows], [row["response"] for row in rows]
        scores = {
            name: score_or_nan(context.engines, context.output / name, messages, responses)
            for name in (spec.name, judges[0])
        }
        reports[spec.name] = report_signal(
            spec.name.removeprefix(PREFIX),
            rows,
            scores[spec.name],
            base_rates(read_table(spec.train_path).to_pylist()),
            quality=scores[judges[0]],
        )
    (context.output / SIGNALS_FILE).write_text(json.dumps(reports, indent=1, sort_keys=True))
    return reports


def _write_standards(names: list[str], traffic: pa.Table, context: StageContext) -> None:
    """Each pointwise and signal model's mean and SD on what production said in traffic.

    A pairwise model has no standard, but must score: better to know before three trainings.
    """
    rows = traffic.to_pylist()
    step = max(1, len(rows) // NUM_STANDARD_ROWS)
    sample = rows[::step]
    messages = [row["messages"] for row in sample]
    responses = [row["response"] for row in sample]
    standards = {}
    for name in sorted(names):
        model = context.output / name
        if name.startswith("pairwise_"):
            _standard(
                name,
                score_pairs_or_nan(
                    context.engines, model, messages, responses, responses[1:] + responses[:1]
                ),
            )
        else:
            scores = score_or_nan(context.engines, model, messages, responses)
            standards[name] = asdict(_standard(name, scores))
    (context.output / STANDARDS_FILE).write_text(json.dumps(standards, indent=1))


def _standard(name: str, scores: Scores) -> Standard:
    finite = int(np.isfinite(scores).sum())
    if finite < 2:
        raise InputDataError(
            f"{name} gave a finite score to {finite} of {len(scores)} of production's answers, "
            "and a standard takes 2: look at its training metrics (a learning_rate that is too "
            "high makes NaN), or raise execution.engine.max_model_len if the rows are too long"
        )
    return Standard.of_finite(scores)


if __name__ == "__main__":
    main("reward_models")
