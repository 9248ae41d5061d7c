"""What the reward-model and rejection-sampling jobs refuse, count and say, without a training."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flywheel_core.annotation.pairs import is_held_out
from flywheel_core.engines.base import Completion
from flywheel_core.engines.config import EngineConfig
from flywheel_core.engines.fake import FakeScorer
from flywheel_core.engines.pool import EnginePool
from flywheel_core.errors import InputDataError
from flywheel_core.jobs import rejection_sampling, reward_models
from flywheel_core.jobs.preference_batches import Training
from flywheel_core.jobs.reward_models import MIN_PAIRS, SIGNAL_HELD_OUT_SHARE
from flywheel_core.recipe import RECIPE_FOLDER, Recipe, parse_recipe
from flywheel_core.records import PROMPTS, Surface, write_table
from flywheel_core.stages import stage_named
from flywheel_core.training.rewards import RewardModelSpec


def tiny(**sections: dict[str, Any]) -> Recipe:
    import yaml

    data: dict[str, Any] = yaml.safe_load((RECIPE_FOLDER / "tiny_cpu.yaml").read_text())
    for name, changes in sections.items():
        data[name] |= changes
    return parse_recipe(data, "test")


def traffic(liked: list[bool | None]) -> pa.Table:
    names = [f"c{number}" for number in range(len(liked))]
    nobody = pa.nulls(len(names), pa.string())
    return pa.table({"conversation_id": names, "user_id": nobody, "thumb_up": liked})


def specs(table: pa.Table, tmp_path: Path, rows_max: int) -> list[Any]:
    section = tiny(
        reward_models={"signals": ["thumb_up"], "signal_rows_max": rows_max},
        rejection_sampling={"signal_weights": {}},
    ).reward_models
    return reward_models._signal_specs(section, table, tmp_path)


@pytest.mark.parametrize("num_rows", [1500, 2000, 2001, 3999, 4000, 9001])
def test_a_signal_never_takes_more_rows_than_its_maximum(tmp_path: Path, num_rows: int) -> None:
    (spec,) = specs(traffic([n % 3 == 0 for n in range(num_rows)]), tmp_path, 2000)
    names = [
        name
        for path in (spec.train_path, spec.held_out_path)
        for name in pq.read_table(path).column("conversation_id").to_pylist()
    ]
    assert len(names) == len(set(names)) == min(num_rows, 2000)
    numbers = sorted(int(name[1:]) for name in names)
    assert numbers[0] == 0
    assert np.diff(numbers).max() <= -(-num_rows // 2000), "evenly spread over the week"


def test_a_signal_needs_both_classes_among_the_rows_it_trains_on(tmp_path: Path) -> None:
    """All that were liked, or all that were not, are held out."""
    held_out = [is_held_out(f"c{number}", SIGNAL_HELD_OUT_SHARE) for number in range(1000)]
    assert specs(traffic(list(held_out)), tmp_path, 2000) == []
    assert specs(traffic([not out for out in held_out]), tmp_path, 2000) == []
    held_out[held_out.index(False)] = True
    assert len(specs(traffic(list(held_out)), tmp_path, 2000)) == 1


def test_a_signal_needs_enough_rows_after_the_split(tmp_path: Path) -> None:
    def found(count: int) -> int:
        return len(specs(traffic([n % 2 == 0 for n in range(count)]), tmp_path, 2000))

    assert found(170) == 0, "170 rows of which a fifth is held out are fewer than 160"
    assert found(260) == 1


def test_a_signal_holds_out_users_whole(tmp_path: Path) -> None:
    """Every user has six conversations; a share of the users is held out, not of those."""
    table = traffic([n % 2 == 0 for n in range(1200)])
    users = pa.array([f"u{n % 200}" for n in range(1200)])
    table = table.set_column(table.column_names.index("user_id"), "user_id", users)
    (spec,) = specs(table, tmp_path, 2000)
    trained, held_out = (
        set(pq.read_table(path).column("user_id").to_pylist())
        for path in (spec.train_path, spec.held_out_path)
    )
    assert trained.isdisjoint(held_out)
    assert len(trained) + len(held_out) == 200
    assert len(held_out) / 200 == pytest.approx(SIGNAL_HELD_OUT_SHARE, abs=0.1)


def test_a_signal_is_reported_on_by_held_out_rows_and_the_base_rates_of_training(
    tmp_path: Path,
) -> None:
    """What held out says is the opposite of what training says, in the labels of each job and in
    what the model makes of them."""

    def rows(count: int, liked_job: str) -> pa.Table:
        turns = [
            {"messages": [{"role": "user", "content": "hi"}], "response": job, "jtbd": job}
            | {"label": float(job == liked_job)}
            for job in ("chat", "info")
        ]
        return pa.Table.from_pylist(turns * (count // 2))

    paths = {part: tmp_path / f"{part}.parquet" for part in ("train", "held_out")}
    pq.write_table(rows(60, "info"), paths["train"])
    pq.write_table(rows(40, "chat"), paths["held_out"])
    (tmp_path / "pointwise_user").mkdir()
    scorer = FakeScorer(lambda name, row: 3.0 if row[1] == "chat" else -3.0)
    context: Any = SimpleNamespace(
        output=tmp_path,
        engines=SimpleNamespace(
            scorer=EnginePool(EngineConfig(), scorer=scorer).scorer, progress=None
        ),
    )
    spec = RewardModelSpec(
        name="signal_love",
        config=tiny().reward_models.signal,
        train_path=paths["train"],
        held_out_path=paths["held_out"],
    )
    report = reward_models._report_signals([spec], context)["signal_love"]
    assert report["num_rows"] == 40
    assert report["auc"] == 1
    assert report["ece"] == pytest.approx(1 / (1 + np.exp(3.0)))
    jobs = report["biases"]["jtbd"]
    assert {one["jtbd"]: one["observed"]["estimate"] for one in jobs["rates"]} == {
        "chat": 1.0, "info": 0.0,
    }  # fmt: skip
    assert jobs["auc_of_jtbd"] == 0, "the job's rate in training misleads about these rows"
    assert json.loads((tmp_path / "signals.json").read_text()) == {"signal_love": report}


def test_a_preference_model_needs_enough_pairs_after_the_split(tmp_path: Path) -> None:
    def found(num_trained: int, num_held_out: int) -> set[str]:
        held_out = [False] * num_trained + [True] * num_held_out
        table = pa.table({"held_out": pa.array(held_out, pa.bool_())})
        training: dict[Surface, Training] = {
            "internal": Training(table.slice(0, 0), 0),
            "user": Training(table, 0),
        }
        made = reward_models._preference_specs(tiny().reward_models, training, tmp_path)
        return {spec.name for spec in made}

    assert found(MIN_PAIRS - 1, 30) == set()
    assert found(MIN_PAIRS, 0) == {"pointwise_user", "pairwise_user"}


@pytest.mark.parametrize("broken", ["pointwise_user", "pairwise_user", "signal_thumb_up"])
def test_a_model_that_gives_nan_is_named_where_it_is_first_asked(
    tmp_path: Path, broken: str
) -> None:
    scorer = FakeScorer(lambda name, row: float("nan") if name == broken else float(len(row[1])))
    engines = EnginePool(EngineConfig(), scorer=scorer)
    context: Any = SimpleNamespace(
        output=tmp_path, engines=SimpleNamespace(scorer=engines.scorer, progress=None)
    )
    names = ["pointwise_user", "pairwise_user", "signal_thumb_up"]
    for name in names:
        (tmp_path / name).mkdir()
    said = [
        {"messages": [{"role": "user", "content": "hi"}], "response": "a" * n} for n in (1, 2, 3)
    ]
    table = pa.Table.from_pylist(said)
    with pytest.raises(InputDataError, match=rf"{broken} gave a finite score to 0 of 3 .*look at"):
        reward_models._write_standards(names, table, context)
    fine = [name for name in names if name != broken]
    reward_models._write_standards(fine, table, context)
    standards = json.loads((tmp_path / "standards.json").read_text())
    assert set(standards) == {name for name in fine if not name.startswith("pairwise_")}


class Chatty:
    """Says something longer with every sample."""

    def load(self, model_dir: Path) -> None:
        pass

    def generate(self, prompts: Any, sampling: Any, *, progress: Any = None) -> Any:
        return [
            [Completion("word " * (n + 1), n + 1, "stop") for n in range(sampling.num_samples)]
            for _ in prompts
        ]


def sample(tmp_path: Path, **changes: Any) -> Any:
    """Run rejection sampling over ten prompts; the pointwise model likes long answers."""
    rows = [
        {field.name: None for field in PROMPTS}
        | {
            "prompt_id": f"p{n}", "source_key": "k", "reason": "x", "split": "reject",
            "messages": [{"role": "user", "content": f"question {n}"}], "surface": "user",
            "conversation_id": f"c{n}", "turn_index": 1, "depth": 0, "day": "2026-01-05",
            "row_id": f"r{n}", "language": "en", "response": "said",
        }
        for n in range(10)
    ]  # fmt: skip
    write_table(tmp_path / "curate" / "prompts.parquet", rows, PROMPTS)
    (tmp_path / "rewards" / "pointwise_user").mkdir(parents=True)
    standards = {"pointwise_user": {"mean": 0.0, "sd": 1.0}}
    (tmp_path / "rewards" / "standards.json").write_text(json.dumps(standards))
    (tmp_path / "out").mkdir()
    engines = EnginePool(
        EngineConfig(), generator=Chatty(), scorer=FakeScorer(lambda name, row: len(row[1]))
    )
    context: Any = SimpleNamespace(
        output=tmp_path / "out", seed=1, progress=lambda *_: None,
        engines=SimpleNamespace(
            generator=engines.generator, scorer=engines.scorer, progress=None
        ),
    )  # fmt: skip
    recipe = tiny(**changes)
    config = stage_named("rejection_sampling").config(recipe)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rejection_sampling, "require_same_tokenizer", lambda *_: None)
        return rejection_sampling.run(
            rejection_sampling.Config.model_validate(config),
            {
                "curate": tmp_path / "curate",
                "reward_models": tmp_path / "rewards",
                "production": tmp_path / "production",
                "base": tmp_path / "base",
            },
            context,
        )


def test_nothing_accepted_is_an_error_that_commits_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputDataError, match=r"threshold_sd 500: the best of 40 .* 20\.000"):
        sample(tmp_path, rejection_sampling={"threshold_sd": 500.0, "num_candidates": 4})
    assert list((tmp_path / "out").iterdir()) == []


def test_a_weighed_signal_without_a_model_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sample(tmp_path, rejection_sampling={"signal_weight": 0.25})
    lines = [line for line in capsys.readouterr().out.splitlines() if "has no model" in line]
    assert len(lines) == 2
    assert lines[0].startswith("warning: signal_continue_10min weighs 0.25 in the composite")
    assert lines[1].startswith("warning: signal_thumb_up weighs 0.25")


def test_the_recipes_prevalence_settings_count_for_accepted_samples_too(tmp_path: Path) -> None:
    """The longest sample always wins, so its length is flagged, unless none may be."""
    plain = sample(tmp_path / "plain").metrics["features_accepted_rejected"]
    assert any(one["flagged"] for one in plain.values())
    strict = sample(
        tmp_path / "strict",
        annotation={"prevalence": {"false_discovery_rate": 1e-9}},
    ).metrics["features_accepted_rejected"]
    assert not any(one["flagged"] for one in strict.values())
