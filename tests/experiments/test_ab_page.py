"""The page of an experiment: whole, self-contained, and never more certain than the data."""

import datetime
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from ab_samples import DAY, FIRST, clean_logs
from typer.testing import CliRunner

from flywheel_core.cli import app
from flywheel_core.experiments.analyze import analyze
from flywheel_core.experiments.config import GuardrailConfig, ReadoutConfig
from flywheel_core.experiments.lifts import ArmMean, Lift, lift_of
from flywheel_core.experiments.readout import Readout
from flywheel_core.report.experiment_charts import ReleaseLifts, day_chart, release_charts
from flywheel_core.report.experiment_page import render_experiment, verdict

CONFIG = ReadoutConfig(guardrails=(GuardrailConfig(column="reports"),))


class Tags(HTMLParser):
    """Every tag that opens closes, in order; collects the text."""

    VOID = {"meta", "link", "br"}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data + " "


def parsed(page: str) -> Tags:
    tags = Tags()
    tags.feed(page)
    tags.close()
    assert tags.open == []
    return tags


def readout(folder: Path, num_days: int = 7, **more: float) -> Readout:
    logs = clean_logs(1200, num_days=num_days, seed=2, **more)
    return analyze(*logs.write(folder), CONFIG, experiment_id="gen-0007")


def lift(estimate: float, below: float, above: float) -> Lift:
    return Lift(
        estimate_pct=estimate,
        kind="bounded",
        lower_pct=estimate - below,
        upper_pct=estimate + above,
        significant=estimate > below or estimate < -above,
    )


def past_releases(rows: list[tuple[str, Lift | None, Lift | None]]) -> list[ReleaseLifts]:
    return [
        ReleaseLifts(label=label, breadth=breadth, depth=depth) for label, breadth, depth in rows
    ]


@pytest.fixture(scope="module")
def better(tmp_path_factory: pytest.TempPathFactory) -> Readout:
    return readout(tmp_path_factory.mktemp("better"), lift=0.25)


def test_a_gain_is_shown_with_its_sentence_and_its_checks(better: Readout) -> None:
    page = parsed(render_experiment(better, CONFIG))
    assert "Engagement rose" in page.text
    assert better.sentence in re.sub(r"\s+", " ", page.text)
    for said in ("sample ratio", "reports", "exploratory", "adjusted (CUPED)", "detectable"):
        assert said in page.text
    assert not {"script", "img", "iframe", "form"} & set(page.seen)


def test_a_running_experiment_says_so_and_marks_peeking(tmp_path: Path) -> None:
    found = readout(tmp_path, num_days=3, lift=0.25)
    page = render_experiment(found, CONFIG)
    assert "Running: read to 7 January 2026, of 7 days" in parsed(page).text
    assert page.count("whisker peeking") == 9
    assert "the result is not final" in page
    assert found.exploratory == ()


def test_a_lost_guardrail_is_the_headline(tmp_path: Path) -> None:
    page = parsed(render_experiment(readout(tmp_path, harm=0.08), CONFIG))
    assert "Roll back: reports got worse" in page.text
    assert "A guardrail was lost: reports" in page.text


def test_a_broken_day_shows_no_lift(tmp_path: Path) -> None:
    logs = clean_logs(300)
    logs.events = [row for row in logs.events if row["at"].day != FIRST.day + 3]
    found = analyze(*logs.write(tmp_path), CONFIG)
    page = parsed(render_experiment(found, CONFIG))
    assert "Not readable: data are missing" in page.text
    assert "events of 2026-01-08 are missing" in page.text
    chart = day_chart("breadth", found.days, 7)
    assert [bool(mark.missing) for mark in chart.marks] == [False] * 3 + [True] * 4


def test_the_papers_releases_have_the_papers_colours() -> None:
    """Table 10, V8 to V15: breadth 5 green, depth 5 green and V12 red (Figure 8)."""
    releases = past_releases(
        [
            ("V8", lift(-0.38, 1.32, 1.33), lift(3.52, 4.29, 4.47)),
            ("V9", lift(1.73, 1.02, 1.03), lift(1.38, 4.41, 4.62)),
            ("V10", lift(2.09, 1.15, 1.16), lift(3.8, 3.4, 3.5)),
            ("V11", lift(4.47, 1.00, 1.01), lift(18.2, 2.4, 2.5)),
            ("V12", lift(0.05, 0.45, 0.43), lift(-2.9, 2.7, 2.7)),
            ("V13", lift(2.12, 0.56, 0.56), lift(19.4, 2.2, 2.3)),
            ("V14", lift(8.8, 2.3, 2.4), lift(11.2, 3.8, 4.0)),
            ("V15", lift(0.41, 0.53, 0.53), lift(5.0, 1.0, 1.0)),
        ]
    )
    breadth, depth = release_charts(releases)
    assert [mark.state for mark in breadth.marks].count("pass") == 5
    assert [mark.state for mark in depth.marks].count("pass") == 5
    assert [mark.label for mark in depth.marks if mark.state == "block"] == ["V12"]
    for chart in (breadth, depth):
        for mark in chart.marks:
            assert mark.fixed is not None
            assert chart.top <= mark.fixed.y_upper <= mark.y <= mark.fixed.y_lower <= chart.bottom


