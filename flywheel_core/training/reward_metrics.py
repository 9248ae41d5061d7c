"""How well a reward model does on rows it has not seen; NumPy only.

Logits are raw; targets are shares of votes or labels, in [0, 1]. `None` means that the rows do
not say (no decided pair, one class only).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def pair_report(logits: Floats, targets: Floats) -> dict[str, Any]:
    """Of pairs [n]: accuracy on unanimous pairs (§3.4.1) and on all decided ones, log loss of all.

    `logits` are for the first response against the second.
    """
    unanimous = (targets < 1e-6) | (targets > 1 - 1e-6)
    decided = targets != 0.5
    right = (logits > 0) == (targets > 0.5)
    return {
        "accuracy": _mean(right[decided]),
        "accuracy_unanimous": _mean(right[unanimous]),
        "decided_rows": int(decided.sum()),
        "unanimous_rows": int(unanimous.sum()),
        "log_loss": log_loss(logits, targets),
    }


def two_order_report(logits: Floats, targets: Floats) -> dict[str, Any]:
    """Of pairs shown in both orders [2n], one after the other: the mean of both, as inference
    takes it (§2.3), and how far the model prefers the first position, as a logit."""
    first, second = logits[0::2], logits[1::2]
    report = pair_report((first - second) / 2, targets[0::2])
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


def calibration_error(logits: Floats, labels: Floats, num_bins: int = 10) -> float | None:
    """Expected calibration error over equal-width bins of the predicted probability."""
    if not len(logits):
        return None
    chances = 1 / (1 + np.exp(-logits))
    bins = np.minimum((chances * num_bins).astype(int), num_bins - 1)
    gaps = np.abs(np.bincount(bins, chances - labels, minlength=num_bins))
    return float(gaps.sum() / len(logits))


def _mean(values: NDArray[Any]) -> float | None:
    return float(values.mean()) if len(values) else None
