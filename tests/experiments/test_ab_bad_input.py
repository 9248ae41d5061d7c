"""Each thing that can be wrong with an experiment's logs is defined, and said."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ab_samples import FIRST, Logs, clean_logs, event, exposure, met_every_day
from scipy.stats import norm
from typer.testing import CliRunner

from flywheel_core.cli import app
from flywheel_core.errors import ConfigError, InputDataError
from flywheel_core.experiments.analyze import analyze
from flywheel_core.experiments.config import GuardrailConfig, ReadoutConfig
from flywheel_core.experiments.lifts import lift_of
from flywheel_core.experiments.readout import Readout

CONFIG = ReadoutConfig()


def read(logs: Logs, folder: Path, config: ReadoutConfig = CONFIG) -> Readout:
    return analyze(*logs.write(folder), config)


def rewrite(folder: Path, change: Any) -> None:
    """Apply `change` to the first file's table."""
    path = sorted(folder.iterdir())[0]
    pq.write_table(change(pq.read_table(path)), path)


def with_column(name: str, values: Any) -> Any:
    def change(table: pa.Table) -> pa.Table:
        return table.set_column(table.column_names.index(name), name, values(table))

    return change


def test_a_missing_arm_is_insufficient(tmp_path: Path) -> None:
    logs = clean_logs()
    logs.exposures = [row for row in logs.exposures if row["arm"] == "control"]
    newest = read(logs, tmp_path).newest
    assert (newest.status, newest.metrics) == ("insufficient", {})
    assert "the test arm has no user" in newest.reason


def test_a_user_in_both_arms_is_left_out_and_counted(tmp_path: Path) -> None:
    logs = met_every_day(clean_logs())
    logs.exposures.append(exposure("u00000", "test", 3.2))
    found = read(logs, tmp_path)
    assert found.days[2].num_in_both_arms == 0
    assert found.newest.num_in_both_arms == found.left_out["users_in_both_arms"] == 1
    assert found.newest.metrics["breadth"].control.num_users == 199


def test_many_users_in_both_arms_stop_the_read(tmp_path: Path) -> None:
    logs = met_every_day(clean_logs())
    logs.exposures += [exposure(f"u{2 * n + 20:05d}", "test", 3.2) for n in range(20)]
    newest = read(logs, tmp_path).newest
    assert newest.status == "stopped"
    assert "20 users (5 %) met both arms" in newest.reason


def test_events_before_exposure_do_not_count(tmp_path: Path) -> None:
    logs = met_every_day(clean_logs())
    plain = read(logs, tmp_path / "plain")
    logs.exposures.append(exposure("late", "test", 5.5))
    logs.events += [event("late", day + 0.2, 10**9 + day, 50) for day in range(5)]
    found = read(logs, tmp_path / "late")
    assert found.left_out["events_before_exposure"] == 5
    totals = [
        one.newest.metrics["depth_per_assigned_user"].test.mean
        * one.newest.metrics["depth_per_assigned_user"].test.num_users
        for one in (plain, found)
    ]
    assert totals[0] == pytest.approx(totals[1])


def test_a_slow_clock_is_forgiven_a_minute_and_counted(tmp_path: Path) -> None:
    logs = Logs()
    for index in range(40):
        user = f"u{index}"
        logs.exposures.append(exposure(user, "test" if index % 2 else "control", 0.5))
        skew_s = 59 if index < 20 else 61
        logs.events.append(event(user, 0.5 - skew_s / 86_400, index, 1 + index % 3))
    found = read(logs, tmp_path)
    assert found.left_out["events_skewed"] == 20
    assert found.left_out["events_before_exposure"] == 20


def test_a_clock_that_is_ahead_does_not_reach_into_the_window(tmp_path: Path) -> None:
    logs = clean_logs(num_days=7)
    logs.events.append(event("u00001", 400.0, 10**9, 999))
    found = read(logs, tmp_path)
    assert found.left_out["events_after_window"] == 1
    assert len(found.days) == 7


def test_duplicate_events_count_once(tmp_path: Path) -> None:
    logs = clean_logs()
    plain = read(logs, tmp_path / "plain")
    logs.events += [dict(row) for row in logs.events]
    twice = read(logs, tmp_path / "twice")
    assert twice.left_out["events_duplicate"] == len(logs.events) / 2
    assert twice.newest == plain.newest


