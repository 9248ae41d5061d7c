"""The true effect of a candidate, where the hidden utility is known: in the simulated world.

No stage that trains or selects may read it. It stands in the report beside the reward models'
belief, because a simulation's one advantage is that the truth can be looked up.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from flywheel_core.errors import InputDataError
from flywheel_core.evaluation.comparison import tally
from flywheel_core.evaluation.statistics import (
    Interval,
    mean_interval,
    paired_difference,
    win_rate_interval,
)


def true_effect(
    rows: Sequence[Mapping[str, Any]], production: Sequence[str], candidate: Sequence[str]
) -> dict[str, Interval] | None:
    """Mean hidden utility of both models on the same prompts, their difference, and the true win
    rate, each with a 95 % interval; None where the prompts are not the world's."""
    from flywheel_core.world.contexts import context_of
    from flywheel_core.world.utility import utility

    try:
        contexts = [context_of(row["messages"], row["character_id"]) for row in rows]
    except InputDataError:
        return None
    old, new = utility(contexts, production), utility(contexts, candidate)
    counts = tally(new, old)
    return {
        "production": mean_interval(old),
        "candidate": mean_interval(new),
        "difference": paired_difference(new, old),
        "win_rate": win_rate_interval(counts.wins, counts.ties, counts.losses),
    }
