"""Recipes: every shipped one parses, and every fault is named with its field and value."""

from typing import Any

import pytest
import yaml

from flywheel_core.errors import ConfigError
from flywheel_core.recipe import RECIPE_FOLDER, load_recipe, parse_recipe

SHIPPED = sorted(path.stem for path in RECIPE_FOLDER.glob("*.yaml"))


@pytest.fixture
def tiny() -> dict[str, Any]:
    data: dict[str, Any] = yaml.safe_load((RECIPE_FOLDER / "tiny_cpu.yaml").read_text())
    return data


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_recipes_parse(name: str) -> None:
    assert load_recipe(name).name == name


def test_an_unknown_key_is_named(tiny: dict[str, Any]) -> None:
    tiny["sft"]["learning_rat"] = 1
    with pytest.raises(ConfigError, match=r"sft\.learning_rat: unknown key \(value 1\)"):
        parse_recipe(tiny, "test")


def test_a_wrong_type_is_named_with_its_value(tiny: dict[str, Any]) -> None:
    tiny["traffic"]["num_days"] = "many"
    with pytest.raises(ConfigError, match=r"traffic\.num_days: .*received 'many'"):
        parse_recipe(tiny, "test")


def test_a_signal_model_cannot_be_put_into_rl(tiny: dict[str, Any]) -> None:
    tiny["rl"]["reward_models"] = ["signal_thumb_up"]
    with pytest.raises(ConfigError, match=r"rl\.reward_models: unknown key"):
        parse_recipe(tiny, "test")


def test_an_unknown_recipe_lists_the_ones_there_are() -> None:
    with pytest.raises(ConfigError, match=r"one of:.*tiny_cpu"):
        load_recipe("no_such_recipe")


def test_prompt_splits_must_all_be_given(tiny: dict[str, Any]) -> None:
    del tiny["curation"]["prompts_per_surface"]["gate"]
    with pytest.raises(ConfigError, match="differs in gate"):
        parse_recipe(tiny, "test")


def test_yaml_that_is_no_mapping_is_refused(tmp_path: Any) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("- just\n- a list\n")
    with pytest.raises(ConfigError, match="expected a mapping"):
        load_recipe(str(path))