def test_a_bot_with_a_million_events_is_left_out_and_counted(tmp_path: Path) -> None:
    logs = clean_logs()
    folders = logs.write(tmp_path)
    plain = analyze(*folders, CONFIG)
    count = 1_000_000
    at = np.full(count, int(FIRST.timestamp() * 1e6) + 86_400_000_000 // 2) + np.arange(count)
    table = pa.table(
        {
            "user_id": pa.array(["u00001"]).take(pa.array(np.zeros(count, np.int32))),
            "at": pa.array(at).cast(pa.timestamp("us", "UTC")),
            "event_id": pa.array(10**9 + np.arange(count)),
            "sends": pa.array(np.ones(count, np.int64)),
            "reports": pa.array(np.zeros(count, np.int64)),
        }
    )
    pq.write_table(table, folders[1] / "bot.parquet")
    found = analyze(*folders, CONFIG)
    assert found.left_out["bots_test"] == 1
    assert found.newest.num_bots == {"control": 0, "test": 1}
    assert found.newest.sample_ratio.num_test == 200  # the ratio is of who was exposed
    assert found.newest.metrics["depth"].test.num_users == 199
    assert found.newest.metrics["depth"].control == plain.newest.metrics["depth"].control


def test_no_variance_in_both_arms_is_not_read(tmp_path: Path) -> None:
    logs = Logs()
    for index in range(20):
        logs.exposures.append(exposure(f"u{index}", "test" if index % 2 else "control", 0.1))
        logs.events += [event(f"u{index}", day + 0.5, 7 * index + day) for day in range(7)]
    newest = read(logs, tmp_path).newest
    for metric in newest.metrics.values():
        assert metric.lift is None
        assert "a variance of 0 is no evidence" in str(metric.unreadable)


def test_one_user_an_arm_has_no_variance(tmp_path: Path) -> None:
    logs = Logs([exposure("a", "test", 0.1), exposure("b", "control", 0.1)])
    logs.events = [event("a", day + 0.5, day) for day in range(7)]
    logs.events += [event("b", day + 0.5, 10 + day) for day in range(7)]
    breadth = read(logs, tmp_path).newest.metrics["breadth"]
    assert breadth.lift is None
    assert breadth.unreadable == "test: 1 users: a variance needs 2"


def test_nobody_engaged_leaves_depth_undefined(tmp_path: Path) -> None:
    logs = clean_logs()
    for row in logs.events:
        row["sends"] = 0
    newest = read(logs, tmp_path).newest
    assert newest.metrics["depth"].unreadable == "test: nobody engaged: the metric is not defined"
    assert newest.metrics["breadth"].lift is None


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1.5])
def test_sends_that_are_no_numbers_are_refused(tmp_path: Path, bad: float) -> None:
    folders = clean_logs(40).write(tmp_path)
    rewrite(
        folders[1],
        with_column("sends", lambda table: pa.array([bad] + [1.0] * (table.num_rows - 1))),
    )
    with pytest.raises(InputDataError, match=r"'sends' has .* NaN or no whole numbers"):
        analyze(*folders, CONFIG)


def test_numbers_beyond_64_bits_are_refused_but_ids_are_names(tmp_path: Path) -> None:
    folders = clean_logs(40).write(tmp_path)
    plain = analyze(*folders, CONFIG)

    def shifted(table: pa.Table) -> pa.Array:
        ids = table.column("event_id").to_numpy().astype(np.uint64)
        return pa.array(ids + np.uint64(2**63))

    for path in folders[1].iterdir():
        table = pq.read_table(path)
        pq.write_table(with_column("event_id", shifted)(table), path)
    assert analyze(*folders, CONFIG) == plain
    huge = pa.array([2**63], pa.uint64())
    rewrite(
        folders[1],
        with_column("sends", lambda table: huge.take(pa.array(np.zeros(table.num_rows, int)))),
    )
    with pytest.raises(InputDataError, match="'sends' holds numbers beyond 64 bits"):
        analyze(*folders, CONFIG)


def test_negative_sends_are_refused(tmp_path: Path) -> None:
    logs = clean_logs(40)
    logs.events[0]["sends"] = -3
    with pytest.raises(InputDataError, match="'sends' holds -3"):
        read(logs, tmp_path)


@pytest.mark.parametrize(
    ("log", "column"), [("exposures", "arm"), ("exposures", "user_id"), ("events", "at")]
)
def test_empty_cells_where_there_must_be_none(tmp_path: Path, log: str, column: str) -> None:
    logs = clean_logs(40)
    getattr(logs, log)[3][column if column != "at" else "user_id"] = None
    with pytest.raises(InputDataError, match="is empty in 1 rows"):
        read(logs, tmp_path)


