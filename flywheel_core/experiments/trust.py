"""Whether an experiment may be read at all, and what many comparisons may say."""

from collections.abc import Mapping, Sequence

import numpy as np
from pydantic import ConfigDict

from flywheel_core.artifacts import Record
from flywheel_core.errors import ConfigError
from flywheel_core.experiments.logs import Arm

STOP_BELOW_P = 0.001
"""Sample ratios this unlikely stop the read (Fabijan et al. 2019; paper silent)."""


class SampleRatio(Record):
    """The users found in each arm against the planned shares, Pearson's χ² with one degree."""

    model_config = ConfigDict(allow_inf_nan=False)

    num_test: int
    num_control: int
    expected_test_share: float
    chi2: float
    p_value: float
    stops_the_read: bool


def check_sample_ratio(
    num_test: int, num_control: int, *, test_share: float, control_share: float
) -> SampleRatio:
    """Compare with the planned shares of all users; p below `STOP_BELOW_P` stops the read: users
    are lost in one arm, and whoever is lost is not like the others."""
    if not (test_share > 0 and control_share > 0):
        raise ConfigError(f"shares {test_share!r} and {control_share!r}: both must be above 0")
    if num_test < 0 or num_control < 0 or num_test + num_control == 0:
        raise ConfigError(f"users {num_test} and {num_control}: at least one must have been seen")
    from scipy.stats import chisquare

    total = num_test + num_control
    expected = test_share / (test_share + control_share)
    found = chisquare([num_test, num_control], [total * expected, total * (1 - expected)])
    return SampleRatio(
        num_test=num_test,
        num_control=num_control,
        expected_test_share=expected,
        chi2=float(found.statistic),
        p_value=float(found.pvalue),
        stops_the_read=bool(found.pvalue < STOP_BELOW_P),
    )


def unbalanced_bots(num_bots: Mapping[Arm, int], users: SampleRatio) -> str | None:
    """Why the users left out as programs forbid the read, or None. Who is one is seen after the
    exposure, so leaving them out is sound only while the arms lose equal shares: Pearson's χ² on
    programs and others by arm; where a cell expects fewer than 5, Fisher's exact test."""
    test, control = num_bots["test"], num_bots["control"]
    if test + control == 0:
        return None
    from scipy.stats import chi2_contingency, fisher_exact

    table = [[test, users.num_test - test], [control, users.num_control - control]]
    found = chi2_contingency(table, correction=False)
    p_value = float(found.pvalue)
    if found.expected_freq.min() < 5:
        p_value = float(fisher_exact(table).pvalue)
    if p_value >= STOP_BELOW_P:
        return None
    return (
        f"programs: {test:,} of {users.num_test:,} test and {control:,} of "
        f"{users.num_control:,} control users were left out (p = {p_value:.1g}); what leaves "
        "users out moves with the arm, raise max_sends_per_day or find why"
    )


def benjamini_hochberg(p_values: Sequence[float], rate: float = 0.05) -> list[bool]:
    """Which of the exploratory comparisons stand at this false discovery rate (Benjamini and
    Hochberg 1995). Never applied to guardrails: missing a harm costs more than a false alarm."""
    values = np.asarray(p_values, dtype=np.float64)
    if values.size == 0:
        return []
    if not ((values >= 0) & (values <= 1)).all():
        raise ConfigError("p values: each must lie in 0..1; find which test gave none")
    from statsmodels.stats.multitest import multipletests

    return [bool(one) for one in multipletests(values, alpha=rate, method="fdr_bh")[0]]
