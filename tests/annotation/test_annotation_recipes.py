"""An annotation recipe that cannot work, or ignores a setting, is refused in one sentence."""

from copy import deepcopy
from typing import Any

import pytest
import yaml

from flywheel_core.errors import ConfigError
from flywheel_core.recipe import parse_recipe, recipe_path

SMOKE = yaml.safe_load(recipe_path("smoke").read_text())


def recipe(annotation: dict[str, Any], reviews: str = "all") -> None:
    data = deepcopy(SMOKE)
    data["annotation"] |= annotation
    data["reward_models"]["reviews"] = reviews
    parse_recipe(data, "mine")


@pytest.mark.parametrize(
    ("annotation", "reviews", "complaint"),
    [
        ({"num_annotators": 2}, "unanimous", "needs 3 votes a pair, but .* gives 2, so no pair"),
        ({"num_annotators": 1, "adjudicate": "split"}, "all", "'split' settles splits, and num"),
        ({"prompts_per_surface_max": None}, "all", "null takes every prompt; set it, or targeted"),
        ({"held_out_share": 0}, "all", "held_out_share: got 0.0, must lie between 0 and 1"),
        ({"held_out_share": 1}, "all", "held_out_share: got 1.0, must lie between 0 and 1"),
    ],
)
def test_a_setting_without_effect_is_refused(
    annotation: dict[str, Any], reviews: str, complaint: str
) -> None:
    with pytest.raises(ConfigError, match=complaint):
        recipe(annotation, reviews)


def test_the_settings_beside_them_are_taken() -> None:
    recipe({"adjudicate": "split"}, "unanimous")
    recipe({"num_annotators": 1}, "single")
    recipe({"prompts_per_surface_max": None, "targeted_share": 0}, "all")