def test_another_arm_is_refused(tmp_path: Path) -> None:
    logs = clean_logs(40)
    logs.exposures[0]["arm"] = "treatment_b"
    with pytest.raises(InputDataError, match="arm 'treatment_b'"):
        read(logs, tmp_path)


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    folders = clean_logs(40).write(tmp_path)
    for path in folders[0].iterdir():
        pq.write_table(pq.read_table(path).drop_columns(["exposed_at"]), path)
    with pytest.raises(InputDataError, match="exposures: column 'exposed_at' is missing"):
        analyze(*folders, CONFIG)


def test_an_unknown_column_is_not_read_and_said(tmp_path: Path) -> None:
    folders = clean_logs(40).write(tmp_path)
    for path in folders[0].iterdir():
        table = pq.read_table(path)
        pq.write_table(table.append_column("lokale", table.column("locale")), path)
    found = analyze(*folders, CONFIG)
    assert found.notes[0] == "exposures: column 'lokale' is not known and was not read"


def test_a_guardrail_that_is_not_logged_is_refused(tmp_path: Path) -> None:
    config = ReadoutConfig(guardrails=(GuardrailConfig(column="thumb_down"),))
    with pytest.raises(InputDataError, match="guardrail 'thumb_down': the events have no such"):
        read(clean_logs(40), tmp_path, config)


def test_files_with_different_columns_are_refused(tmp_path: Path) -> None:
    folders = clean_logs(40).write(tmp_path)
    path = sorted(folders[1].iterdir())[2]
    pq.write_table(pq.read_table(path).drop_columns(["sends"]), path)
    with pytest.raises(InputDataError, match="a log has one set of columns"):
        analyze(*folders, CONFIG)


def test_a_time_that_is_text_is_refused(tmp_path: Path) -> None:
    folders = clean_logs(40).write(tmp_path)
    for path in folders[1].iterdir():
        table = pq.read_table(path)
        text = table.column("at").cast(pa.string())
        pq.write_table(table.set_column(1, "at", text), path)
    with pytest.raises(InputDataError, match="'at' is string, must be a timestamp"):
        analyze(*folders, CONFIG)


def test_a_damaged_file_and_an_empty_folder_are_named(tmp_path: Path) -> None:
    folders = clean_logs(40).write(tmp_path)
    path = sorted(folders[1].iterdir())[1]
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputDataError, match=path.name):
        analyze(*folders, CONFIG)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputDataError, match="no Parquet file is there"):
        analyze(tmp_path / "empty", folders[1], CONFIG)


def test_a_window_without_exposures_is_said(tmp_path: Path) -> None:
    config = ReadoutConfig(first_day=FIRST.date().replace(year=2025))
    with pytest.raises(InputDataError, match="no row lies within the window"):
        read(clean_logs(40), tmp_path, config)
    with pytest.raises(ConfigError, match="through 2027-01-05: must lie in the window"):
        read(
            clean_logs(40),
            tmp_path / "through",
            ReadoutConfig(through=FIRST.date().replace(year=2027)),
        )


def test_a_sample_ratio_that_is_off_stops_the_read(tmp_path: Path) -> None:
    logs = clean_logs(1000)
    lost = {f"u{n:05d}" for n in range(1, 400, 2)}
    logs.exposures = [row for row in logs.exposures if row["user_id"] not in lost]
    newest = read(logs, tmp_path).newest
    assert (newest.status, newest.metrics) == ("stopped", {})
    assert "sample ratio: 300 test and 500 control users" in newest.reason
    # With the shares that were planned so, it is fine.
    planned = ReadoutConfig(test_share=0.06, control_share=0.10)
    assert read(logs, tmp_path / "planned", planned).newest.status == "ok"


