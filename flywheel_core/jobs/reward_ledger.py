"""The ledger of this generation: two models over every batch's consensus pairs, and a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from flywheel_core.annotation.pairs import held_out_unit
from flywheel_core.errors import InputDataError
from flywheel_core.jobs.answers import score_or_nan, score_pairs_or_nan
from flywheel_core.jobs.base import StageContext
from flywheel_core.jobs.preference_batches import Batch
from flywheel_core.records import Message
from flywheel_core.report.ledger_chart import render_ledger
from flywheel_core.rewards.changes import Outcome
from flywheel_core.rewards.ledger import (
    LEDGER_FILE,
    Family,
    Floats,
    Ledger,
    Measured,
    correctness,
    extend,
    regressions,
)
from flywheel_core.stages import PRIOR

PICTURE_FILE = "ledger.svg"


def write_ledger(
    batches: Mapping[str, Sequence[Batch]], inputs: Mapping[str, Path], context: StageContext
) -> Ledger:
    """Writes `ledger.json` and `ledger.svg`. `batches` are each trained model's, by its name."""
    generation = context.plan.generation
    before = read_ledger(inputs.get(PRIOR))
    measured: dict[str, Measured] = {}
    for model, mine in sorted(batches.items()):
        folders = {generation: context.output / model}
        prior = inputs.get(PRIOR)
        if prior is not None and (prior / model).is_dir():
            folders[before.generation or generation - 1] = prior / model
        outcomes, unscored = _outcomes(folders, mine, context)
        if sum(unscored.values()):
            print(
                f"warning: the ledger leaves out {sum(unscored.values())} pairs that {model} gave "
                "no finite score (NaN, or longer than execution.engine.max_model_len takes)",
                flush=True,
            )
        without = {batch.generation: batch.num_without_consensus() for batch in mine}
        measured[model] = Measured(outcomes, without, unscored)
    ledger = extend(before, generation, measured)
    for family in ledger.families:
        _warn(family, generation)
    (context.output / LEDGER_FILE).write_text(ledger.model_dump_json(indent=1))
    (context.output / PICTURE_FILE).write_text(render_ledger(ledger), encoding="utf-8")
    return ledger


def read_ledger(folder: Path | None) -> Ledger:
    """The ledger beside earlier reward models; an empty one where they had none yet."""
    path = folder / LEDGER_FILE if folder is not None else None
    if path is None or not path.is_file():
        return Ledger()
    try:
        return Ledger.model_validate_json(path.read_text())
    except ValidationError as error:
        raise InputDataError(
            f"{path}: not a ledger this flywheel reads ({error.errors()[0]['msg']}); upgrade it, "
            "or invalidate those reward models"
        ) from error


def _outcomes(
    folders: Mapping[int, Path], batches: Sequence[Batch], context: StageContext
) -> tuple[list[Outcome], dict[int, int]]:
    """Every model on every batch. A pair that any of them cannot score counts for none, so that
    they are compared on the same pairs; how many those are, by batch generation."""
    outcomes: list[Outcome] = []
    unscored = {batch.generation: 0 for batch in batches}
    for batch in batches:
        for workflow, rows in batch.consensus().items():
            better = [row["votes"][0] == 1 for row in rows]
            right = {
                number: correctness(_gaps(model, rows, context), better)
                for number, model in sorted(folders.items())
            }
            scored = np.isfinite(np.stack(list(right.values()))).all(axis=0)
            unscored[batch.generation] += int((~scored).sum())
            units = np.array([held_out_unit(row) for row in rows])[scored].tolist()
            outcomes += [
                Outcome(
                    model_generation=number,
                    batch_generation=batch.generation,
                    workflow=workflow,
                    right=tuple(values[scored].tolist()),
                    units=tuple(units),
                )
                for number, values in right.items()
            ]
    return outcomes, unscored


def _gaps(model: Path, rows: Sequence[Mapping[str, Any]], context: StageContext) -> Floats:
    """How much the model prefers `response_0` [n]."""
    messages: list[list[Message]] = [row["messages"] for row in rows]
    first, second = ([str(row[f"response_{side}"]) for row in rows] for side in (0, 1))
    if model.name.startswith("pairwise_"):
        return score_pairs_or_nan(context.engines, model, messages, first, second)
    both = score_or_nan(context.engines, model, [*messages, *messages], first + second)
    gaps: Floats = both[: len(rows)] - both[len(rows) :]
    return gaps


def _warn(family: Family, generation: int) -> None:
    for one in regressions(family, generation):
        assert one.difference is not None
        print(
            f"warning: {family.model} of generation {generation} is worse on the "
            f"{one.workflow} pairs of batch {one.batch_generation} than generation "
            f"{one.prior_generation}'s: accuracy {one.difference.estimate:+.3f} "
            f"[{one.difference.lower:+.3f}, {one.difference.upper:+.3f}] on {one.num_pairs} pairs, "
            f"p = {one.adjusted_p_value:.1g} over all old batches",
            flush=True,
        )
