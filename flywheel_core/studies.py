"""Named departures from the method, and what becomes of what they make. Light.

A study may do what a recipe may not. The price: its artifacts, and everything made from them, are
marked unfit for release, and no gate or promotion lets them through.
"""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

USER_SIGNALS_IN_RL = "user_signals_in_rl"

WHY_NOT_IN_RL = (
    "user-signal models are unsuitable for online RL (§3.5.5): users skip thumbs on clarifying "
    "turns, give them at goodbyes where flattery is common, at rates that differ by job, and for "
    "the turn before, so a policy learns those instead of quality; V12 was lost that way. They "
    "rank rejection samples (rejection_sampling.signal_weights)"
)
WITNESS = (
    "the pairwise model only evaluates (§2.3.1): a policy trained on its scores would take the "
    "independent witness away from the gates"
)


class StudySection(BaseModel):
    """A study: its name, and the departures it makes on purpose."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    allows: tuple[Literal["user_signals_in_rl"], ...] = Field(min_length=1)


def check_rl_rewards(weights: Mapping[str, float], study: StudySection | None) -> None:
    """Refuse (`ValueError`) a reward of online RL that the paper refuses, unless a study names it.

    `weights` is `rl.reward_weights`.
    """
    pairwise = sorted(name for name in weights if name.startswith("pairwise_"))
    if pairwise:
        raise ValueError(f"rl.reward_weights names {', '.join(pairwise)}: {WITNESS}; take it out")
    signals = signals_in(weights)
    if signals and (study is None or USER_SIGNALS_IN_RL not in study.allows):
        raise ValueError(
            f"rl.reward_weights names {', '.join(signals)}: {WHY_NOT_IN_RL}; take it out, or make "
            f"it a study (study: {{name: …, allows: [{USER_SIGNALS_IN_RL}]}}), whose artifacts "
            "are unfit for release"
        )


def signals_in(weights: Mapping[str, float]) -> list[str]:
    """The user-signal models among the names, sorted."""
    return sorted(name for name in weights if name.startswith("signal_"))


def why_unfit(study: StudySection) -> str:
    """The mark that a study's artifacts carry."""
    return f"study {study.name} ({', '.join(study.allows)})"
