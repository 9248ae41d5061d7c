"""Simulated annotators: who they are, the ceilings they keep, chats, and the whole stage."""

import json
import shutil
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from annotation_samples import world_rows, world_tasks
from transformers import AutoTokenizer

from flywheel_core.annotation.chats import goes_on_with, hold_chats
from flywheel_core.annotation.questions import question_set
from flywheel_core.annotation.reviews import check_reviews, judgements
from flywheel_core.annotation.sources import RatedTurns, annotation_source, chat_partner
from flywheel_core.engines.base import Completion
from flywheel_core.engines.config import EngineConfig, SamplingConfig
from flywheel_core.engines.rendering import encode, render_prompt
from flywheel_core.errors import ConfigError, InputDataError
from flywheel_core.jobs.annotate import Config, run
from flywheel_core.parents import BUILTIN_TINY
from flywheel_core.recipe import load_recipe
from flywheel_core.records import (
    PAIRS,
    PROMPTS,
    REVIEWS,
    REWRITES,
    TRAFFIC,
    read_table,
    write_table,
)
from flywheel_core.world.annotators import PEOPLE, Person, SimulatedAnnotators
from flywheel_core.world.answers import sample_response
from flywheel_core.world.contexts import context_of
from flywheel_core.world.judge import WorldJudge
from flywheel_core.world.phrases import PHRASEBOOKS
from flywheel_core.world.utility import utility

CHALLENGES = {text for book in PHRASEBOOKS.values() for text in book.challenges}


def test_votes_keep_the_worlds_ceilings() -> None:
    """The same as `annotate_pairs` (tests/world/test_people.py) but for ties."""
    _, tasks = world_tasks(1500)
    contexts = [context_of(task.messages, task.character_id) for task in tasks]
    better = utility(contexts, [task.response(0) for task in tasks]) > utility(
        contexts, [task.response(1) for task in tasks]
    )
    people = [Person(f"p{i}", tie_margin=0.0) for i in range(6)]
    for source, ties in ((SimulatedAnnotators(3, people), 0.0), (SimulatedAnnotators(3), 0.05)):
        checked = check_reviews(tasks, source.label(tasks, 1), num_annotators=3)
        votes = np.array([one.votes for one in judgements(tasks, checked) if one])
        assert (votes == -1).mean() == pytest.approx(ties, abs=0.02)
        clear = votes != -1
        agree = (votes == better[:, None])[clear].mean()
        assert agree == pytest.approx(0.77, abs=0.02)


def test_three_different_people_review_each_task_and_share_the_work() -> None:
    _, tasks = world_tasks(300)
    reviews = SimulatedAnnotators(3).label(tasks, 1)
    by_task = Counter((one.task_id, one.annotator_id) for one in reviews)
    assert set(by_task.values()) == {1}
    assert len(by_task) == 900
    load = Counter(one.annotator_id for one in reviews)
    assert len(load) == len(PEOPLE)
    assert min(load.values()) > 45
    assert reviews == SimulatedAnnotators(3).label(tasks, 1)
    assert reviews != SimulatedAnnotators(3).label(tasks, 2)
    with pytest.raises(ConfigError, match="got 13, but the simulated pool has 12"):
        SimulatedAnnotators(13)


def test_rewrites_are_in_character_and_only_where_both_fail() -> None:
    _, tasks = world_tasks(300, "steerability")
    people = [Person("sees-all", tag_error_share=0.0)]
    reviews = SimulatedAnnotators(1, people).label(tasks, 1)
    wrote = [(task, one) for task, one in zip(tasks, reviews, strict=True) if one.rewrite]
    assert len(wrote) > 30
    assert all((one.rewrite is not None) == one.both_fail for one in reviews)
    contexts = [context_of(task.messages, task.character_id) for task, _ in wrote]
    judged = WorldJudge().judge_batch(contexts, [one.rewrite or "" for _, one in wrote])
    assert not any(one.instruction_violation or one.templated for one in judged)
    assert all(one.cooperative and one.parses for one in judged)


def replies(messages: list[Any], turn: int) -> tuple[list[tuple[str, str]], list[str]]:
    return [(f"first {turn}.", f"second {turn}.") for _ in messages], ["base"] * len(messages)


