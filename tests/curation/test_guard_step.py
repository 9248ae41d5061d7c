"""The guard as Phase I's second step: what it lets through, what it counts, and how it resumes."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from curation_samples import traffic_rows

from flywheel_core.curation import llama_guard as guard_module
from flywheel_core.curation.config import SafetyConfig
from flywheel_core.curation.curate import Curated, curate
from flywheel_core.curation.guard import BROKEN_ROWS, Guard, llama_guard
from flywheel_core.curation.llama_guard import LlamaGuard
from flywheel_core.curation.pipeline import TrafficFiles, Workshop, curate_files
from flywheel_core.curation.safety import ConversationClassifier, SafetyVerdict, judge_rows
from flywheel_core.curation.section import CurationSection
from flywheel_core.engines.base import Completion, Messages
from flywheel_core.engines.config import ExecutorConfig, SamplingConfig
from flywheel_core.engines.executor import InProcessExecutor
from flywheel_core.engines.fake import HashEmbedder
from flywheel_core.erasure.users import NOBODY
from flywheel_core.errors import ConfigError, MapFailed
from flywheel_core.records import SPLITS, TRAFFIC, write_table

SAFETY = SafetyConfig(classifier="llama_guard", model="/models/guard", timeout_s=30, batch_rows=50)
SECTION = CurationSection.model_validate(
    {"embedder": "hash", "prompts_per_surface": dict.fromkeys(SPLITS, 20), "safety": SAFETY}
)
SAFE = SafetyVerdict(True)


class Judge:
    """Unsafe where the user's words end in `7?`; as `broken` says on calls of the given number."""

    def __init__(self, broken: Callable[[int], Any] = lambda call: None) -> None:
        self.calls: list[int] = []
        self.broken = broken

    def judge(self, conversations: Sequence[Messages]) -> Sequence[SafetyVerdict | None]:
        self.calls.append(len(conversations))
        answer = self.broken(len(self.calls))
        if isinstance(answer, BaseException):
            raise answer
        if answer is not None:
            return answer  # type: ignore[no-any-return]
        return [
            SafetyVerdict(False, ("S10",)) if one[-2]["content"].endswith("7?") else SAFE
            for one in conversations
        ]


def guard_of(judge: ConversationClassifier, **changes: Any) -> Guard:
    return Guard(lambda: judge, "weights-1", SAFETY.model_copy(update=changes))


