"""Which artifact features stand out: chosen against rejected, accepted against rejected (§2.4.4).

Both comparisons are made within a prompt: the preferred response against the other one, or the
accepted sample against the mean of the samples it was accepted from. So a prompt is the unit, and
what prompts differ in cancels. A feature is *flagged* where its difference is unlikely to be
chance, over all features tested at once (Benjamini-Hochberg), and large enough to matter.

Tests and thresholds are ours; the paper compares prevalence and distributions and names no test.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from flywheel_core.annotation.section import PrevalenceSection
from flywheel_core.evaluation.features import FEATURES, Feature, FeatureKind, feature_values
from flywheel_core.records import Message

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class FeatureComparison:
    """One feature on two sides of `num_prompts` prompts.

    `effect_size` is Cohen's h for a binary feature (difference of arcsine-transformed shares) and
    Cohen's d for a real one (difference over the pooled SD). `p_value` is exact McNemar's where
    both sides are binary, Wilcoxon's signed-rank otherwise; `q_value` is adjusted for the number
    of features (Benjamini & Hochberg 1995). Positive means more on the first side.
    """

    feature: str
    kind: FeatureKind
    num_prompts: int
    first_mean: float
    second_mean: float
    effect_size: float | None
    p_value: float
    q_value: float
    flagged: bool

    @property
    def difference(self) -> float:
        return self.first_mean - self.second_mean


@dataclass(frozen=True)
class Compared:
    """The responses of one prompt: one on the first side, one or more on the second."""

    messages: Sequence[Message]
    first: str
    second: Sequence[str]


def compare_features(
    prompts: Sequence[Compared],
    config: PrevalenceSection | None = None,
    features: Mapping[str, Feature] = FEATURES,
) -> list[FeatureComparison]:
    """Every feature on both sides, flagged or not; nothing where there is no prompt."""
    config = config or PrevalenceSection()
    if not prompts:
        return []
    measured = {name: _sides(feature, prompts) for name, feature in sorted(features.items())}
    p_values = [paired_p_value(*sides) for sides in measured.values()]
    q_values = benjamini_hochberg(p_values)
    return [
        _comparison(features[name], sides, p, q, config)
        for (name, sides), p, q in zip(measured.items(), p_values, q_values, strict=True)
    ]


def compare_chosen(
    rows: Sequence[Mapping[str, Any]], config: PrevalenceSection | None = None
) -> list[FeatureComparison]:
    """Chosen against rejected, from rows of `records.PAIRS`; a tie has neither and is left out."""
    prompts = [
        Compared(row["messages"], row[f"response_{chosen}"], [row[f"response_{1 - chosen}"]])
        for row in rows
        if row["target"] != 0.5
        for chosen in ((0,) if row["target"] > 0.5 else (1,))
    ]
    return compare_features(prompts, config)


def compare_accepted(
    histories: Sequence[Sequence[Message]],
    candidates: Sequence[Sequence[str]],
    accepted: Collection[tuple[int, int]],
    config: PrevalenceSection | None = None,
) -> list[FeatureComparison]:
    """Accepted samples against the others of their prompt, from rejection sampling.

    `candidates` are the samples of each prompt, `accepted` pairs of prompt and sample number. A
    prompt of which nothing, or everything, was accepted compares nothing.
    """
    prompts = [
        Compared(histories[row], candidates[row][column], others)
        for row, column in sorted(accepted)
        if (
            others := [
                text for number, text in enumerate(candidates[row]) if (row, number) not in accepted
            ]
        )
    ]
    return compare_features(prompts, config)


def summarise_comparisons(found: Sequence[FeatureComparison]) -> dict[str, dict[str, Any]]:
    """For a manifest: by feature, both means, the effect, the adjusted p value and the flag."""
    return {
        one.feature: {
            "first_mean": one.first_mean,
            "second_mean": one.second_mean,
            "effect_size": one.effect_size,
            "q_value": one.q_value,
            "num_prompts": one.num_prompts,
            "flagged": one.flagged,
        }
        for one in found
    }


def _sides(feature: Feature, prompts: Sequence[Compared]) -> tuple[FloatArray, FloatArray]:
    """First and second side, [num_prompts] each; the second is a mean over its responses."""
    histories = [one.messages for one in prompts]
    first = feature_values(feature, [one.first for one in prompts], histories)
    second = [
        feature_values(feature, one.second, [one.messages] * len(one.second)).mean()
        for one in prompts
    ]
    return first, np.array(second, dtype=np.float64)


def _comparison(
    feature: Feature,
    sides: tuple[FloatArray, FloatArray],
    p_value: float,
    q_value: float,
    config: PrevalenceSection,
) -> FeatureComparison:
    first, second = sides
    measure = cohens_h if feature.kind == "binary" else cohens_d
    effect = measure(first, second)
    large = effect is None or abs(effect) >= config.effect_size_min
    flagged = q_value <= config.false_discovery_rate and large
    return FeatureComparison(
        feature=feature.name,
        kind=feature.kind,
        num_prompts=len(first),
        first_mean=float(first.mean()),
        second_mean=float(second.mean()),
        effect_size=effect,
        p_value=p_value,
        q_value=q_value,
        flagged=bool(flagged),
    )


def cohens_h(first: FloatArray, second: FloatArray) -> float:
    """2·asin√p₁ − 2·asin√p₂ of two shares (Cohen 1988, chapter 6)."""
    shares = (float(first.mean()), float(second.mean()))
    high, low = (2 * math.asin(math.sqrt(share)) for share in shares)
    return high - low


def cohens_d(first: FloatArray, second: FloatArray) -> float | None:
    """Difference of means over the root mean of both variances; null where neither side varies
    and yet they differ, 0 where they do not differ."""
    difference = float(first.mean() - second.mean())
    if difference == 0:
        return 0.0
    if len(first) < 2:
        return None
    pooled = math.sqrt((float(first.var(ddof=1)) + float(second.var(ddof=1))) / 2)
    return difference / pooled if pooled else None


def paired_p_value(first: FloatArray, second: FloatArray) -> float:
    """Two-sided: exact McNemar for two binary sides, Wilcoxon's signed-rank otherwise.

    Prompts without a difference say nothing; with none that differs, the p value is 1.
    """
    difference = first - second
    differing = difference[difference != 0]
    if not differing.size:
        return 1.0
    if np.isin(first, (0.0, 1.0)).all() and np.isin(second, (0.0, 1.0)).all():
        from scipy.stats import binomtest

        return float(binomtest(int((differing > 0).sum()), differing.size, 0.5).pvalue)
    from scipy.stats import wilcoxon

    return float(wilcoxon(differing).pvalue)


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Adjusted p values: those at most α have a false discovery rate of at most α."""
    from statsmodels.stats.multitest import multipletests

    return [float(q) for q in multipletests(list(p_values), method="fdr_bh")[1]]
