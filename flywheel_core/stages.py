"""The climbing step as a list: every stage, in the order of the paper's Figure 3.

Light: it names each stage's job as a string and takes its configuration from the recipe, so the
scheduler can plan and key a climb without torch. Raise a stage's `version` when its code changes
what it makes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from flywheel_core.errors import ConfigError
from flywheel_core.recipe import Recipe

PRODUCTION = "production"
BASE = "base"
POOL = "pool"
SIGNAL_BASE = "signal_base"
BATCH = "batch"
PRIOR = "prior"
GUARD = "guard"
MODULES_VARIABLE = "FLYWHEEL_STAGE_MODULES"
ERASURES = "erasures"

TRAINING_STAGES = {"reward_models": 0, "sft": 0, "dpo": 1, "rl": 1}
"""Stages that train, and how many reference models each keeps beside the policy."""


@dataclass(frozen=True)
class Stage:
    """One stage: what it reads, what configures it, and the module that runs it.

    `inputs` names earlier stages, or `production` (the parent), `base` (the checkpoint SFT
    starts from), `pool` (every other policy of the rejection-sampling pool), `guard` (the safety
    model of curation, where the recipe has one), `signal_base` (the smaller one that signal models
    start from, if any), `batch` (the pairs of each generation before), `prior` (the reward models
    in force) and `erasures` (the list of erased users, once there is one; whatever
    reads rows of users takes it).
    """

    name: str
    version: int
    inputs: tuple[str, ...]
    config: Callable[[Recipe], dict[str, Any]]
    summary: str

    @property
    def module(self) -> str:
        return f"flywheel_core.jobs.{self.name}"


def _section(*names: str) -> Callable[[Recipe], dict[str, Any]]:
    def take(recipe: Recipe) -> dict[str, Any]:
        sections: dict[str, BaseModel] = {name: getattr(recipe, name) for name in names}
        return {name: section.model_dump(mode="json") for name, section in sections.items()}

    return take


CLIMB: tuple[Stage, ...] = (
    Stage(
        "traffic",
        1,
        (PRODUCTION, ERASURES),
        _section("traffic"),
        "a week of chats with the production model, internal and user",
    ),
    Stage(
        "curate",
        6,
        ("traffic", GUARD, ERASURES),
        _section("curation"),
        "filter, diversify and balance the traffic into disjoint prompt sets",
    ),
    Stage(
        "annotate",
        4,
        ("curate", "traffic", PRODUCTION, BASE, POOL, ERASURES),
        _section("annotation"),
        "pairs of responses, judged by annotators",
    ),
    Stage(
        "reward_models",
        3,
        ("annotate", "curate", "traffic", BASE, SIGNAL_BASE, BATCH, PRIOR, ERASURES),
        _section("reward_models"),
        "pre-herding: preference and user-signal models",
    ),
    Stage(
        "rejection_sampling",
        2,
        ("curate", "reward_models", PRODUCTION, BASE, POOL),
        lambda recipe: {
            **_section("rejection_sampling")(recipe),
            "lint": list(recipe.curation.lint),
            "prevalence": recipe.annotation.prevalence.model_dump(mode="json"),
        },
        "best of k from a pool of policies (Algorithm 1)",
    ),
    Stage(
        "sft",
        1,
        ("rejection_sampling", "curate", "reward_models", PRODUCTION, BASE),
        lambda recipe: {
            **_section("sft", "evaluation")(recipe),
            "sft_starts_from": recipe.model.sft_starts_from,
        },
        "herding: supervised fine-tuning",
    ),
    Stage(
        "dpo",
        1,
        ("annotate", "sft"),
        _section("dpo"),
        "herding: a small preference patch",
    ),
    Stage(
        "rl",
        1,
        ("dpo", "curate", "reward_models", PRODUCTION),
        lambda recipe: {
            **_section("rl", "evaluation")(recipe),
            **(_section("study")(recipe) if recipe.study else {}),
        },
        "herding: online RL (GRPO, Eq. 8), stopped at the win-rate target",
    ),
    Stage(
        "evaluate",
        3,
        ("sft", "dpo", "rl", "curate", "traffic", "reward_models", PRODUCTION),
        _section("evaluation"),
        "select the checkpoint, then measure it on the gate's own prompts",
    ),
)

STAGES: dict[str, Stage] = {stage.name: stage for stage in CLIMB}


def stage_named(name: str) -> Stage:
    """The stage, or an error that lists the ones there are."""
    try:
        return STAGES[name]
    except KeyError as error:
        raise ConfigError(f"stage {name!r} is unknown; one of: {', '.join(STAGES)}") from error


def trusted_module(stage: str, module: str, allowed: str) -> str:
    """`module`, if a plan may name it: plans lie in the store, and whoever can edit one must not
    choose what a Ray job runs.

    A stage of the climb has its own module. Others (a test's, a site's own) must be listed in
    `allowed`, which the deployment sets: names with commas between them.
    """
    own = STAGES[stage].module if stage in STAGES else None
    if module == own or module in filter(None, allowed.split(",")):
        return module
    raise ConfigError(
        f"stage {stage!r}: the plan names module {module!r}, but "
        + (f"that stage's is {own}" if own else "no stage of this code has that name")
        + f"; the plan was edited: start a new run (or list the module in {MODULES_VARIABLE})"
    )
