"""A run cannot bring its own policy, and a program is refused before it starts one."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from flywheel_core.climbing import TRIGGERING_USER, _check_approver
from flywheel_core.deployment import DEFAULT_POLICY, Deployment
from flywheel_core.errors import ConfigError
from flywheel_core.recipe import RECIPE_FOLDER, Recipe, load_recipe
from flywheel_core.release.policy import ReleasePolicy

TINY = RECIPE_FOLDER / "tiny_cpu.yaml"
OF_THE_POLICY = tuple(ReleasePolicy.model_fields)
SECTIONS = tuple(
    name for name, value in yaml.safe_load(TINY.read_text()).items() if isinstance(value, dict)
)


def written(folder: Path, change: dict[str, Any], section: str | None = None) -> str:
    data = yaml.safe_load(TINY.read_text())
    (data[section] if section else data).update(change)
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(data))
    return str(path)


@pytest.mark.parametrize("field", [*OF_THE_POLICY, "policy", "release_policy"])
def test_a_recipe_has_no_field_of_the_policy(field: str, tmp_path: Path) -> None:
    assert field not in Recipe.model_fields
    with pytest.raises(ConfigError, match=f"{field}: unknown key"):
        load_recipe(written(tmp_path, {field: ["mallory"]}))


@pytest.mark.parametrize("section", SECTIONS)
def test_no_section_takes_a_policy(section: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="policy: unknown key"):
        load_recipe(written(tmp_path, {"policy": "mine.yaml"}, section))


def deployed(folder: Path, **changes: Any) -> Deployment:
    path = folder / "policy.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(DEFAULT_POLICY.read_text()) | changes))
    return Deployment(home=folder, store_root=str(folder / "store"), policy_path=path)


def test_a_program_is_refused_early_what_promote_would_refuse(tmp_path: Path) -> None:
    _check_approver(deployed(tmp_path), "release_manager")
    _check_approver(deployed(tmp_path), None)
    with pytest.raises(ConfigError, match="not a release manager"):
        _check_approver(deployed(tmp_path), "on_call")
    with pytest.raises(ConfigError, match="forbids automated"):
        _check_approver(deployed(tmp_path, automated_approval_allowed=False), "release_manager")
    both = [TRIGGERING_USER, "release_manager"]
    with pytest.raises(ConfigError, match="self_approval_allowed false"):
        _check_approver(deployed(tmp_path, release_managers=both), TRIGGERING_USER)
    _check_approver(
        deployed(tmp_path, release_managers=both, self_approval_allowed=True), TRIGGERING_USER
    )
