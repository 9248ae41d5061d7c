"""The page renders, is self-contained, and shows what a reader needs."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from report_samples import clean_report, overfit_report

from flywheel_core.deployment import DEFAULT_POLICY
from flywheel_core.recipe import load_recipe
from flywheel_core.release.policy import ArtifactBand, load_policy
from flywheel_core.report import charts
from flywheel_core.report.build import build_report
from flywheel_core.report.charts import Scale, duration, feature_chart, matrix_chart
from flywheel_core.report.model import (
    FeatureShift,
    GenerationReport,
    SignalSummary,
    StageMean,
)
from flywheel_core.report.render import evidence_text, render_report
from flywheel_core.rewards.changes import Outcome
from flywheel_core.rewards.ledger import Ledger, Measured, extend
from flywheel_core.store import LocalStore
from tests.airflow.airflow_seeds import seeded_climb

VOID = {"meta", "link", "br", "hr", "img", "input"}


class Outline(HTMLParser):
    """Checks that tags nest, and collects tags, attributes and text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "action")]
        if tag not in VOID and not (self.get_starttag_text() or "").endswith("/>"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self.open and (self.get_starttag_text() or "") and self.open[-1] == tag:
            self.open.pop()
        elif tag not in ("line", "rect", "circle", "polyline"):
            raise AssertionError(f"</{tag}> closes {self.open[-1:]}")

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def outline(page: str) -> Outline:
    parser = Outline()
    parser.feed(page)
    parser.close()
    return parser


@pytest.fixture(scope="module")
def clean() -> str:
    return render_report(clean_report())


@pytest.fixture(scope="module")
def overfit() -> str:
    return render_report(overfit_report())


@pytest.mark.parametrize("name", ["clean", "overfit"])
def test_the_page_is_well_formed_and_asks_for_nothing(
    name: str, request: pytest.FixtureRequest
) -> None:
    page = request.getfixturevalue(name)
    parsed = outline(page)
    assert parsed.open == []
    assert "script" not in parsed.tags
    assert parsed.links == ["data:,"]
    assert not re.search(r"url\(|@import|https?://", page)
    assert "default-src 'none'" in page


def test_the_verdict_comes_first_with_every_reason(clean: str, overfit: str) -> None:
    assert "Releasable, with warnings" in clean
    assert "approved by release_manager" in clean
    assert "Not releasable: blocked" in overfit
    assert "rm_win_rate, rm_divergence, improvement, artifacts stop the release." in overfit
    assert "none asked, because the gates stop the release" in overfit
    for report, page in ((clean_report(), clean), (overfit_report(), overfit)):
        texts = " ".join(outline(page).texts)
        for verdict in report.verdicts:
            assert verdict.reason in texts


def test_a_gate_without_a_verdict_is_shown_as_missing() -> None:
    report = clean_report()
    partial = report.model_copy(update={"verdicts": report.verdicts[:-1]})
    page = render_report(partial)
    assert "Not releasable: evidence is missing" in page
    assert "This gate gave no verdict" in page


def test_what_a_model_wrote_is_text_and_nothing_else(clean: str) -> None:
    assert "&lt;b&gt;all&lt;/b&gt;" in clean
    talk = clean_report().conversations[0]
    attack = talk.model_copy(
        update={"candidate": "<script>alert(1)</script>", "character": '"><img src=//x>'}
    )
    page = render_report(clean_report().model_copy(update={"conversations": (attack,)}))
    parsed = outline(page)
    assert {"script", "img"}.isdisjoint(parsed.tags)
    assert "<script>alert(1)</script>" in "".join(parsed.texts)


def test_a_report_of_an_early_stop_still_renders() -> None:
    full = clean_report()
    bare = GenerationReport(
        flywheel=full.flywheel,
        generation=0,
        recipe=full.recipe,
        created_at=full.created_at,
        policy=full.policy,
        metrics=full.metrics.model_copy(update={"win_rates": (), "safety": (), "benchmarks": ()}),
        verdicts=(),
    )
    page = render_report(bare)
    assert outline(page).open == []
    assert "No judge compared" in page


def test_the_document_survives_its_file() -> None:
    report = overfit_report()
    assert GenerationReport.model_validate_json(report.model_dump_json()) == report


def test_matrix_geometry_keeps_order_and_panel() -> None:
    for report in (clean_report(), overfit_report()):
        rule = report.policy.thresholds.rm_win_rate
        chart = matrix_chart(report.metrics, rule)
        assert chart is not None
        assert 0 < chart.neutral < chart.target < chart.warn < chart.block < chart.panel_width
        for row in chart.rows:
            for mark in filter(None, row.cells):
                assert 0 <= mark.x_lower <= mark.x <= mark.x_upper <= chart.panel_width
    assert chart is not None
    states = {row.label: [cell.state if cell else None for cell in row.cells] for row in chart.rows}
    assert states["pointwise, user data"] == [None, "block"]
    assert states["pointwise, internal data"] == ["block", None], "worse than production"


def test_extreme_win_rates_stay_on_the_chart() -> None:
    report = clean_report()
    rule = report.policy.thresholds.rm_win_rate
    from flywheel_core.release.metrics import WinRateCell

    for wins in (0, 1000):
        cell = WinRateCell.from_counts("pointwise_user", "user", wins, 0, 1000 - wins)
        chart = matrix_chart(report.metrics.model_copy(update={"win_rates": (cell,)}), rule)
        assert chart is not None
        assert all(0 <= tick.at <= chart.panel_width for tick in chart.ticks)
        texts = [tick.text for tick in chart.ticks]
        assert texts[0 if wins == 0 else -1] == ("0 %" if wins == 0 else "100 %")


def test_feature_charts_mark_what_left_its_band() -> None:
    bands = overfit_report().policy.thresholds.artifacts.bands
    charts_by_label = {
        s.label: feature_chart(s, bands.get(s.feature)) for s in overfit_report().feature_shifts
    }
    assert [label for label, c in charts_by_label.items() if c.outside] == ["Emoji"]
    assert charts_by_label["Emoji"].change == "+70 %"
    assert charts_by_label["Lists"].change == "-2.3 points"
    assert charts_by_label["Preachy"].band_top is None
    zeros = FeatureShift(
        feature="x", label="x", unit="count", stages=(StageMean(stage="rl", mean=0.0),)
    )
    flat = feature_chart(zeros, ArtifactBand(max_ratio=1.5))
    assert flat.marks[0].y == flat.baseline


def test_a_feature_without_a_mean_at_every_stage_is_said_to_be_missing() -> None:
    report = clean_report()
    assert "Not measured in every stage" not in render_report(report)
    missing = report.model_copy(update={"features_not_measured": ("Length", "Repeats")})
    for one in (missing, missing.model_copy(update={"feature_shifts": ()})):
        assert "Not measured in every stage: Length, Repeats." in render_report(one)


def test_a_climb_that_measured_less_says_what_it_lacks(tmp_path: Path) -> None:
    """The seeded evaluation holds length, lists, emoji and templated phrases only."""
    store = LocalStore(str(tmp_path))
    plan = seeded_climb(
        store, load_recipe("tiny_cpu"), DEFAULT_POLICY, "run", internal=1160, user=1180
    )
    report = build_report(store, plan, load_policy(DEFAULT_POLICY))
    assert report.feature_shifts[0].label == "Length"
    assert report.features_not_measured == (
        "Contains emoji",
        "Asks a question",
        "Repeats an earlier turn",
    )


def test_numbers_read_well() -> None:
    assert Scale(0, 1, 0, 100)(2.0) == 100
    assert [duration(s) for s in (0.31, 42, 185, 7800)] == ["0.3 s", "42 s", "3 min 5 s", "2 h 10 min"]  # fmt: skip  # noqa: E501
    assert charts.timing_bars(()) == ()
    assert evidence_text("highest_gated_rate", 0.707) == "70.7 %"
    assert evidence_text("gap_points", 27.0) == "27"
    assert evidence_text("x", None) == "not measured"
    assert evidence_text("x", True) == "yes"
    assert evidence_text("n", 12000) == "12,000"


def test_reward_models_are_shown_where_they_were_measured(clean: str) -> None:
    assert "Reward models by batch" not in clean
    assert "User-signal models" not in clean
    outcome = Outcome(
        model_generation=1,
        batch_generation=1,
        workflow="static",
        right=(1.0,) * 30 + (0.0,) * 10,
    )
    ledger = extend(Ledger(), 1, {"pointwise_user": Measured([outcome], {})})
    signal = SignalSummary(
        name="signal_love",
        auc=0.61,
        ece=None,
        base_rate=0.04,
        biases={"delayed": "labels -0.031 (lower) & <more>"},
    )
    page = render_report(clean_report().model_copy(update={"ledger": ledger, "signals": (signal,)}))
    parsed = outline(page)
    assert parsed.open == []
    texts = " ".join(parsed.texts)
    for shown in ("0.750", "pointwise, user data, static chats", "signal_love", "0.610", "unknown",
                  "labels -0.031 (lower) & <more>", "not measured"):  # fmt: skip
        assert shown in texts
    assert not re.search(r"url\(|@import|https?://", page)