def test_the_command_line_reads_and_says_why_it_cannot(tmp_path: Path) -> None:
    folders = clean_logs(200).write(tmp_path)
    command = ["ab", "analyze", "--exposures", str(folders[0]), "--events", str(folders[1])]
    done = CliRunner().invoke(app, [*command, "--guardrail", "reports:up", "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["days"][-1]["status"] == "ok"
    assert set(found["days"][-1]["metrics"]["breadth"]["lift"]) == {
        "estimate_pct",
        "kind",
        "lower_pct",
        "upper_pct",
        "significant",
    }
    assert "reports" in found["days"][-1]["guardrails"]
    shown = CliRunner().invoke(app, command)
    assert "engagement breadth" in shown.stdout
    sorted(folders[1].iterdir())[3].unlink()
    broken = CliRunner().invoke(app, [*command, "--json"])
    assert broken.exit_code == 1
    assert json.loads(broken.stdout)["days"][-1]["status"] == "insufficient"
    wrong = CliRunner().invoke(app, [*command, "--guardrail", "event_id:up"])
    assert wrong.exit_code == 1
    assert "has a meaning of its own" in wrong.output


def test_the_command_line_shows_delta_and_bootstrap_on_request(tmp_path: Path) -> None:
    folders = clean_logs(300, lift=0.3).write(tmp_path)
    command = ["ab", "analyze", "--exposures", str(folders[0]), "--events", str(folders[1])]
    plain = CliRunner().invoke(app, command)
    assert "delta method" not in plain.stdout
    shown = CliRunner().invoke(app, [*command, "--delta", "--bootstrap"])
    asked = ReadoutConfig(with_delta=True, with_bootstrap=True)
    found = analyze(*folders, asked).newest.metrics["depth"]
    assert found.delta is not None
    assert found.bootstrap is not None
    said = shown.stdout.replace("\n", " ")
    for name, one in (("delta method", found.delta), ("bootstrap", found.bootstrap)):
        text = f"depth, {name}: {one.estimate:+.2f} % ({one.lower:+.2f} to {one.upper:+.2f})"
        assert text in said


def test_every_flat_lift_has_what_it_could_have_found_beside_it(tmp_path: Path) -> None:
    found = read(clean_logs(400), tmp_path)
    lifts = [*found.newest.metrics.values(), *found.newest.guardrails.values(), *found.exploratory]
    assert len(lifts) > 10
    for one in lifts:
        error = math.hypot(one.test.standard_error, one.control.standard_error)
        expected = 100 * (norm.ppf(0.975) + norm.ppf(0.8)) * error / one.control.mean
        assert one.minimum_detectable_lift_pct == pytest.approx(expected)
    flat = ["ab", "lift", "--test-mean", "10.1", "--test-se", "0.3"]
    flat += ["--control-mean", "10", "--control-se", "0.4"]
    done = CliRunner().invoke(app, flat)
    least = 100 * (norm.ppf(0.975) + norm.ppf(0.8)) * 0.5 / 10
    assert f"not significant; a true lift of {least:.2g} % would have been found" in done.stdout


def test_events_without_ids_are_read_and_said(tmp_path: Path) -> None:
    folders = clean_logs(100).write(tmp_path)
    for path in folders[1].iterdir():
        pq.write_table(pq.read_table(path).drop_columns(["event_id"]), path)
    found = analyze(*folders, CONFIG)
    assert "events: no column event_id" in " ".join(found.notes)


def test_a_bootstrap_of_few_engaged_users_is_not_defined(tmp_path: Path) -> None:
    logs = Logs()
    for index in range(60):
        logs.exposures.append(exposure(f"u{index}", "test" if index % 2 else "control", 0.1))
        if index < 4:
            logs.events += [event(f"u{index}", day + 0.5, day, 1 + index) for day in range(7)]
    depth = read(logs, tmp_path, ReadoutConfig(with_bootstrap=True)).newest.metrics["depth"]
    assert depth.lift is not None
    assert depth.bootstrap is None
    assert "not defined" in str(depth.bootstrap_undefined)


def test_a_nested_column_that_is_not_known_hides_no_other(tmp_path: Path) -> None:
    folders = clean_logs(40).write(tmp_path)
    plain = analyze(*folders, CONFIG)
    for path in folders[0].iterdir():
        table = pq.read_table(path)
        nested = pa.array([{"os": "a", "build": {"major": 1}}] * table.num_rows)
        pq.write_table(table.add_column(1, "device", nested), path)
    found = analyze(*folders, CONFIG)
    assert found.days == plain.days
    assert found.notes[0] == "exposures: column 'device' is not known and was not read"


def test_programs_in_one_arm_stop_the_read(tmp_path: Path) -> None:
    logs = clean_logs(400)
    for arm, count in (("test", 20), ("control", 2)):
        for index in range(count):
            logs.exposures.append(exposure(f"{arm}{index}", arm, 0.1))
            logs.events.append(event(f"{arm}{index}", 0.5, 1, 5000))
    newest = read(logs, tmp_path).newest
    assert (newest.status, newest.metrics) == ("stopped", {})
    assert "programs: 20 of 220 test and 2 of 202 control users" in newest.reason


def test_breakdowns_take_the_rules_alpha(tmp_path: Path) -> None:
    folders = clean_logs(400).write(tmp_path)
    for alpha, critical in ((0.05, 1.959964), (0.01, 2.575829)):
        one = analyze(*folders, ReadoutConfig(alpha=alpha)).exploratory[0]
        expected = lift_of(one.test, one.control, critical=critical)
        assert one.lift.upper_pct == pytest.approx(expected.upper_pct, abs=1e-4)
