"""A day that is missing, in whole or in part, is broken and never read as a flat one."""

from pathlib import Path

import numpy as np
import pytest
from ab_samples import FIRST, Logs, clean_logs, exposure, met_every_day

from flywheel_core.experiments.analyze import analyze
from flywheel_core.experiments.config import ReadoutConfig
from flywheel_core.experiments.readout import Readout

CONFIG = ReadoutConfig()


def read(logs: Logs, folder: Path) -> Readout:
    return analyze(*logs.write(folder), CONFIG)


def test_a_day_of_events_missing_in_the_middle_is_broken_not_flat(tmp_path: Path) -> None:
    logs = clean_logs()
    logs.events = [row for row in logs.events if row["at"].day != FIRST.day + 3]
    found = read(logs, tmp_path)
    assert [day.status for day in found.days] == ["ok"] * 3 + ["insufficient"] * 4
    assert "events of 2026-01-08 are missing" in found.newest.reason
    assert found.newest.metrics == {}
    assert "cannot be read" in found.sentence


def test_a_day_of_exposures_missing_in_the_middle_is_broken(tmp_path: Path) -> None:
    logs = clean_logs()
    logs.exposures += [exposure(f"n{n}", "test" if n % 2 else "control", 4.1) for n in range(10)]
    found = read(logs, tmp_path)
    assert found.days[3].status == "ok"  # nobody new was exposed by then
    assert found.newest.status == "insufficient"
    assert "exposures of 2026-01-06 are missing" in found.newest.reason


def test_a_day_that_one_arm_lost_is_broken(tmp_path: Path) -> None:
    logs = clean_logs()
    logs.events = [
        row
        for row in logs.events
        if row["at"].day != FIRST.day + 2 or int(row["user_id"][1:]) % 2 == 0
    ]
    newest = read(logs, tmp_path).newest
    assert newest.status == "insufficient"
    assert "the test arm has no event on 2026-01-07" in newest.reason


def test_a_day_that_should_be_there_and_is_not_is_broken(tmp_path: Path) -> None:
    logs = clean_logs(num_days=4)
    folders = logs.write(tmp_path)
    said = analyze(*folders, CONFIG)
    assert (len(said.days), said.newest.is_last_day) == (4, False)
    asked = CONFIG.model_copy(update={"through": said.days[-1].day.replace(day=9)})
    newest = analyze(*folders, asked).newest
    assert (newest.status, str(newest.day)) == ("insufficient", "2026-01-09")


def thinned(logs: Logs, day: int, arms: tuple[int, ...], share: float) -> Logs:
    """Only this share of the arms' events of a day (1 is test)."""
    rng = np.random.default_rng(4)
    logs.events = [
        row
        for row in logs.events
        if row["at"].day != FIRST.day + day
        or int(row["user_id"][1:]) % 2 not in arms
        or rng.random() < share
    ]
    return logs


@pytest.mark.parametrize(("day", "arms"), [(3, (1,)), (6, (0,)), (1, (1,)), (3, (0, 1))])
def test_a_day_that_was_logged_in_part_is_broken_not_a_loss(
    tmp_path: Path, day: int, arms: tuple[int, ...]
) -> None:
    found = read(thinned(clean_logs(1000), day, arms, 0.03), tmp_path)
    assert [one.status for one in found.days[:day]] == ["ok"] * day
    assert all(one.status == "insufficient" for one in found.days[day:])
    who = "both arms have" if len(arms) == 2 else f"the {('control', 'test')[arms[0]]} arm has"
    assert who in found.newest.reason
    assert f"2026-01-{5 + day:02d}" in found.newest.reason


def test_a_real_loss_is_read_however_large_it_is(tmp_path: Path) -> None:
    """A candidate that costs 70 % of the use, on every day, is a loss from the second day on."""
    found = read(clean_logs(1000, lift=-0.7), tmp_path)
    assert [one.status for one in found.days[1:]] == ["ok"] * 6
    assert found.days[1].losses
    halves = read(thinned(clean_logs(1000), 3, (1,), 0.6), tmp_path / "halves")
    assert halves.newest.status == "ok"  # a day's real dip by 40 % is within the factor


def test_few_users_are_no_proof_of_a_lost_day(tmp_path: Path) -> None:
    for seed in range(8):
        found = read(clean_logs(24, seed=seed), tmp_path / str(seed))
        assert not any("part of that day is lost" in one.reason for one in found.days)


def test_the_last_days_exposures_must_be_there_when_every_other_days_are(tmp_path: Path) -> None:
    logs = met_every_day(clean_logs())
    logs.exposures = [row for row in logs.exposures if row["exposed_at"].day != FIRST.day + 6]
    found = read(logs, tmp_path)
    assert [one.status for one in found.days] == ["ok"] * 6 + ["insufficient"]
    assert "exposures of 2026-01-11 are missing" in found.newest.reason