def test_days_read_on_are_drawn_without_a_crowd_of_labels(tmp_path: Path) -> None:
    logs = clean_logs(300, num_days=12)
    config = CONFIG.model_copy(update={"watched_days": 5, "through": FIRST.date() + 11 * DAY})
    found = analyze(*logs.write(tmp_path), config)
    assert found.is_watch
    page = parsed(render_experiment(found, CONFIG, since=None))
    assert "Window over: read on to 16 January 2026" in page.text
    chart = day_chart("breadth", found.days, 12)
    assert [mark.label for mark in chart.marks if mark.label] == ["5 Jan", "11", "16 Jan"]
    assert [mark.peeking for mark in chart.marks].index(False) == 6
    inside = [chart.left < mark.x < chart.width for mark in chart.marks]
    assert inside == [True] * 12


def test_an_unbounded_set_fills_the_chart(better: Readout) -> None:
    whole = Lift(estimate_pct=None, kind="whole", lower_pct=None, upper_pct=None, significant=False)
    charts = release_charts(
        past_releases([("a", whole, lift(1, 2, 2)), ("b", lift(1, 2, 2), None)])
    )
    assert charts[0].marks[0].y is None
    assert charts[0].marks[0].fixed.y_lower == charts[0].bottom
    assert charts[1].marks[1].missing == "not read"
    assert "any lift" in whole.text()
    render_experiment(better, CONFIG, releases=past_releases([("a", whole, None)]))


def test_names_are_escaped(better: Readout) -> None:
    named = better.model_copy(update={"experiment_id": "<script>x</script>"})
    page = render_experiment(named, CONFIG)
    assert "<script>" not in page


def test_the_page_tells_the_rules_own_rates(better: Readout) -> None:
    strict = CONFIG.model_copy(update={"alpha": 0.01, "target_power": 0.95})
    for rule, rates in ((CONFIG, ("5", "95", "80")), (strict, ("1", "99", "95"))):
        text = parsed(render_experiment(better, rule)).text
        assert f"stand at a false discovery rate of {rates[0]} % " in text
        assert f"Fieller's sets for a ratio of means, at {rates[1]} %. " in text
        assert f"a test of this size finds with {rates[2]} % probability" in text


def test_the_command_line_writes_it(tmp_path: Path) -> None:
    folders = clean_logs(100).write(tmp_path)
    page = tmp_path / "out" / "page.html"
    command = ["ab", "analyze", "--exposures", str(folders[0]), "--events", str(folders[1])]
    done = CliRunner().invoke(app, [*command, "--page", str(page)])
    assert done.exit_code == 0, done.output
    assert str(datetime.date(2026, 1, 11)) in parsed(page.read_text(encoding="utf-8")).text


@pytest.mark.parametrize(("part", "name"), [("metrics", "depth"), ("guardrails", "reports")])
def test_missing_evidence_is_neither_flat_nor_green(better: Readout, part: str, name: str) -> None:
    day = better.newest
    assert verdict(day, 7)[0] == "pass"
    unread = {"lift": None, "always_valid": None, "unreadable": "no variance"}
    read = getattr(day, part)[name].model_copy(update=unread)
    less = day.model_copy(update={part: {**getattr(day, part), name: read}})
    state, headline = verdict(less, 7)
    assert state == "insufficient"
    assert "Not readable: " in headline


def test_a_gain_over_a_control_of_nothing_has_a_direction(better: Readout) -> None:
    breadth = better.newest.metrics["breadth"]
    control = ArmMean(mean=0.0, standard_error=1e-6, num_users=100)
    found = breadth.model_copy(update={"control": control, "lift": lift_of(breadth.test, control)})
    assert found.lift.estimate_pct is None
    assert found.direction == 1
