"""What evaluation selects among, also where a climb was started from a checkpoint."""

from pathlib import Path

from flywheel_core.jobs.evaluate import checkpoints_on_offer


def artifact(folder: Path, *checkpoints: str) -> Path:
    (folder / "model").mkdir(parents=True)
    for name in checkpoints:
        (folder / "checkpoints" / name).mkdir(parents=True)
    return folder


def test_every_checkpoint_of_the_three_stages_is_on_offer(tmp_path: Path) -> None:
    inputs = {
        "sft": artifact(tmp_path / "s", "step-00010"),
        "dpo": artifact(tmp_path / "d", "final"),
        "rl": artifact(tmp_path / "r", "step-00002", "step-00004"),
        "production": artifact(tmp_path / "p"),
    }
    assert [*checkpoints_on_offer(inputs)] == [
        "sft/step-00010",
        "dpo/final",
        "rl/step-00002",
        "rl/step-00004",
    ]


def test_a_checkpoint_in_the_place_of_two_stages_is_on_offer_once(tmp_path: Path) -> None:
    promoted = artifact(tmp_path / "promoted")
    made = artifact(tmp_path / "r", "step-00002")
    on_offer = checkpoints_on_offer({"sft": promoted, "dpo": promoted, "rl": made})
    assert on_offer == {
        "sft/model": promoted / "model",
        "rl/step-00002": made / "checkpoints" / "step-00002",
    }


def test_a_checkpoint_alone_is_what_is_measured(tmp_path: Path) -> None:
    promoted = artifact(tmp_path / "promoted")
    only = dict.fromkeys(("sft", "dpo", "rl"), promoted)
    assert checkpoints_on_offer(only) == {"sft/model": promoted / "model"}
    several = dict.fromkeys(("sft", "dpo", "rl"), artifact(tmp_path / "r", "a", "b"))
    assert [*checkpoints_on_offer(several)] == ["sft/a", "sft/b"]
