"""Batches of earlier generations: found by production's own history, read for training and for the
ledger."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml

from flywheel_core.artifacts import ArtifactRef, Tombstone, tombstone_path
from flywheel_core.deployment import DEFAULT_POLICY
from flywheel_core.engines.config import EngineConfig
from flywheel_core.engines.durable import DurableEngines
from flywheel_core.engines.fake import FakeScorer
from flywheel_core.engines.pool import EnginePool
from flywheel_core.erasure.users import NOBODY
from flywheel_core.errors import InputDataError
from flywheel_core.jobs.preference_batches import (
    Batch,
    read_batches,
    training_rows,
    with_reviews,
)
from flywheel_core.jobs.reward_ledger import read_ledger, write_ledger
from flywheel_core.plan import PinnedPlan
from flywheel_core.recipe import RECIPE_FOLDER, parse_recipe
from flywheel_core.records import PAIRS, write_table
from flywheel_core.release.policy import load_policy
from flywheel_core.release.promotion import promote_in_process
from flywheel_core.rewards.ledger import Family, Ledger
from flywheel_core.store import LocalStore
from tests.airflow.airflow_seeds import seeded_climb

POLICY = load_policy(DEFAULT_POLICY)


def climb(store: LocalStore, run_id: str, *, promoted: bool, seed: int = 0) -> PinnedPlan:
    data: dict[str, Any] = yaml.safe_load((RECIPE_FOLDER / "tiny_cpu.yaml").read_text())
    recipe = parse_recipe(data | {"seed": seed}, "test")
    plan = seeded_climb(store, recipe, DEFAULT_POLICY, run_id, internal=1160, user=1180)
    if promoted:
        promote_in_process(store, plan, POLICY, by=POLICY.release_managers[0])
    return plan


def batches_of(plan: PinnedPlan) -> dict[str, ArtifactRef]:
    inputs = plan.stage("reward_models").inputs
    return {n: ref for n, ref in inputs.items() if n == "prior" or n.startswith("batch-")}


def test_a_climb_reads_every_batch_that_production_descends_from(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    first = climb(store, "first", promoted=True)
    assert batches_of(first) == {}
    left = climb(store, "left lying", promoted=False, seed=5)
    second = climb(store, "second", promoted=True)
    assert left.generation == second.generation == 2
    third = climb(store, "third", promoted=False)
    assert batches_of(third) == {
        "batch-0001": first.stage("annotate").ref,
        "batch-0002": second.stage("annotate").ref,
        "prior": second.stage("reward_models").ref,
    }
    assert set(third.stage("rl").inputs).isdisjoint(batches_of(third))


def test_a_batch_that_was_retired_is_left_out(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    first = climb(store, "first", promoted=True)
    ref = first.stage("annotate").ref
    tombstone = Tombstone(ref=ref, erasure=1, removed=(), usable=False)
    store.put_if_absent(tombstone_path(ref), tombstone.model_dump_json().encode())
    assert set(batches_of(climb(store, "second", promoted=False))) == {"prior"}


def pair(number: int, votes: list[int], **changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        field.name: None for field in PAIRS
    } | {
        "prompt_id": f"p{number}",
        "messages": [{"role": "user", "content": f"question {number}"}],
        "surface": "user",
        "conversation_id": f"c{number}",
        "turn_index": 1,
        "depth": 0,
        "response_0": "short",
        "response_1": "a longer answer",
        "policy_0": "production",
        "policy_1": "base",
        "votes": votes,
        "target": sum(votes) / len(votes),
        "held_out": True,
    }  # fmt: skip
    return values | changes


def write_pairs(folder: Path, rows: list[dict[str, Any]]) -> Path:
    for surface in ("internal", "user"):
        mine = [row for row in rows if row["surface"] == surface]
        write_table(folder / f"pairs_{surface}.parquet", mine, PAIRS)
    return folder


def table_of(*rows: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=PAIRS)


def test_training_labels_are_the_variants_of_section_3_4_1() -> None:
    training = [pair(n, [1, 1, 0], held_out=False) for n in range(300)]
    agreed = pair(301, [0, 0, 0], held_out=False)
    table = table_of(*training, agreed, pair(302, [1, 0, 0]))
    assert with_reviews(table, "all").equals(table)
    unanimous = with_reviews(table, "unanimous")
    assert unanimous.column("prompt_id").to_pylist() == ["p301", "p302"]
    single = with_reviews(table, "single").column("target").to_pylist()
    assert set(single[:300]) == {0.0, 1.0}
    assert np.mean(single[:300]) == pytest.approx(2 / 3, abs=0.08)
    assert single[300] == 0.0
    assert single[301] == pytest.approx(1 / 3), "held-out rows stay as they are"
    assert with_reviews(table, "single").equals(with_reviews(table, "single"))


@pytest.mark.parametrize("reviews", ["all", "single", "unanimous"])
def test_a_surface_without_pairs_has_no_training_rows(reviews: Any) -> None:
    found = Batch(1, table_of()).training(reviews)
    assert found.num_rows == 0
    assert found.schema == Batch(1, table_of(pair(1, [1]))).training(reviews).schema


def test_training_rows_say_whether_three_agreed_and_not_their_target() -> None:
    """One review alone and an adjudicated split have targets of 0 or 1 too."""
    votes = ([1, 1, 1], [1], [1, 0, 1], [0, 0, 0])
    rows = [pair(n, cast, target=float(cast[0])) for n, cast in enumerate(votes)]
    table = Batch(1, table_of(*rows)).training("all")
    assert table.column("target").to_pylist() == [1, 1, 1, 0]
    assert table.column("consensus").to_pylist() == [True, False, False, True]


def test_consensus_is_told_apart_by_workflow_and_the_rest_is_counted() -> None:
    trained = pair(4, [1, 1, 1], held_out=False)
    table = table_of(pair(1, [1, 1, 1]), pair(2, [1, 1, 0]), pair(3, [0, 0, 0]), trained)
    if "workflow" in table.column_names:
        table = table.drop_columns(["workflow"])
    batch = Batch(1, table)
    assert {name: len(rows) for name, rows in batch.consensus().items()} == {"static": 2}
    assert batch.num_without_consensus() == 1
    told = pa.array(["interactive", "static", None, "static"])
    apart = Batch(1, table.append_column("workflow", told)).consensus()
    assert {name: [row["prompt_id"] for row in rows] for name, rows in apart.items()} == {
        "interactive": ["p1"],
        "static": ["p3"],
    }


def test_a_batch_of_an_older_flywheel_is_read_and_a_foreign_file_is_not(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    new, old, foreign = (tmp_path / name for name in ("new", "old", "foreign"))
    write_pairs(new, [pair(1, [1, 1, 1])])
    write_pairs(old, [pair(2, [0, 0, 0])])
    path = old / "pairs_user.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["false_refusal_0", "depth"]), path)
    inputs = {"annotate": new, "batch-0001": old}
    found = read_batches(inputs, 2, "user", NOBODY)
    assert [batch.generation for batch in found] == [1, 2]
    assert pa.concat_tables([batch.training("all") for batch in found]).num_rows == 2
    foreign.mkdir()
    pq.write_table(pa.table({"prompt_id": ["x"]}), foreign / "pairs_user.parquet")
    with pytest.raises(InputDataError, match=r"not a table of pairs: messages: expected"):
        read_batches({"annotate": foreign}, 1, "user", NOBODY)


@pytest.mark.parametrize(("most", "taken"), [(None, [1, 2, 3]), (1, [2, 3]), (0, [3])])
def test_a_recipe_may_bound_how_many_batches_train(most: int | None, taken: list[int]) -> None:
    batches = [Batch(number, table_of(pair(number, [1, 1, 1]))) for number in (1, 2, 3)]
    found = training_rows(batches, "all", most)
    assert found.table.column("prompt_id").to_pylist() == [f"p{number}" for number in taken]
    assert found.num_left_out == 0


@pytest.mark.parametrize("most", [None, 0])
def test_who_is_held_out_in_one_batch_trains_in_none(most: int | None) -> None:
    """The held-out share was raised after the first batch, and lowered after the second."""
    first = [pair(1, [1], user_id="u1", held_out=False), pair(2, [1], user_id="u2", held_out=True)]
    second = [
        pair(3, [1], user_id="u1", held_out=True),
        pair(4, [1], user_id="u2", held_out=False),
        pair(5, [1], user_id="u3", held_out=False),
        pair(6, [1], conversation_id="u1", held_out=False, user_id="u4"),
    ]
    batches = [Batch(1, table_of(*first)), Batch(2, table_of(*second))]
    found = training_rows(batches, "all", most)
    names = found.table.column("prompt_id").to_pylist()
    assert names == (["p2"] if most is None else []) + ["p3", "p5", "p6"]
    assert found.num_left_out == (2 if most is None else 1)


def test_both_models_are_scored_on_the_same_pairs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The model in force prefers short answers, the new one long ones; a pair that one of them
    cannot score counts for neither."""

    def scored(name: str, row: Any) -> float:
        if row[0][-1]["content"] == "question 7":
            return float("nan")
        return float(len(row[1])) * (1.0 if taste["long"] else -1.0)

    taste = {"long": True}

    class TwoTastes(FakeScorer):
        def score(self, model_dir: Path, rows: Any, *, progress: Any = None) -> Any:
            taste["long"] = model_dir.parent.name == "output"
            return super().score(model_dir, rows, progress=progress)

    rows = [pair(n, [0, 0, 0] if n % 4 else [1, 1, 1]) for n in range(40)]
    batches = [Batch(1, table_of(*rows[:20])), Batch(2, table_of(*rows[20:], pair(50, [1, 0, 1])))]
    prior, output = tmp_path / "prior", tmp_path / "output"
    for folder in (prior, output):
        (folder / "pointwise_user").mkdir(parents=True)
    resting = Family(model="pointwise_internal", num_without_consensus={1: 9})
    (prior / "ledger.json").write_text(Ledger(generation=1, families=(resting,)).model_dump_json())
    pool = EnginePool(EngineConfig(), scorer=TwoTastes(scored))
    context: Any = SimpleNamespace(
        plan=SimpleNamespace(generation=2),
        output=output,
        engines=DurableEngines(pool, tmp_path / "shards", lambda done, total, what="": None),
    )
    ledger = write_ledger({"pointwise_user": batches}, {"prior": prior}, context)
    assert ledger.family("pointwise_internal") == resting, "a surface without pairs this time"
    family = ledger.family("pointwise_user")
    accuracies = {
        (c.model_generation, c.batch_generation): (c.accuracy.estimate, c.num_pairs)
        for c in family.cells
    }
    long_wins = 14 / 19  # question 7, where a long answer had won, has no score
    assert accuracies[2, 1] == (pytest.approx(long_wins), 19)
    assert accuracies[1, 1] == (pytest.approx(1 - long_wins), 19)
    assert accuracies[2, 2] == (pytest.approx(0.75), 20)
    assert accuracies[1, 2] == (pytest.approx(0.25), 20)
    assert [one.change for one in family.comparisons] == ["too few pairs", "gained"]
    assert family.num_without_consensus == {1: 0, 2: 1}
    assert family.num_unscored == {1: 1, 2: 0}
    assert "leaves out 1 pairs that pointwise_user" in capsys.readouterr().out
    assert read_ledger(output) == ledger
    assert (output / "ledger.svg").read_text().startswith("<svg")


def test_a_torn_ledger_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "ledger.json").write_text("{")
    with pytest.raises(InputDataError, match=r"ledger\.json: not a ledger"):
        read_ledger(tmp_path)
