"""The four biases of user signals (§3.5.5), measured on held-out logged turns.

For each bias two things are told apart: whether the *labels* have it (users do it), and whether
the *model* has learnt it. Rows with a cue are compared with rows without, twice:

- plainly: the difference of positive shares (Newcombe's interval) and of mean predictions;
- at equal quality, where a preference model has scored the rows: the cue's coefficient beside the
  preference score, in log-odds, by logistic regression for the labels and least squares for the
  model's logits. A clarifying question that is liked and yet earns no thumb shows only here.

They are associations in logged traffic, not effects of a cue; the paper gives no numbers to
compare them with.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from flywheel_core.artifacts import Record
from flywheel_core.evaluation.statistics import (
    Interval,
    difference_of_intervals,
    mean_interval,
    proportion_difference,
    wilson_interval,
)
from flywheel_core.rewards.cues import clarifies, flatters, is_ending, prior_sentiment
from flywheel_core.training.reward_metrics import area_under_curve, sigmoid

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

SIDE_ROWS_MIN = 20
"""Rows a side needs before a difference is worth an interval."""

Direction = Literal["higher", "lower", "not shown", "too few rows"]


class Gap(Record):
    """Rows with a cue against rows without: the difference of their positive shares (`observed`)
    and of the model's mean predicted probability (`predicted`); the same at equal preference
    score, in log-odds (`observed_adjusted`, `predicted_adjusted`)."""

    num_with: int
    num_without: int
    observed: Interval | None = None
    predicted: Interval | None = None
    observed_adjusted: Interval | None = None
    predicted_adjusted: Interval | None = None

    @property
    def in_labels(self) -> Direction:
        return _direction(self.observed)

    @property
    def in_model(self) -> Direction:
        return _direction(self.predicted)

    @property
    def in_labels_adjusted(self) -> Direction:
        return _direction(self.observed_adjusted)

    @property
    def in_model_adjusted(self) -> Direction:
        return _direction(self.predicted_adjusted)


class JtbdRate(Record):
    """One job's positive share (Wilson) and mean predicted probability."""

    jtbd: str
    num_rows: int
    observed: Interval
    mean_predicted: float


class JtbdBias(Record):
    """Whether the model detects the job instead of the quality.

    `p_value` is the chi-square test that all jobs share one positive rate. `auc_of_jtbd` ranks
    rows by the positive share of their job in the *training* rows alone; `auc_within` compares
    only rows of the same job (pairs of a positive and a negative, pooled), so a model that only
    detects jobs has 0.5 there however high `auc` is.
    """

    rates: tuple[JtbdRate, ...]
    p_value: float | None
    auc: float | None
    auc_within: float | None
    auc_of_jtbd: float | None


class SignalBiases(Record):
    """§3.5.5 for one signal.

    `delayed`: responses that ask back; `length_correlation` is Spearman's, of logit and words.
    `ending`: turns in which the user takes leave; `flattery`: responses that praise the user.
    `prior_sentiment`: pleased turns against displeased ones; `auc_within_sentiment` as in
    `JtbdBias`.
    """

    signal: str
    num_rows: int
    delayed: Gap
    length_correlation: float | None
    ending: Gap
    flattery: Gap
    jtbd: JtbdBias
    prior_sentiment: Gap
    auc_within_sentiment: float | None


def measure_biases(
    signal: str,
    rows: Sequence[Mapping[str, Any]],
    logits: Floats,
    labels: Floats,
    training_rates: Mapping[str, float],
    quality: Floats | None = None,
) -> SignalBiases:
    """Measure on held-out rows: `messages`, `response`, `jtbd` each; logits and labels [n].

    `training_rates` is each job's positive share among the rows the model was trained on;
    `quality` a preference model's scores of the same rows [n].
    """
    measured = _Measured(np.asarray(logits, dtype=np.float64), labels, quality)
    chances = measured.chances
    responses = [row["response"] for row in rows]
    sentiment = prior_sentiment(rows)
    pleased, displeased = sentiment > 0, sentiment < 0
    asks = clarifies(responses)
    leaves, praises = is_ending(rows), flatters(responses)
    return SignalBiases(
        signal=signal,
        num_rows=len(rows),
        delayed=_gap(asks, ~asks, measured),
        length_correlation=_rank_correlation(
            logits, np.array([len(text.split()) for text in responses], dtype=np.float64)
        ),
        ending=_gap(leaves, ~leaves, measured),
        flattery=_gap(praises, ~praises, measured),
        jtbd=_jtbd_bias(rows, logits, labels, chances, training_rates),
        prior_sentiment=_gap(pleased, displeased, measured),
        auc_within_sentiment=auc_within(logits, labels, [int(value) for value in sentiment]),
    )


