"""The reward-model stage of a second generation, with the training and the engine faked: which rows
go into which model, and what the artifact holds."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml

from flywheel_core.engines.config import EngineConfig
from flywheel_core.engines.durable import DurableEngines
from flywheel_core.engines.fake import FakeScorer
from flywheel_core.engines.pool import EnginePool
from flywheel_core.jobs import reward_models
from flywheel_core.parents import BUILTIN_TINY
from flywheel_core.recipe import RECIPE_FOLDER, parse_recipe
from flywheel_core.records import PAIRS, PROMPTS, SIGNALS, TRAFFIC, read_table, write_table
from flywheel_core.rewards.ledger import Ledger
from flywheel_core.training.rewards import RewardModelSpec, RewardTrainingResult
from flywheel_core.world.answers import sample_response
from flywheel_core.world.contexts import context_of
from flywheel_core.world.people import user_signals
from flywheel_core.world.product import sample_contexts
from tests.bench.reward_samples import world_pairs

NUM_TURNS = 1800


def pairs(folder: Path, count: int, seed: int) -> Path:
    """An annotate artifact; columns that nobody asked about are empty."""
    for offset, surface in enumerate(("internal", "user")):
        rows = [
            {field.name: row.get(field.name) for field in PAIRS}
            | {"surface": surface, "turn_index": 1, "depth": 0}
            | {"policy_0": "production", "policy_1": "base"}
            for row in world_pairs(count, seed=seed + offset, surface=surface)  # type: ignore[arg-type]
        ]
        write_table(folder / f"pairs_{surface}.parquet", rows, PAIRS)
    return folder


def traffic(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    drafts = sample_contexts("user", NUM_TURNS, 21)
    contexts = [context_of(draft.messages, draft.character_id) for draft in drafts]
    said = [sample_response(context, rng) for context in contexts]
    signals = user_signals(contexts, said, rng)
    rows = [
        {field.name: getattr(draft, field.name, None) for field in TRAFFIC}
        | {"row_id": draft.conversation_id, "day": "2026-01-01", "response": text}
        | {name: bool(values[index]) for name, values in signals.items()}
        for index, (draft, text) in enumerate(zip(drafts, said, strict=True))
    ]
    write_table(folder / "traffic.parquet", rows, TRAFFIC)
    return folder


def curated(folder: Path, *chosen: tuple[str, dict[str, Any]]) -> Path:
    """A curate artifact: a prompt of each split and turn."""
    rows = [
        {field.name: row.get(field.name) for field in PROMPTS}
        | {"prompt_id": f"p{n}", "split": split, "source_key": "k", "reason": "x"}
        for n, (split, row) in enumerate(chosen)
    ]
    write_table(folder / "prompts.parquet", rows, PROMPTS)
    return folder


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> dict[str, RewardModelSpec]:
    """Replaces the training by empty folders, and keeps the specs it was asked for."""
    asked: dict[str, RewardModelSpec] = {}

    def fake(specs: Sequence[RewardModelSpec], *, output_dir: Path, **_: Any) -> Any:
        for spec in specs:
            asked[spec.name] = spec
            (output_dir / spec.name).mkdir(parents=True)
        folders = {spec.name: output_dir / spec.name for spec in specs}
        return RewardTrainingResult(folders, {name: {} for name in folders})

    monkeypatch.setattr(reward_models, "run_reward_models", fake)
    return asked


def run_stage(tmp_path: Path, inputs: dict[str, Path], generation: int, **section: Any) -> Any:
    data: dict[str, Any] = yaml.safe_load((RECIPE_FOLDER / "tiny_cpu.yaml").read_text())
    data["reward_models"] |= section
    output, work = tmp_path / f"out-{generation}", tmp_path / f"work-{generation}"
    output.mkdir()
    work.mkdir()

    def silent(done: int, total: int, what: str = "") -> None:
        return

    pool = EnginePool(EngineConfig(), scorer=FakeScorer())  # likes long answers
    context: Any = SimpleNamespace(
        plan=SimpleNamespace(generation=generation),
        output=output,
        work=work,
        engines=DurableEngines(pool, work / "shards", silent),
        launch=None,
        progress=silent,
    )
    config = reward_models.Config(reward_models=parse_recipe(data, "test").reward_models)
    return reward_models.run(config, inputs, context), output


def given(tmp_path: Path, annotated: Path) -> dict[str, Path]:
    """The inputs of a first generation, none of whose turns was chosen for evaluation."""
    return {
        "traffic": traffic(tmp_path / "t"),
        "curate": curated(tmp_path / "c"),
        "base": tmp_path / "base",
        "annotate": annotated,
    }


def test_a_second_generation_learns_from_both_batches(
    tmp_path: Path, trained: dict[str, RewardModelSpec]
) -> None:
    first, second = pairs(tmp_path / "a1", 250, 61), pairs(tmp_path / "a2", 250, 71)
    inputs = given(tmp_path, first)
    told, output = run_stage(tmp_path, inputs, 1, signals=list(SIGNALS))
    alone = told.row_counts["pointwise_user"]
    for name in ("base", "small"):
        (tmp_path / name / "model").mkdir(parents=True)
        shutil.copy(BUILTIN_TINY / "tokenizer.json", tmp_path / name / "model")
    inputs |= {
        "annotate": second,
        "batch-0001": first,
        "prior": output,
        "signal_base": tmp_path / "small",
    }
    told, output = run_stage(tmp_path, inputs, 2, signals=list(SIGNALS))
    assert told.row_counts["pointwise_user"] > 1.7 * alone
    assert told.row_counts["pairwise_user"] == told.row_counts["pointwise_user"]
    rows = read_table(trained["pointwise_internal"].train_path)
    both = {row["prompt_id"] for batch in (first, second) for row in _rows(batch, "internal")}
    assert set(rows.column("prompt_id").to_pylist()) < both
    assert not any(rows.column("held_out").to_pylist())
    assert {name for name in trained if name.startswith("signal_")} == {
        f"signal_{name}" for name in SIGNALS
    }
    assert trained["signal_love"].model_dir == tmp_path / "small" / "model"
    assert trained["pairwise_user"].model_dir is None
    assert told.metrics["signals_without_model"] == []
    assert told.metrics["pairs_held_out_by_another_batch"] == {"internal": 0, "user": 0}


def test_each_preference_model_reads_the_pairs_of_its_own_surface_alone(
    tmp_path: Path, trained: dict[str, RewardModelSpec]
) -> None:
    batch = pairs(tmp_path / "a1", 250, 61)
    run_stage(tmp_path, given(tmp_path, batch), 1)
    surface_of = {
        "pointwise_internal": "internal", "pointwise_user": "user", "pairwise_user": "user",
    }  # fmt: skip
    for name, surface in surface_of.items():
        for path, held_out in (
            (trained[name].train_path, False),
            (trained[name].held_out_path, True),
        ):
            read = read_table(path).column("prompt_id").to_pylist()
            rows = [row for row in _rows(batch, surface) if row["held_out"] is held_out]
            assert len(rows) > 20
            assert read == [row["prompt_id"] for row in rows]


def test_the_artifact_holds_ledger_signals_and_standards(
    tmp_path: Path, trained: dict[str, RewardModelSpec]
) -> None:
    first, second = pairs(tmp_path / "a1", 250, 61), pairs(tmp_path / "a2", 250, 71)
    inputs = given(tmp_path, first)
    _, prior = run_stage(tmp_path, inputs, 1)
    inputs |= {"annotate": second, "batch-0001": first, "prior": prior}
    told, output = run_stage(tmp_path, inputs, 2)
    ledger = Ledger.model_validate_json((output / "ledger.json").read_text())
    assert [family.model for family in ledger.families] == [
        "pairwise_user", "pointwise_internal", "pointwise_user",
    ]  # fmt: skip
    family = ledger.family("pointwise_user")
    places = {(cell.model_generation, cell.batch_generation) for cell in family.cells}
    assert places == {(1, 1), (1, 2), (2, 1), (2, 2)}
    assert {one.change for one in family.comparisons} == {"held"}, "the fake model never changes"
    assert set(told.metrics["ledger"]["pointwise_user"]["new_batch"]) == {
        "static, zero-shot", "static, trained",
    }  # fmt: skip
    signals = json.loads((output / "signals.json").read_text())
    assert set(signals) == {"signal_continue_10min", "signal_thumb_up"}
    assert signals["signal_thumb_up"]["biases"]["ending"]["observed"]["lower"] > 0
    assert (
        sum(one["count"] for one in signals["signal_thumb_up"]["reliability"])
        == (signals["signal_thumb_up"]["num_rows"])
    )
    standards = json.loads((output / "standards.json").read_text())
    assert set(standards) == {
        "pointwise_internal", "pointwise_user", "signal_continue_10min", "signal_thumb_up",
    }  # fmt: skip
    assert (output / "ledger.svg").is_file()


def test_signal_models_learn_nothing_of_whom_the_evaluation_asks(
    tmp_path: Path, trained: dict[str, RewardModelSpec]
) -> None:
    """A user of a gate prompt is left out in all conversations, and so are the conversations of
    `stop` and `select`; a user of a training prompt is not."""
    inputs = given(tmp_path, pairs(tmp_path / "a1", 250, 61))
    rows = read_table(inputs["traffic"] / "traffic.parquet").to_pylist()
    for number, row in enumerate(rows):
        row["user_id"] = f"u{number % 600}" if number % 4 else None
        row["conversation_id"] = f"c{number}"
    rows[5]["conversation_id"] = rows[4]["conversation_id"]  # a user joins nobody's conversation
    write_table(inputs["traffic"] / "traffic.parquet", rows, TRAFFIC)
    chosen = [("gate", rows[1]), ("stop", rows[4]), ("select", rows[8]), ("rl", rows[2])]
    inputs["curate"] = curated(tmp_path / "chosen", *chosen)
    told, _ = run_stage(tmp_path, inputs, 1, signals=["love"], signal_rows_max=NUM_TURNS)
    spec = trained["signal_love"]
    seen = [
        row["row_id"]
        for path in (spec.train_path, spec.held_out_path)
        for row in read_table(path).to_pylist()
    ]
    left_out = {rows[number]["row_id"] for number in (1, 601, 1201, 4, 5, 8)}
    assert sorted(seen) == sorted({row["row_id"] for row in rows} - left_out)
    assert told.metrics["turns_on_the_evaluation_side"] == len(left_out)


def _rows(folder: Path, surface: str) -> list[dict[str, Any]]:
    table: pa.Table = read_table(folder / f"pairs_{surface}.parquet")
    return list(table.to_pylist())
