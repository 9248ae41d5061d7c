"""A control arm in which nothing at all was counted: no lift, but still a direction and a harm."""

from pathlib import Path

import pytest
from ab_samples import Logs, clean_logs, event, exposure

from flywheel_core.experiments.analyze import analyze
from flywheel_core.experiments.config import GuardrailConfig, ReadoutConfig
from flywheel_core.experiments.fieller import fieller_set, is_rejected
from flywheel_core.experiments.readout import Readout

CONFIG = ReadoutConfig(guardrails=(GuardrailConfig(column="reports"),))


def read(logs: Logs, folder: Path, config: ReadoutConfig = CONFIG) -> Readout:
    return analyze(*logs.write(folder), config)


def reported(num_events: int) -> Logs:
    """800 users; only test reports, `num_events` times on the first day."""
    logs = clean_logs(800)
    for row in logs.events:
        row["reports"] = 0
    in_test = [row for row in logs.events if int(row["user_id"][1:]) % 2]
    for row in sorted(in_test, key=lambda one: one["at"])[:num_events]:
        row["reports"] = 1
    return logs


@pytest.mark.parametrize("ratio", [-3.0, 0.0, 1.0, 1e6])
@pytest.mark.parametrize(("mean", "kind"), [(1.9, "whole"), (2.0, "empty"), (-2.0, "empty")])
def test_over_a_control_of_nothing_the_set_is_all_or_none(
    mean: float, kind: str, ratio: float
) -> None:
    found = fieller_set(mean, 1.0, 0.0, 0.0)
    assert found.kind == kind
    assert found.contains(ratio) == (not is_rejected(ratio, mean, 1.0, 0.0, 0.0))
    assert found.contains(ratio) == (abs(mean) <= 1.959964)  # |a - r b| <= z sqrt(Va + r² Vb)


def test_a_harm_that_control_never_saw_is_a_loss_on_every_day(tmp_path: Path) -> None:
    found = read(reported(400), tmp_path)
    assert [day.losses for day in found.days] == [("reports",)] * 7
    guardrail = found.newest.guardrails["reports"]
    assert guardrail.lift is not None
    assert (guardrail.lift.kind, guardrail.lift.estimate_pct) == ("empty", None)
    assert (guardrail.direction, guardrail.minimum_detectable_lift_pct) == (1, None)
    assert "control has none at all" in guardrail.lift.text()


def test_two_cases_that_control_never_saw_prove_nothing(tmp_path: Path) -> None:
    guardrail = read(reported(2), tmp_path).newest.guardrails["reports"]
    assert guardrail.lift is not None
    assert (guardrail.lift.kind, guardrail.lift.significant) == ("whole", False)
    assert not guardrail.loss


def test_a_locale_whose_control_was_idle_does_not_hide_the_others(tmp_path: Path) -> None:
    logs = clean_logs(400)
    for index in range(6):
        arm = "test" if index % 2 else "control"
        logs.exposures.append(exposure(f"r{index}", arm, 0.1, locale="is_IS"))
        if arm == "test":
            for day in range(index, 7):
                logs.events.append(event(f"r{index}", day + 0.5, 9_000 + 10 * index + day, 3))
    found = read(logs, tmp_path)
    mine = {one.value: one for one in found.exploratory if one.metric == "breadth"}
    assert {"en_US", "es_MX", "is_IS"} <= set(mine)
    assert mine["is_IS"].lift.estimate_pct is None
    assert mine["en_US"].lift.estimate_pct is not None


def test_too_many_programs_stop_the_read(tmp_path: Path) -> None:
    """Left out in equal shares, they would leave a few unlike users for everybody."""
    newest = read(clean_logs(400), tmp_path, ReadoutConfig(max_sends_per_day=1)).newest
    assert (newest.status, newest.metrics) == ("stopped", {})
    assert "sent more than 1 on some day, more than 5 %" in newest.reason
