"""Pre-herding (§2.3): every reward model of the climb, in one launch.

One pointwise model from the internal batch and one from the user batch, a pairwise one from the
user batch, and the user-signal models. A surface without pairs has no model, and the gates will
say that its evidence is missing.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from flywheel_core.annotation.pairs import is_held_out
from flywheel_core.erasure.users import Erasures, of_inputs, without_erased
from flywheel_core.errors import InputDataError
from flywheel_core.jobs.answers import POINTWISE, STANDARDS_FILE, score
from flywheel_core.jobs.base import StageContext, StageOutput, main, publish
from flywheel_core.recipe import RewardModelsSection, Section
from flywheel_core.records import PAIRS, TRAFFIC, read_table
from flywheel_core.sampling.rejection import Standard
from flywheel_core.training.config import RewardModelConfig
from flywheel_core.training.rewards import RewardModelSpec, run_reward_models

MIN_PAIRS = 50
MIN_SIGNAL_ROWS = 200
NUM_STANDARD_ROWS = 600
SIGNAL_HELD_OUT_SHARE = 0.2


class Config(Section):
    reward_models: RewardModelsSection


def run(config: Config, inputs: Mapping[str, Path], context: StageContext) -> StageOutput:
    """Writes a folder for each model, and `standards.json` with its scores on traffic."""
    section = config.reward_models
    erasures = of_inputs(inputs)
    traffic = without_erased(read_table(inputs["traffic"] / "traffic.parquet", TRAFFIC), erasures)
    specs = _preference_specs(section, inputs["annotate"], context.work, erasures)
    specs += _signal_specs(section, traffic, context.work)
    if not any(spec.name.startswith("pointwise_") for spec in specs):
        raise InputDataError(
            f"no surface has {MIN_PAIRS} annotated pairs, so no preference model can be trained; "
            "look at the annotate stage's row counts and its dropped pairs"
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
    return StageOutput(
        "reward_models",
        {spec.name: pq.read_metadata(spec.train_path).num_rows for spec in specs},
        {"models": result.reports},
    )


def _preference_specs(
    section: RewardModelsSection, annotated: Path, work: Path, erasures: Erasures
) -> list[RewardModelSpec]:
    specs = []
    for surface, name in POINTWISE.items():
        table = without_erased(read_table(annotated / f"pairs_{surface}.parquet", PAIRS), erasures)
        if table.num_rows >= MIN_PAIRS:
            specs.append(_spec(name, section.preference, table, work))
    user = without_erased(read_table(annotated / "pairs_user.parquet", PAIRS), erasures)
    if user.num_rows >= MIN_PAIRS:
        specs.append(_spec("pairwise_user", section.pairwise, user, work))
    return specs


def _signal_specs(
    section: RewardModelsSection, traffic: pa.Table, work: Path
) -> list[RewardModelSpec]:
    held_out = [
        is_held_out(conversation, SIGNAL_HELD_OUT_SHARE)
        for conversation in traffic.column("conversation_id").to_pylist()
    ]
    table = traffic.append_column("held_out", pa.array(held_out))
    specs = []
    for signal in section.signals:
        known = table.filter(pc.is_valid(table.column(signal)))
        labels = set(known.column(signal).to_pylist())
        if known.num_rows >= MIN_SIGNAL_ROWS and labels == {True, False}:
            step = max(1, known.num_rows // section.signal_rows_max)
            known = known.take(list(range(0, known.num_rows, step)))
            known = known.append_column("label", known.column(signal).cast(pa.float32()))
            specs.append(_spec(f"signal_{signal}", section.signal, known, work))
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


def _write_standards(names: list[str], traffic: pa.Table, context: StageContext) -> None:
    """Each pointwise and signal model's mean and SD on what production said in traffic."""
    rows = traffic.to_pylist()
    step = max(1, len(rows) // NUM_STANDARD_ROWS)
    sample = rows[::step]
    messages = [row["messages"] for row in sample]
    responses = [row["response"] for row in sample]
    standards = {
        name: asdict(
            Standard.of(score(context.engines, context.output / name, messages, responses))
        )
        for name in sorted(names)
        if not name.startswith("pairwise_")
    }
    (context.output / STANDARDS_FILE).write_text(json.dumps(standards, indent=1))


if __name__ == "__main__":
    main("reward_models")