def curated(
    rows: list[dict[str, Any]], guard: Guard, folder: Path, progress: Any = lambda *_: None
) -> Curated:
    """Two files, so two shards of either step."""
    paths = folder / "one.parquet", folder / "other.parquet"
    for number, path in enumerate(paths):
        write_table(path, rows[number * len(rows) // 2 : (number + 1) * len(rows) // 2], TRAFFIC)
    return curate_files(
        TrafficFiles(paths, "week", {}),
        SECTION,
        HashEmbedder(),
        7,
        production_digest="production",
        erasures=NOBODY,
        workshop=Workshop(
            InProcessExecutor(),
            ExecutorConfig(batch_rows=500),
            folder / "work",
            progress,
            guard,
        ),
    )


def week(count: int = 1_000) -> list[dict[str, Any]]:
    rows = traffic_rows(count, 1)
    for row in rows[:20]:
        row["response"] = "kill yourself"
    for row in rows[20:30]:
        row["response"] = "mail jane@example.com"
    return rows


def test_the_guard_sees_what_the_rules_kept_and_both_are_counted(tmp_path: Path) -> None:
    rows = week()
    judge = Judge()
    found = curated(rows, guard_of(judge), tmp_path)
    unsafe = sum(row["messages"][-1]["content"].endswith("7?") for row in rows[30:])
    assert sum(judge.calls) == 970
    assert max(judge.calls) == SAFETY.batch_rows
    assert found.report["rejected"] == {"privacy_email": 10, "safety_unsafe": 20 + unsafe}
    assert found.report["safety"] == {"failures": {}, "rows_by_category": {"S10": unsafe}}
    assert found.report["rows"] == 1_000
    assert found.report["filtered"] == 970 - unsafe
    assert not [p for p in found.prompts if p["messages"][-1]["content"].endswith("7?")]


def test_it_is_what_curation_in_memory_makes_with_that_guard(tmp_path: Path) -> None:
    rows = traffic_rows(900, 1)
    expected = curate(
        rows, SECTION, HashEmbedder(), 7, production_digest="production", classifier=Judge()
    )
    found = curated(rows, guard_of(Judge()), tmp_path)
    assert [one["prompt_id"] for one in found.prompts] == [
        one["prompt_id"] for one in expected.prompts
    ]
    assert found.report == expected.report | {"erased": 0}


@pytest.mark.parametrize(
    ("answer", "cause"),
    [(RuntimeError("jane@example.com"), "raised"), (TimeoutError(), "timed_out"), ([], "nonsense")],
)
def test_a_call_without_verdicts_rejects_its_rows_and_the_rest_goes_on(
    tmp_path: Path, answer: Any, cause: str
) -> None:
    calls = {3} if cause != "raised" else set(range(3, 102))  # the halves of the third, down to one
    judge = Judge(lambda call: answer if call in calls else None)
    found = curated(traffic_rows(1_000, 1), guard_of(judge), tmp_path)
    assert found.report["safety"]["failures"] == {cause: SAFETY.batch_rows}
    assert found.report["rejected"]["safety_classifier_failed"] == SAFETY.batch_rows


def test_a_guard_that_gives_no_verdict_at_all_stops_the_run(tmp_path: Path) -> None:
    rows = traffic_rows(1_000, 1)
    silent = guard_of(Judge(lambda call: [None] * SAFETY.batch_rows))
    with pytest.raises(MapFailed, match=r"no verdict on any of 500 rows \(nonsense 500\)"):
        curated(rows, silent, tmp_path)
    assert BROKEN_ROWS < 500
    assert curated(rows, guard_of(Judge()), tmp_path).report["rows"] == 1_000


def test_a_hanging_guard_is_left_behind_after_its_timeout(tmp_path: Path) -> None:
    release = threading.Event()

    class Hangs(Judge):
        def judge(self, conversations: Sequence[Messages]) -> Sequence[SafetyVerdict | None]:
            if not self.calls:
                self.calls.append(0)
                release.wait(60)
            return super().judge(conversations)

    found = curated(traffic_rows(1_000, 1), guard_of(Hangs(), timeout_s=0.2), tmp_path)
    release.set()
    assert found.report["safety"]["failures"] == {"timed_out": SAFETY.batch_rows}


def test_a_run_that_broke_off_goes_on_at_the_first_missing_shard(tmp_path: Path) -> None:
    def dies(done: int, total: int, what: str = "") -> None:
        if done and what == "rows of phase I, guard":
            raise KeyboardInterrupt

    rows = traffic_rows(1_000, 1)
    first, again = Judge(), Judge()
    with pytest.raises(KeyboardInterrupt):
        curated(rows, guard_of(first), tmp_path, dies)
    found = curated(rows, guard_of(again), tmp_path)
    assert (sum(first.calls), sum(again.calls)) == (500, 500)
    assert found == curated(rows, guard_of(Judge()), tmp_path / "fresh")


def test_another_guard_or_timeout_does_not_take_up_the_work_of_this_one(tmp_path: Path) -> None:
    rows = traffic_rows(1_000, 1)
    curated(rows, guard_of(Judge()), tmp_path)
    for other in (
        replace(guard_of(Judge()), version="weights-2"),
        guard_of(Judge(), timeout_s=5.0),
        guard_of(Judge(), batch_rows=7),
    ):
        with pytest.raises(ConfigError, match="under another configuration"):
            curated(rows, other, tmp_path)


class OneAtATime:
    """A generator that breaks when two threads ask it at once."""

    def __init__(self) -> None:
        self.inside = 0
        self.together = False
        self.slow = threading.Event()

    def load(self, model_dir: Path) -> str:
        return model_dir.name

    def generate(
        self, prompts: Sequence[Messages], sampling: SamplingConfig, *, progress: Any = None
    ) -> list[list[Completion]]:
        self.inside += 1
        self.together |= self.inside > 1
        self.slow.wait(30)
        self.inside -= 1
        return [[Completion("safe", 1, "stop")] for _ in prompts]


def test_a_call_that_timed_out_shares_the_engine_with_no_other() -> None:
    engine = OneAtATime()
    guard = LlamaGuard(engine, Path("guard"))
    assert judge_rows(traffic_rows(4), guard, 0.05, 2) == ["timed_out"] * 4
    engine.slow.set()
    assert judge_rows(traffic_rows(2), guard, 30) == [SAFE] * 2
    assert not engine.together


def test_the_engine_starts_when_it_is_first_asked_and_once(tmp_path: Path) -> None:
    started: list[Path] = []
    closed: list[bool] = []

    def start(folder: Path) -> OneAtATime:
        started.append(folder)
        engine = OneAtATime()
        engine.slow.set()
        return engine

    guard = llama_guard(SAFETY, "weights", Path("guard"), start, lambda: closed.append(True))
    assert not started
    found = curated(traffic_rows(1_000, 1), guard, tmp_path)
    assert (started, closed) == ([Path("guard")], [True])
    assert found.report["rejected"] == {}
    curated(traffic_rows(1_000, 1), llama_guard(SAFETY, "weights", Path("guard"), start), tmp_path)
    assert len(started) == 1
    assert guard_module.SAMPLING.temperature == 0


def test_an_engine_that_does_not_start_ends_the_run_and_rejects_no_row(tmp_path: Path) -> None:
    def start(folder: Path) -> OneAtATime:
        raise ConfigError("model_dir: no such folder")

    with pytest.raises(ConfigError, match="no such folder"):
        curated(week(), llama_guard(SAFETY, "weights", Path("guard"), start), tmp_path)


@pytest.mark.parametrize(
    "values",
    [
        {"classifier": "llama_guard"},
        {"model": "/models/guard"},
        {"timeout_s": 0},
        {"batch_rows": 0},
        {"classifier": "oracle"},
    ],
)
def test_a_guard_is_a_model_and_rules_take_none(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"safety|llama_guard|greater than|Input should be"):
        SafetyConfig.model_validate(values)
