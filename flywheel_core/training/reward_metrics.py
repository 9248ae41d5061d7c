"""How well a reward model does on rows it has not seen; light, without torch.

Logits are raw; targets are shares of votes or labels, in [0, 1]. `None` means that the rows do
not say (no decided pair, one class only).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flywheel_core.rewards.ledger import correctness

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def pair_report(logits: Floats, targets: Floats, consensus: Bools) -> dict[str, Any]:
    """Of pairs [n]: accuracy on unanimous pairs and on all decided ones, log loss of all. A tied
    score counts one half, as in the ledger.

    `logits` are for the first response against the second. `consensus` marks the pairs on which
    three annotators agree (§3.4.1); a target of 0 or 1 does not say so: it may be one person's
    review, or an adjudicated split.
    """
    decided = targets != 0.5
    right = correctness(logits, targets > 0.5)
    return {
        "accuracy": _mean(right[decided]),
        "accuracy_unanimous": _mean(right[consensus]),
        "decided_rows": int(decided.sum()),
        "unanimous_rows": int(consensus.sum()),
        "log_loss": log_loss(logits, targets),
    }


def two_order_report(logits: Floats, targets: Floats, consensus: Bools) -> dict[str, Any]:
    """Of pairs shown in both orders [2n], one after the other: the mean of both, as inference
    takes it (§2.3), and how far the model prefers the first position, as a logit."""
    first, second = logits[0::2], logits[1::2]
    report = pair_report((first - second) / 2, targets[0::2], consensus[0::2])
    return report | {"position_bias_logit": _mean((first + second) / 2)}


def signal_report(logits: Floats, labels: Floats) -> dict[str, Any]:
    """Of labelled rows [n]: area under the ROC curve, calibration error, log loss, base rate."""
    return {
        "auc": area_under_curve(logits, labels),
        "ece": calibration_error(logits, labels),
        "log_loss": log_loss(logits, labels),
        "base_rate": _mean(labels),
    }


def log_loss(logits: Floats, targets: Floats) -> float | None:
    """Mean cross-entropy in nats; a target may be soft."""
    return _mean(np.logaddexp(0, logits) - targets * logits)


def area_under_curve(logits: Floats, labels: Floats) -> float | None:
    """Chance that a positive row scores above a negative one; ties count one half."""
    positive = labels > 0.5
    num_positive, num_negative = int(positive.sum()), int((~positive).sum())
    if not num_positive or not num_negative:
        return None
    _, group, counts = np.unique(logits, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[group]
    above = float(ranks[positive].sum()) - num_positive * (num_positive + 1) / 2
    return above / (num_positive * num_negative)


@dataclass(frozen=True)
class ReliabilityBin:
    """Rows whose predicted probability lies in [lower, upper): their mean prediction, and the
    share that was positive."""

    lower: float
    upper: float
    count: int
    mean_predicted: float
    observed: float


def reliability(logits: Floats, labels: Floats, num_bins: int = 10) -> list[ReliabilityBin]:
    """The reliability diagram: equal-width bins of the predicted probability, empty ones left
    out."""
    chances = sigmoid(logits)
    index = np.minimum((chances * num_bins).astype(int), num_bins - 1)
    return [
        ReliabilityBin(
            lower=number / num_bins,
            upper=(number + 1) / num_bins,
            count=int((index == number).sum()),
            mean_predicted=float(chances[index == number].mean()),
            observed=float(labels[index == number].mean()),
        )
        for number in sorted(set(index.tolist()))
    ]


def calibration_error(logits: Floats, labels: Floats, num_bins: int = 10) -> float | None:
    """Expected calibration error: Σ_b (n_b / n) · |positive share − mean prediction|, over
    `reliability`'s bins (Naeini et al. 2015; Guo et al. 2017)."""
    bins = reliability(logits, labels, num_bins)
    if not bins:
        return None
    gaps = (one.count * abs(one.observed - one.mean_predicted) for one in bins)
    return float(sum(gaps) / len(logits))


def sigmoid(logits: Floats) -> Floats:
    """1 / (1 + e^−z), without overflow."""
    half: Floats = 0.5 * (1.0 + np.tanh(0.5 * np.asarray(logits, dtype=np.float64)))
    return half


def _mean(values: NDArray[Any]) -> float | None:
    return float(values.mean()) if len(values) else None