@pytest.mark.parametrize("workflow", ["interactive", "steerability"])
def test_a_chat_goes_on_with_what_its_one_annotator_chose(workflow: Any) -> None:
    rows = world_rows(12)
    source = SimulatedAnnotators(3)
    held = hold_chats(rows, workflow, 3, replies, source, source, question_set("1"), 5)
    assert len(held.pairs) == len(held.tasks) == len(held.reviews) / 3 == 36
    by_task = {one.task_id: one for one in held.reviews[::3]}
    for start in range(12):
        turns = list(zip(held.pairs, held.tasks, strict=True))[start::12]
        assert len({by_task[task.task_id].annotator_id for _, task in turns}) == 1
        assert len({pair.context["conversation_id"] for pair, _ in turns}) == 1
        for (_, task), (later, _) in pairwise(turns):
            assert later.messages[: len(task.messages)] == task.messages
            assert later.messages[len(task.messages)]["content"] == goes_on_with(task, by_task)
    last = held.pairs[-1]
    assert [turn["role"][0] for turn in last.messages] == list("suauau")
    assert (last.context["user_id"], last.context["surface"]) == (None, "internal")
    challenged = [
        any(pair.messages[-1]["content"].endswith(text) for text in CHALLENGES)
        for pair in held.pairs
    ]
    assert all(challenged) if workflow == "steerability" else not any(challenged)
    assert bool(held.tasks[0].highlights) == (workflow == "steerability")


def test_chats_with_one_character_do_not_open_alike() -> None:
    """Else the same opening is in training and held out, and comes back every generation."""
    (row,) = world_rows(1)
    rows = [row | {"prompt_id": f"p{number}"} for number in range(20)]
    source = SimulatedAnnotators(1)

    def openings(seed: int) -> list[str]:
        held = hold_chats(rows, "interactive", 1, replies, source, source, question_set("1"), seed)
        return [pair.messages[-1]["content"] for pair in held.pairs]

    first = openings(5)
    assert len(set(first)) > 10
    assert first == openings(5)
    assert sum(one == other for one, other in zip(first, openings(6), strict=True)) < 10


def test_only_a_source_that_chats_is_a_partner() -> None:
    with pytest.raises(ConfigError, match="RatedTurns takes labels of finished tasks only"):
        chat_partner(RatedTurns())
    with pytest.raises(ConfigError, match=r"'files' needs execution.annotation_exchange"):
        annotation_source("files", 3)
    with pytest.raises(ConfigError, match="cannot be adjudicated"):
        RatedTurns().adjudicate([], 0)


class WorldGenerator:
    """A fake generator that answers the world's prompts as its corpus does."""

    def __init__(self, name: str) -> None:
        self.name = name

    def generate(
        self, prompts: list[Any], sampling: SamplingConfig, **_: Any
    ) -> list[list[Completion]]:
        rng = np.random.default_rng([sampling.seed % 2**31, len(self.name)])
        found = []
        for messages in prompts:
            if "Draft: " in messages[-1]["content"]:
                marked = rng.random() < 0.5
                text = "1. dull. " + ("Rewritten reply: What about you?" if marked else "Hm.")
            else:
                name = messages[0]["content"].split(",")[0].lower()
                text = sample_response(context_of(messages, name), rng)
            found.append([Completion(text, 9, "stop")])
        return found


@dataclass
class FakeContext:
    """What the stage needs of `StageContext`, without a store or an engine."""

    output: Path
    recipe: Any
    seed: int = 11
    max_model_len: int = 2048

    def __post_init__(self) -> None:
        self.engines = SimpleNamespace(
            generator=lambda model: WorldGenerator(model.parent.name),
            config=EngineConfig(device="cpu", max_model_len=self.max_model_len),
        )
        self.plan = SimpleNamespace(parsed_recipe=lambda: self.recipe)
        ref = SimpleNamespace(flywheel="tiny", stage="annotate", key="abc", generation=1)
        self.stage = SimpleNamespace(ref=ref)

    def progress(self, done: int, total: int, what: str = "") -> None:
        assert done <= total


def stage_context(output: Path, recipe: Any, **more: Any) -> Any:
    """In place of a `StageContext`; its output folder is there."""
    output.mkdir()
    return FakeContext(output, recipe, **more)


def stage_inputs(tmp_path: Path) -> dict[str, Path]:
    inputs = {name: tmp_path / name for name in ("curate", "production", "base")}
    inputs["production"].mkdir()
    model = Path(shutil.copytree(BUILTIN_TINY, inputs["production"] / "model"))
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").unlink()
    (model / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 2048}))
    (inputs["production"] / "details.json").write_text(
        '{"judged": {"candidate": {"false_refusal": 0.3}, "production": {"false_refusal": 0.1}}}'
    )
    rows = []
    for surface in ("user", "internal"):
        for row in world_rows(80, surface):
            row["prompt_id"] += surface
            rows.append(row | {"source_key": "k", "day": "2026-03-01", "reason": "annotation"})
    write_table(inputs["curate"] / "prompts.parquet", rows, PROMPTS)
    return inputs