def auc_within(logits: Floats, labels: Floats, groups: Sequence[Any]) -> float | None:
    """Chance that a positive row scores above a negative one *of its own group*, ties one half."""
    keys = np.asarray(groups, dtype=object)
    above, pairs = 0.0, 0
    for key in sorted(set(groups), key=str):
        member = keys == key
        auc = area_under_curve(logits[member], labels[member])
        if auc is not None:
            positive = int((labels[member] > 0.5).sum())
            count = positive * (int(member.sum()) - positive)
            above, pairs = above + auc * count, pairs + count
    return above / pairs if pairs else None


@dataclass(frozen=True)
class _Measured:
    """The columns every gap is taken of [n]."""

    logits: Floats
    labels: Floats
    quality: Floats | None

    @property
    def chances(self) -> Floats:
        return sigmoid(self.logits)


def _gap(side: Bools, other: Bools, measured: _Measured) -> Gap:
    with_cue, without = int(side.sum()), int(other.sum())
    if min(with_cue, without) < SIDE_ROWS_MIN:
        return Gap(num_with=with_cue, num_without=without)
    labels, chances = measured.labels, measured.chances
    return Gap(
        num_with=with_cue,
        num_without=without,
        observed=proportion_difference(
            float(labels[side].sum()), with_cue, float(labels[other].sum()), without
        ),
        predicted=difference_of_intervals(
            mean_interval(chances[side]), mean_interval(chances[other])
        ),
        observed_adjusted=_coefficient(side, other, measured, of_labels=True),
        predicted_adjusted=_coefficient(side, other, measured, of_labels=False),
    )


def _coefficient(
    side: Bools, other: Bools, measured: _Measured, *, of_labels: bool
) -> Interval | None:
    """Log-odds of the cue beside the standardised preference score; None where it cannot be had:
    no score, or labels that one side has all alike (the logistic estimate is then infinite)."""
    taken = side | other
    quality = measured.quality
    if quality is None or np.ptp(quality[taken]) == 0:
        return None
    labels = measured.labels
    if of_labels and any(np.ptp(labels[rows]) == 0 for rows in (side, other)):
        return None
    import statsmodels.api as sm

    score = (quality[taken] - quality[taken].mean()) / quality[taken].std()
    design = np.column_stack([np.ones(int(taken.sum())), side[taken].astype(np.float64), score])
    if of_labels:
        fitted = sm.GLM(labels[taken], design, family=sm.families.Binomial()).fit()
    else:
        fitted = sm.OLS(measured.logits[taken], design).fit(cov_type="HC3")
    lower, upper = fitted.conf_int()[1]
    return Interval(estimate=float(fitted.params[1]), lower=float(lower), upper=float(upper))


def _jtbd_bias(
    rows: Sequence[Mapping[str, Any]],
    logits: Floats,
    labels: Floats,
    chances: Floats,
    training_rates: Mapping[str, float],
) -> JtbdBias:
    jobs = [row.get("jtbd") for row in rows]
    known = np.array([job is not None for job in jobs], dtype=bool)
    names = sorted({job for job in jobs if job is not None})
    column = np.asarray(jobs, dtype=object)
    rates = tuple(
        JtbdRate(
            jtbd=name,
            num_rows=int((column == name).sum()),
            observed=wilson_interval(
                float(labels[column == name].sum()), float((column == name).sum())
            ),
            mean_predicted=float(chances[column == name].mean()),
        )
        for name in names
    )
    by_job = np.array([training_rates.get(str(job), 0.0) for job in jobs], dtype=np.float64)
    return JtbdBias(
        rates=rates,
        p_value=_same_rate_p_value(rates),
        auc=area_under_curve(logits, labels),
        auc_within=auc_within(
            logits[known], labels[known], [job for job in jobs if job is not None]
        ),
        auc_of_jtbd=area_under_curve(by_job[known], labels[known]) if len(names) > 1 else None,
    )


def _same_rate_p_value(rates: Sequence[JtbdRate]) -> float | None:
    """Chi-square test of one rate for all jobs; None where a job is too small or nobody reacted."""
    big = [rate for rate in rates if rate.num_rows >= SIDE_ROWS_MIN]
    positives = [round(rate.observed.estimate * rate.num_rows) for rate in big]
    total = sum(rate.num_rows for rate in big)
    if len(big) < 2 or not 0 < sum(positives) < total:
        return None
    from scipy.stats import chi2_contingency

    table = [[count, rate.num_rows - count] for count, rate in zip(positives, big, strict=True)]
    return float(chi2_contingency(table).pvalue)


def _rank_correlation(first: Floats, second: Floats) -> float | None:
    if len(first) < SIDE_ROWS_MIN or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    from scipy.stats import spearmanr

    return float(spearmanr(first, second).statistic)


def _direction(interval: Interval | None) -> Direction:
    if interval is None:
        return "too few rows"
    if not interval.excludes_zero:
        return "not shown"
    return "higher" if interval.lower > 0 else "lower"
