"""Two ranks under Ray Train with ZeRO-3: the same models as one rank makes, one clear error, and a
rank that dies is started again."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from flywheel_core.engines.config import EngineConfig
from flywheel_core.engines.environment import prepare_environment
from flywheel_core.errors import TrainingError
from flywheel_core.training.config import LaunchConfig
from flywheel_core.training.launcher import join_ray, launch
from flywheel_core.training.rewards import RewardModelSpec, run_reward_models
from flywheel_core.training.sft import run_sft
from tests.engines.tiny import messages
from tests.training import ranks
from tests.training.toy import INLINE, SFT, Toy, answer, largest_gap, reward_config

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(900)]
TWO = LaunchConfig(num_workers=2)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    import ray

    prepare_environment(EngineConfig(num_threads=1))
    join_ray(TWO)
    yield
    ray.shutdown()


@pytest.mark.usefixtures("cluster")
def test_sft_on_two_ranks_is_sft_on_one(toy: Toy, tmp_path: Path) -> None:
    config = SFT.model_copy(update={"learning_rate": 1e-3})
    results = [
        run_sft(
            config,
            model_dir=toy.model,
            dataset_path=toy.sft,
            output_dir=tmp_path / mode.mode,
            launch_config=mode,
        )
        for mode in (INLINE, TWO)
    ]
    assert results[0].metrics["first_loss"] == pytest.approx(
        results[1].metrics["first_loss"], rel=1e-5
    )
    assert [saved.step for saved in results[1].checkpoints] == [2, 3]
    assert largest_gap(results[0].model_dir, results[1].model_dir) < 1e-4


@pytest.mark.usefixtures("cluster")
def test_reward_models_on_two_ranks_score_alike_in_vllm(toy: Toy, tmp_path: Path) -> None:
    """Several models in one group of ranks; vLLM's pooling gives transformers' logits."""
    import torch
    from transformers import AutoModelForSequenceClassification

    from flywheel_core.engines.rendering import encode, render_row
    from flywheel_core.engines.vllm_scorer import VllmScorer

    specs = [
        RewardModelSpec("pairs", reward_config("pointwise"), toy.pairs, toy.pairs),
        RewardModelSpec("cross", reward_config("pairwise"), toy.pairs, toy.pairs),
        RewardModelSpec("thumb", reward_config("signal"), toy.signals, toy.signals),
    ]
    results = [
        run_reward_models(
            specs, model_dir=toy.model, output_dir=tmp_path / mode.mode, launch_config=mode
        )
        for mode in (INLINE, TWO)
    ]
    for name, report in results[0].reports.items():
        assert report["log_loss"] == pytest.approx(results[1].reports[name]["log_loss"], rel=1e-3)

    scorer = VllmScorer(EngineConfig(num_threads=1, max_model_len=256))
    for name, model_dir in results[1].model_dirs.items():
        shown = (answer(1), answer(2)) if name == "cross" else (answer(1),)
        rows = [(messages(number), *shown) for number in range(4)]
        model = AutoModelForSequenceClassification.from_pretrained(model_dir).eval()
        with torch.no_grad():
            expected = [
                float(model(torch.tensor([ids])).logits[0, 0])
                for ids in encode(toy.tokenizer, [render_row(toy.tokenizer, row) for row in rows])
            ]
        np.testing.assert_allclose(scorer.score(model_dir, rows), expected, atol=1e-4)
    scorer.close()


@pytest.mark.usefixtures("cluster")
def test_a_rank_that_dies_is_started_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    launch(ranks.die_once, {"folder": str(tmp_path)}, TWO, tmp_path / "out")
    assert (tmp_path / "done").exists()
    told = capsys.readouterr().out
    assert "training failed on rank" in told
    assert "resuming, 1 tries left" in told


@pytest.mark.usefixtures("cluster")
def test_an_error_of_a_rank_is_told_once_and_not_tried_again(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"on rank 1: InputDataError: pairs\.parquet: no rows"):
        launch(ranks.fail, {"folder": str(tmp_path)}, TWO, tmp_path / "out")
    assert len(list(tmp_path.glob("failed-*"))) == 1


@pytest.mark.usefixtures("cluster")
def test_ray_listens_on_this_machine_only() -> None:
    import ray

    assert ray.get_runtime_context().gcs_address.startswith("127.0.0.1:")
    assert {node["NodeManagerAddress"] for node in ray.nodes()} == {"127.0.0.1"}


@pytest.mark.usefixtures("cluster")
def test_ranks_on_one_machine_listen_on_it_alone(tmp_path: Path) -> None:
    """torch's meeting point too, which by itself listens on every interface."""
    arguments = {"folder": str(tmp_path)}
    launch(ranks.say_where_it_listens, arguments, TWO, tmp_path / "storage")
    said = [json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in range(2)]
    this_machine = {"127.0.0.1", "::ffff:127.0.0.1"}  # the second is the first, as Ray writes it
    assert all(listens and set(listens) <= this_machine for listens in said), said
