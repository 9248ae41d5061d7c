"""How every task finds its run's recipe and pinned plan."""

from typing import Any

from airflow.sdk import Param

from flywheel_core.errors import ConfigError
from flywheel_core.plan import PinnedPlan, load_plan, plan_path
from flywheel_core.recipe import Recipe, load_recipe
from operators.config import Site, default_recipe

RECIPE_PARAM = Param(
    default_recipe(),
    type="string",
    pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$",
    description="A recipe by its name in dags/recipes/.",
)


def recipe_of(site: Site, context: Any) -> Recipe:
    """The recipe that the run's `recipe` param names."""
    name = str(context["params"]["recipe"])
    path = site.recipes / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(found.stem for found in site.recipes.glob("*.yaml")))
        raise ConfigError(f"param recipe {name!r}: no file {path}; one of: {known or 'none'}")
    return load_recipe(str(path))


def plan_id(context: Any, *, nightly: bool = False) -> str:
    """The name a run pins its plan under: its run id; nightly runs have names of their own."""
    run_id = str(context["run_id"])
    return f"nightly/{run_id}" if nightly else run_id


def pinned_plan_path(site: Site, context: Any, *, nightly: bool = False) -> str:
    return plan_path(recipe_of(site, context).flywheel, plan_id(context, nightly=nightly))


def pinned_plan(site: Site, context: Any, *, nightly: bool = False) -> PinnedPlan:
    """The plan of this run, as `resolve` pinned it; nothing is decided anew."""
    return load_plan(site.store(), pinned_plan_path(site, context, nightly=nightly))
