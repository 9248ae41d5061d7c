"""Failures of the last generation choose part of the next batch (§3.3.4).

The last evaluation says how often production fails, and in which way; the logged answers show on
which prompts. Part of a batch is drawn from those prompts, each way of failing in proportion to
its rate plus its rise over the version before: a rate alone would never notice a new failure that
is still rare. The paper gives no formula: this one is ours.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flywheel_core.evaluation.features import FEATURES, feature_values
from flywheel_core.evaluation.judging import Judge

DETAILS_FILE = "details.json"
ROUNDING = 1e-9  # a share that is 60 prompts but for float's last digit is 60, not 59


@dataclass(frozen=True)
class FailureMode:
    """A way to fail: a judged metric of Table 4, or a binary artifact feature, and which of its
    values is the failure. A feature that is what rules see of a judged failure names it in
    `instead_of`: it counts only where there is no judge, or the failure would count twice."""

    metric: str
    fails_when: bool = True
    instead_of: str | None = None

    @property
    def name(self) -> str:
        return self.metric if self.fails_when else f"not_{self.metric}"


FAILURE_MODES = (
    FailureMode("false_refusal"),
    FailureMode("instruction_violation"),
    FailureMode("preachy"),
    FailureMode("templated"),
    FailureMode("wall_of_text"),
    FailureMode("language_match", fails_when=False),
    FailureMode("cooperative", fails_when=False),
    FailureMode("templated_share", instead_of="templated"),
    FailureMode("wall_of_text_share", instead_of="wall_of_text"),
    FailureMode("markdown_broken_share"),
    FailureMode("repeats_history_share"),
)
"""Judged failures first, then those that rules find without a judge."""


def failure_weights(evaluated: Path) -> dict[str, float]:
    """Weight by failure mode from the evaluation that the folder holds: the candidate's rate plus
    its rise over the production model of that time. Empty where nothing was evaluated, as on the
    first generation."""
    path = evaluated / DETAILS_FILE
    if not path.is_file():
        return {}
    details = json.loads(path.read_text())
    candidate, production = (_rates(details, side) for side in ("candidate", "production"))
    return {
        mode.name: candidate[mode.name]
        + max(0.0, candidate[mode.name] - production.get(mode.name, candidate[mode.name]))
        for mode in FAILURE_MODES
        if candidate.get(mode.name)
    }


def _rates(details: Mapping[str, Any], side: str) -> dict[str, float]:
    judged, features = (details.get(name, {}).get(side, {}) for name in ("judged", "features"))
    shares = {**features, **judged}
    return {
        mode.name: shares[mode.metric] if mode.fails_when else 1 - shares[mode.metric]
        for mode in FAILURE_MODES
        if mode.metric in shares and mode.instead_of not in shares
    }


def failing_rows(rows: Sequence[Mapping[str, Any]], judge: Judge) -> dict[str, list[int]]:
    """Indices of the prompts that production's logged `response` fails on, by failure mode."""
    responses = [row["response"] for row in rows]
    judged = judge.judge(rows, responses).metrics if rows else {}
    histories = [row["messages"] for row in rows]
    found = {}
    for mode in FAILURE_MODES:
        if mode.metric in judged:
            values: Sequence[bool] = judged[mode.metric]
        elif mode.metric in FEATURES:
            measured = feature_values(FEATURES[mode.metric], responses, histories)
            values = [bool(value) for value in measured]
        else:
            continue
        found[mode.name] = [i for i, value in enumerate(values) if value == mode.fails_when]
    return found


@dataclass(frozen=True)
class Batch:
    """Which prompts are annotated: indices in order, and how many each failure mode chose."""

    indices: list[int]
    targeted: Counter[str]


def choose_batch(
    num_rows: int,
    batch_size: int,
    targeted_share: float,
    weights: Mapping[str, float],
    failing: Mapping[str, Sequence[int]],
    seed: int,
) -> Batch:
    """`batch_size` of the prompts: up to `targeted_share` of them by failure mode, the rest drawn
    evenly, so that no failure can take the whole batch. Fewer failing prompts than wanted leave
    their places to the rest."""
    rng = np.random.default_rng(seed)
    size = min(batch_size, num_rows)
    total = sum(weights.get(name, 0.0) for name in failing)
    chosen: set[int] = set()
    targeted: Counter[str] = Counter()
    for name in sorted(failing):
        weight = weights.get(name, 0.0)
        share = targeted_share * weight / total if total else 0.0
        wanted = int(size * share + ROUNDING)
        pool = [index for index in failing[name] if index not in chosen]
        taken = rng.permutation(np.array(pool, dtype=np.int64))[:wanted].tolist()
        chosen |= set(taken)
        targeted[name] += len(taken)
    rest = [index for index in rng.permutation(num_rows).tolist() if index not in chosen]
    chosen |= set(rest[: size - len(chosen)])
    return Batch(sorted(chosen), +targeted)