def section(**changes: Any) -> Config:
    return Config(
        annotation=load_recipe("smoke").annotation.model_copy(
            update={"prompts_per_surface_max": 60, **changes}
        )
    )


def test_the_stage_labels_a_targeted_batch_and_chats(tmp_path: Path) -> None:
    config = section(adjudicate="split")
    context = stage_context(tmp_path / "out", load_recipe("smoke"))
    output = run(config, stage_inputs(tmp_path), context)
    internal = read_table(context.output / "pairs_internal.parquet", PAIRS).to_pylist()
    user = read_table(context.output / "pairs_user.parquet", PAIRS).to_pylist()
    workflows = Counter(row["workflow"] for row in internal)
    assert workflows["interactive"] > 4
    assert workflows["steerability"] > 4
    assert {row["workflow"] for row in user} == {"static"}
    assert {len(row["votes"]) for row in user} == {3}
    for workflow in ("static", "interactive", "steerability"):
        split = [
            row
            for row in user + internal
            if row["workflow"] == workflow and len(set(row["votes"])) > 1
        ]
        assert split
        assert all(row["adjudicated"] for row in split)
    agreed = [len(set(row["votes"])) == 1 and row["votes"][0] >= 0 for row in user + internal]
    assert output.metrics["unanimous_share"] == pytest.approx(np.mean(agreed))
    assert 0.2 < output.metrics["unanimous_share"] < 0.8
    reviews = read_table(context.output / "reviews.parquet", REVIEWS)
    rewrites = read_table(context.output / "rewrites.parquet", REWRITES)
    assert output.row_counts["reviews"] == reviews.num_rows
    assert output.row_counts["rewrites"] == rewrites.num_rows > 0
    assert output.metrics["targeted_prompts"] == {
        "user_false_refusal": 12,
        "internal_false_refusal": pytest.approx(12, abs=1),
    }
    static = output.metrics["annotators"]["static"]
    assert static["agreement"]["preference"]["alpha"] > 0.1
    again = stage_context(tmp_path / "again", load_recipe("smoke"))
    again.stage.ref.generation = 2
    run(config, {**stage_inputs_of(tmp_path)}, again)
    assert read_table(again.output / "pairs_user.parquet").to_pylist() == user
    later = read_table(again.output / "pairs_internal.parquet").to_pylist()
    opened, opened_later = (
        {row["prompt_id"]: row["messages"] for row in rows if row["workflow"] != "static"}
        for rows in (internal, later)
    )
    same = [opened[name] == opened_later[name] for name in opened if name in opened_later]
    assert sum(same) < len(same) / 2


def stage_inputs_of(tmp_path: Path) -> dict[str, Path]:
    return {name: tmp_path / name for name in ("curate", "production", "base")}


def test_rewrites_are_alternatives_and_one_without_its_marker_is_dropped(tmp_path: Path) -> None:
    context = stage_context(tmp_path / "out", load_recipe("smoke"))
    config = section(rewrite_share=0.5, interactive_chats=0, steerability_chats=0)
    output = run(config, stage_inputs(tmp_path), context)
    rows = read_table(context.output / "pairs_user.parquet", PAIRS).to_pylist()
    rows += read_table(context.output / "pairs_internal.parquet", PAIRS).to_pylist()
    made_by = Counter(row["policy_1"] for row in rows)
    assert set(made_by) == {"production", "base", "rewrite-1"}
    rewrites = {row["response_1"] for row in rows if row["policy_1"] == "rewrite-1"}
    assert rewrites == {"What about you?"}
    assert made_by["rewrite-1"] + output.metrics["dropped_pairs"]["empty"] == 60
    assert output.metrics["not_as_asked"] == {}


