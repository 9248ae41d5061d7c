"""The recipe: one YAML file that says what a climbing step is, at either end of the scale.

Every stage has its own section. Who may release, and at which thresholds, is in the deployed
policy, never here.
"""

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError, model_validator

from flywheel_core.annotation.section import AnnotationSection
from flywheel_core.curation.section import CurationSection
from flywheel_core.errors import ConfigError
from flywheel_core.sections import (
    EvaluationSection,
    ExecutionSection,
    ModelSection,
    Name,
    RejectionSection,
    RewardModelsSection,
    Section,
    TrafficSection,
)
from flywheel_core.studies import StudySection, check_preference_labels, check_rl_rewards
from flywheel_core.training.config import DpoConfig, SftConfig
from flywheel_core.training.grpo_config import GrpoConfig

RECIPE_FOLDER = Path(__file__).resolve().parent.parent / "dags" / "recipes"


class Recipe(Section):
    """One climbing step, whole. A `study` marks what it makes as unfit for release."""

    name: Name
    flywheel: Name
    seed: int = 0
    model: ModelSection
    traffic: TrafficSection
    curation: CurationSection
    annotation: AnnotationSection
    reward_models: RewardModelsSection
    rejection_sampling: RejectionSection
    sft: SftConfig
    dpo: DpoConfig
    rl: GrpoConfig
    evaluation: EvaluationSection
    execution: ExecutionSection
    study: StudySection | None = None

    @model_validator(mode="after")
    def _rewards_of_rl_are_the_papers(self) -> "Recipe":
        check_rl_rewards(self.rl.reward_weights, self.study)
        check_preference_labels(self.annotation.source, self.study)
        return self

    @model_validator(mode="after")
    def _consensus_can_be_reached(self) -> "Recipe":
        if self.reward_models.reviews != "unanimous":
            return self
        from flywheel_core.annotation.adjudication import CONSENSUS_VOTES_MIN

        asked = self.annotation.votes_asked
        if asked < CONSENSUS_VOTES_MIN:
            raise ValueError(
                f"reward_models.reviews: unanimous needs {CONSENSUS_VOTES_MIN} votes a pair, but "
                f"annotation (source {self.annotation.source!r}) gives {asked}, so no pair would "
                "be left to train on; raise annotation.num_annotators, or take all or single"
            )
        return self

    @model_validator(mode="after")
    def _weighed_signals_are_trained(self) -> "Recipe":
        weighed = set(self.rejection_sampling.signal_weights)
        missing = sorted(weighed - set(self.reward_models.signals))
        if missing:
            raise ValueError(
                f"rejection_sampling.signal_weights names {', '.join(missing)}, but "
                f"reward_models.signals trains {', '.join(self.reward_models.signals) or 'none'}; "
                "add it there"
            )
        return self


def recipe_path(name_or_path: str) -> Path:
    """A recipe by its name in `dags/recipes/`, or by its path."""
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        path = RECIPE_FOLDER / f"{name_or_path}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(found.stem for found in RECIPE_FOLDER.glob("*.yaml")))
        raise ConfigError(
            f"recipe {name_or_path!r}: no file {path}; give a path to a YAML file, or one of: "
            f"{known}"
        )
    return path


def load_recipe(name_or_path: str, *, seed: int | None = None) -> Recipe:
    """Read and check a recipe; every fault in it is listed with its field and value."""
    path = recipe_path(name_or_path)
    try:
        data = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"recipe {path}: not YAML: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError(
            f"recipe {path}: expected a mapping of sections, found {type(data).__name__}"
        )
    if seed is not None:
        data["seed"] = seed
    return parse_recipe(data, str(path))


def parse_recipe(data: dict[str, Any], origin: str) -> Recipe:
    """Check a recipe that has been read; `origin` is named in errors."""
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"recipe {origin}:\n" + describe_faults(error)) from error


def describe_faults(error: ValidationError) -> str:
    """One line a fault: the field, the value received, what is allowed."""
    lines = []
    for fault in error.errors():
        field = ".".join(str(part) for part in fault["loc"])
        value = repr(fault["input"])
        if fault["type"] == "extra_forbidden":
            lines.append(
                f"  {field}: unknown key (value {value:.60}); remove it or fix its spelling"
            )
        elif fault["type"] == "missing":
            lines.append(f"  {field}: missing; add it")
        else:
            lines.append(f"  {field}: {fault['msg']} (received {value:.60})")
    return "\n".join(lines)
