"""What the reward-model stage reports of each user-signal model (§2.3.2, Table 2)."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from flywheel_core.rewards.signal_biases import Gap, SignalBiases, measure_biases
from flywheel_core.training.reward_metrics import reliability, signal_report

Floats = npt.NDArray[np.float64]

PREFIX = "signal_"
"""A signal model is named after its column of Table 2: `signal_thumb_up`."""


def report_signal(
    signal: str,
    rows: Sequence[Mapping[str, Any]],
    logits: Floats,
    training_rates: Mapping[str, float],
    quality: Floats | None = None,
) -> dict[str, Any]:
    """AUC, calibration (ECE and its bins) and the four biases on held-out rows.

    `rows` hold `messages`, `response`, `jtbd` and `label`; `quality` is a preference model's
    scores of them. Rows without a score (longer than the engine takes) are counted and left out.
    """
    scored = np.isfinite(logits) if quality is None else np.isfinite(logits) & np.isfinite(quality)
    kept = [row for row, known in zip(rows, scored, strict=True) if known]
    labels = np.array([row["label"] for row in kept], dtype=np.float64)
    found = logits[scored]
    biases = measure_biases(
        signal, kept, found, labels, training_rates, None if quality is None else quality[scored]
    )
    return {
        **signal_report(found, labels),
        "num_rows": len(kept),
        "num_unscored": int((~scored).sum()),
        "ece_definition": "sum over 10 equal-width bins of (rows in bin / rows) * "
        "|positive share - mean predicted probability|",
        "reliability": [asdict(one) for one in reliability(found, labels)],
        "biases": biases.model_dump(mode="json"),
        "summary": summarise(biases),
    }


def base_rates(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Positive share of each job among training rows; rows of no known job are left out."""
    labels: dict[str, list[float]] = {}
    for row in rows:
        if row["jtbd"] is not None:
            labels.setdefault(row["jtbd"], []).append(float(row["label"]))
    return {name: float(np.mean(values)) for name, values in sorted(labels.items())}


def summarise(biases: SignalBiases) -> dict[str, str]:
    """One phrase a bias, for the stage's manifest and a person."""
    rates = [rate.observed.estimate for rate in biases.jtbd.rates]
    spread = f"{min(rates):.2f} to {max(rates):.2f}" if rates else "no jobs known"
    return {
        "delayed": _phrase(biases.delayed),
        "ending": _phrase(biases.ending),
        "flattery": _phrase(biases.flattery),
        "jtbd_base_rates": f"{spread}; AUC {_number(biases.jtbd.auc)}, within a job "
        f"{_number(biases.jtbd.auc_within)}, of the job alone {_number(biases.jtbd.auc_of_jtbd)}",
        "prior_sentiment": _phrase(biases.prior_sentiment),
    }


def _phrase(gap: Gap) -> str:
    if gap.observed is None or gap.predicted is None:
        return f"too few rows ({gap.num_with} with the cue, {gap.num_without} without)"
    said = (
        f"labels {gap.observed.estimate:+.3f} ({gap.in_labels}), "
        f"model {gap.predicted.estimate:+.3f} ({gap.in_model})"
    )
    if gap.observed_adjusted is None or gap.predicted_adjusted is None:
        return said
    return said + (
        f"; at equal preference score, log-odds: labels {gap.observed_adjusted.estimate:+.2f} "
        f"({gap.in_labels_adjusted}), model {gap.predicted_adjusted.estimate:+.2f} "
        f"({gap.in_model_adjusted})"
    )


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}"