def test_what_the_recipe_asks_for_and_does_not_get_is_counted_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Chats beyond the prompts there are, and several readers of a rating."""
    inputs = stage_inputs(tmp_path)
    path = inputs["curate"] / "prompts.parquet"
    rows = read_table(path, PROMPTS).to_pylist()
    few = [row for row in rows if row["surface"] == "user"][:60]
    few += [row for row in rows if row["surface"] == "internal"][:3]
    for internal, kept in ((3, few), (0, few[:60])):
        path.unlink()
        write_table(path, kept, PROMPTS)
        context = stage_context(tmp_path / f"out-{internal}", load_recipe("smoke"))
        config = section(interactive_chats=5, steerability_chats=4)
        with caplog.at_level("WARNING"):
            output = run(config, inputs, context)
        assert output.metrics["not_as_asked"] == {
            "interactive_chats_without_prompt": 5 - internal,
            "steerability_chats_without_prompt": 4 - internal,
        }
        assert f"interactive_chats_without_prompt {5 - internal}" in caplog.text
    inputs["traffic"] = tmp_path / "traffic"
    blank = dict.fromkeys(("continue_10min", "love", "thumb_down", "feedback"))
    liked = [row | blank | {"row_id": row["prompt_id"], "thumb_up": True} for row in few]
    write_table(inputs["traffic"] / "traffic.parquet", liked, TRAFFIC)
    for num_annotators, said in ((3, {"annotators_without_effect": 2}), (1, {})):
        context = stage_context(tmp_path / f"rated-{num_annotators}", load_recipe("smoke"))
        config = section(
            source="signals",
            targeted_share=0,
            num_annotators=num_annotators,
            interactive_chats=0,
            steerability_chats=0,
        )
        output = run(config, inputs, context)
        assert output.metrics["not_as_asked"] == said
        assert output.row_counts["user"] > 0


def test_a_rewrite_that_is_too_long_for_the_model_leaves_its_place_to_the_pool(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The question takes about 250 tokens beside a context of 20 to 80: some have room, some not,
    and at the tiny recipe's 256 none has. Nothing longer than the model's context is asked."""
    inputs = stage_inputs(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(inputs["production"] / "model")
    config = section(rewrite_share=0.5, interactive_chats=0, steerability_chats=0)
    for room, some in ((330, True), (256, False)):
        context = stage_context(tmp_path / f"out-{room}", load_recipe("smoke"), max_model_len=room)
        asked: list[int] = []

        class Measured(WorldGenerator):
            def generate(self, prompts: list[Any], sampling: SamplingConfig, **_: Any) -> Any:
                texts = [render_prompt(tokenizer, messages) for messages in prompts]
                asked.extend(len(ids) for ids in encode(tokenizer, texts))  # noqa: B023
                return super().generate(prompts, sampling)

        context.engines.generator = lambda model, made=Measured: made(model.parent.name)
        with caplog.at_level("WARNING"):
            output = run(config, inputs, context)
        too_long = output.metrics["not_as_asked"]["rewrites_too_long"]
        assert 0 < too_long < 60 if some else too_long == 60
        assert f"rewrites_too_long {too_long}" in caplog.text
        assert max(asked) <= room - config.annotation.sampling.max_tokens
        names = ("pairs_user.parquet", "pairs_internal.parquet")
        rows = [row for name in names for row in read_table(context.output / name).to_pylist()]
        made_by = Counter(row["policy_1"] for row in rows)
        assert bool(made_by["rewrite-1"]) == some
        assert abs(made_by["production"] - made_by["base"]) < 15
        assert len(rows) + sum(output.metrics["dropped_pairs"].values()) == 120


def test_people_are_waited_for_with_the_tasks_put_out_and_their_labels_taken(
    tmp_path: Path,
) -> None:
    from flywheel_core.annotation.files import read_tasks
    from flywheel_core.errors import LabelsPending

    recipe = load_recipe("smoke")
    execution = recipe.execution.model_copy(update={"annotation_exchange": str(tmp_path / "ex")})
    recipe = recipe.model_copy(update={"execution": execution})
    config = section(source="files", interactive_chats=0, steerability_chats=0)
    inputs = stage_inputs(tmp_path)
    context = stage_context(tmp_path / "out", recipe)
    with pytest.raises(LabelsPending, match="then clear this task"):
        run(config, inputs, context)
    folder = tmp_path / "ex" / "tiny" / "annotate-abc" / "static"
    tasks = read_tasks(folder / "tasks.jsonl")
    lines = [
        f'{{"task_id": "{task.task_id}", "annotator_id": "{name}", "choice": "left"}}'
        for task in tasks
        for name in ("kim", "lee", "max")
    ]
    (folder / "labels.jsonl").write_text("\n".join(lines))
    output = run(config, inputs, context)
    assert output.row_counts["internal"] + output.row_counts["user"] == len(tasks)
    assert output.metrics["unanimous_share"] == 1.0
    assert output.metrics["annotators"]["static"]["annotators"][0]["left_share"]["lower"] > 0.9


def test_an_empty_batch_is_refused_before_anybody_is_asked(tmp_path: Path) -> None:
    inputs = stage_inputs(tmp_path)
    write_table(inputs["curate"] / "prompts.parquet", [], PROMPTS)
    context = stage_context(tmp_path / "out", load_recipe("smoke"))
    with pytest.raises(InputDataError, match="the static batch is empty"):
        run(section(), inputs, context)
