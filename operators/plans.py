"""How every task finds its run's pinned plan, and how our errors become Airflow's."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from airflow.sdk import Param
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from flywheel_core.errors import (
    ArtifactCorrupt,
    ConfigError,
    FlywheelError,
    GateBlocked,
    InputDataError,
    PromotionRefused,
    SchemaTooNew,
)
from flywheel_core.plan import PinnedPlan, load_plan, plan_path
from flywheel_core.recipe import Recipe, load_recipe
from operators.config import Site, default_recipe

NEVER_RETRIED = (
    ArtifactCorrupt,
    ConfigError,
    GateBlocked,
    InputDataError,
    PromotionRefused,
    SchemaTooNew,
)
RECIPE_PARAM = Param(
    default_recipe(),
    type="string",
    pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$",
    description="A recipe by its name in dags/recipes/.",
)


@contextmanager
def airflow_errors() -> Iterator[None]:
    """Our errors as Airflow's; those that a retry cannot mend fail at once."""
    try:
        yield
    except NEVER_RETRIED as error:
        raise AirflowFailException(str(error)) from error
    except FlywheelError as error:
        raise AirflowException(str(error)) from error


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
