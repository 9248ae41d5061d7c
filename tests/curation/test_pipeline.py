"""Curation of files: what it makes is what curation in memory makes, with provenance."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from curation_samples import traffic_rows
from hypothesis import given, settings
from hypothesis import strategies as st

from flywheel_core.curation.columns import IndexRows, index_of
from flywheel_core.curation.curate import Curated, curate
from flywheel_core.curation.diversity import prompt_text
from flywheel_core.curation.pipeline import TrafficFiles, Workshop, curate_files
from flywheel_core.curation.section import CurationSection
from flywheel_core.engines.config import ExecutorConfig
from flywheel_core.engines.executor import InProcessExecutor
from flywheel_core.engines.fake import HashEmbedder
from flywheel_core.erasure.users import NOBODY, Erasures, add_users
from flywheel_core.errors import InputDataError
from flywheel_core.records import PROMPTS, SPLITS, TRAFFIC, read_table, write_table
from flywheel_core.store import MemoryStore

DAYS = ("2026-01-05", "2026-01-06")


def section(size: int, **changes: Any) -> CurationSection:
    return CurationSection.model_validate(
        {"embedder": "hash", "prompts_per_surface": dict.fromkeys(SPLITS, size)} | changes
    )


def week(count: int) -> list[dict[str, Any]]:
    """Two surfaces, two days; some rows with an e-mail address, some equal prompts."""
    rows = traffic_rows(count, 1) + traffic_rows(count, 2, surface="user", day=DAYS[1])
    for row in rows[:30]:
        row["response"] = "write to jane@example.com"
    for row, other in zip(rows[100:150], rows[count + 100 : count + 150], strict=True):
        row["messages"] = other["messages"]
    return rows


def files_of(rows: list[dict[str, Any]], folder: Path) -> TrafficFiles:
    paths = []
    for day in DAYS:
        path = folder / f"{day}.parquet"
        write_table(path, [row for row in rows if row["day"] == day], TRAFFIC)
        paths.append(path)
    return TrafficFiles(tuple(paths), "week", {DAYS[1]: "second-day"})


def from_files(
    rows: list[dict[str, Any]],
    config: CurationSection,
    folder: Path,
    *,
    erasures: Erasures = NOBODY,
    embedder: Any = None,
    **execution: Any,
) -> Curated:
    executor = ExecutorConfig(**({"shard_rows": 100_000} | execution))
    return curate_files(
        files_of(rows, folder),
        config,
        embedder or HashEmbedder(),
        7,
        production_digest="production",
        erasures=erasures,
        workshop=Workshop(
            InProcessExecutor(), executor, folder / "work", lambda done, total, what="": None
        ),
    )


def test_files_and_memory_give_the_same_prompts_and_counts(tmp_path: Path) -> None:
    rows = week(600)
    expected = curate(rows, section(30), HashEmbedder(), 7, production_digest="production")
    found = from_files(rows, section(30), tmp_path)
    assert len(found.prompts) == len(expected.prompts) == 2 * 6 * 30
    for one, other in zip(found.prompts, expected.prompts, strict=True):
        assert {**one, "source_key": ""} == {**other, "source_key": ""}
    assert found.report == expected.report | {"erased": 0}
    assert found.report["rejected"] == {"privacy_email": 30}
    assert found.report["distinct"] == 1200 - 30 - 50


def test_a_row_id_of_an_earlier_file_is_set_aside_and_counted(tmp_path: Path) -> None:
    rows = week(600)
    again = [{**row, "day": DAYS[1]} for row in rows if row["day"] == DAYS[0]][40:90]
    for number, row in enumerate(again):
        row["messages"] = [row["messages"][0], {"role": "user", "content": f"Reworded {number}"}]
    alone = from_files(rows, section(30), tmp_path / "alone")
    found = from_files(rows + again, section(30), tmp_path / "again")
    assert found.report["repeated_row_ids"] == 50
    assert "repeated_row_ids" not in alone.report
    assert found.report["distinct"] == alone.report["distinct"]
    ids = [one["prompt_id"] for one in found.prompts]
    assert len(ids) == len(set(ids))
    assert not [one for one in found.prompts if one["messages"][-1]["content"].startswith("Rew")]


def test_near_duplicates_are_the_same_in_files_and_in_memory(tmp_path: Path) -> None:
    rows = week(400)
    for number, row in enumerate(rows[:300]):
        said = " ".join(f"w{number // 3}x{place}" for place in range(30)) + " so" * (number % 3)
        row["messages"] = [row["messages"][0], {"role": "user", "content": said}]
    expected = curate(rows, section(20), HashEmbedder(), 7, production_digest="production")
    found = from_files(rows, section(20), tmp_path, shard_rows=50, batch_rows=17)
    assert [one["prompt_id"] for one in found.prompts] == [
        one["prompt_id"] for one in expected.prompts
    ]
    assert found.report == expected.report | {"erased": 0}
    # Ten of the hundred texts, three rows each, went with the addresses in their rows.
    assert found.report["duplicates"]["near"] == 2 * (100 - 10)


def test_the_order_of_the_rows_does_not_show(tmp_path: Path) -> None:
    rows = week(400)
    expected = curate(rows, section(20), HashEmbedder(), 7, production_digest="production")
    turned = curate(rows[::-1], section(20), HashEmbedder(), 7, production_digest="production")
    assert {one["prompt_id"]: one["split"] for one in turned.prompts} == {
        one["prompt_id"]: one["split"] for one in expected.prompts
    }


def test_shards_and_batches_do_not_show(tmp_path: Path) -> None:
    rows = week(300)
    whole = from_files(rows, section(20), tmp_path / "whole")
    pieces = from_files(rows, section(20), tmp_path / "pieces", shard_rows=1, batch_rows=17)
    assert whole == pieces


def test_each_prompt_says_where_it_came_from_and_why(tmp_path: Path) -> None:
    rows = week(400)
    by_id = {row["row_id"]: row for row in rows}
    curated = from_files(rows, section(20), tmp_path)
    write_table(tmp_path / "prompts.parquet", curated.prompts, PROMPTS)
    table = read_table(tmp_path / "prompts.parquet", PROMPTS)
    for prompt in table.to_pylist():
        row = by_id[prompt["prompt_id"]]
        assert all(prompt[name] == row[name] for name in ("day", "response", "model_digest"))
        assert prompt["messages"] == row["messages"]
        assert prompt["source_key"] == ("second-day" if row["day"] == DAYS[1] else "week")
    reasons = Counter((prompt["split"], prompt["reason"]) for prompt in curated.prompts)
    assert reasons == {
        ("annotate", "annotation"): 40,
        ("reject", "supervised"): 40,
        ("rl", "near_policy"): 40,
        ("stop", "held_out"): 40,
        ("select", "held_out"): 40,
        ("gate", "held_out"): 40,
    }


def test_rl_prompts_of_older_models_come_last_and_within_their_share(tmp_path: Path) -> None:
    rows = week(500)
    for number, row in enumerate(rows):
        row["model_digest"] = "production" if number % 10 == 0 else "older"
    strict = from_files(rows, section(40), tmp_path / "strict")
    rl = [prompt for prompt in strict.prompts if prompt["split"] == "rl"]
    assert {prompt["reason"] for prompt in rl} == {"near_policy"}
    mixed = from_files(rows, section(40, rl_older_share_max=0.3), tmp_path / "mixed")
    reasons = Counter(p["reason"] for p in mixed.prompts if p["split"] == "rl")
    assert mixed.report["pools"]["rl"] == reasons
    assert mixed.report["pools"]["gate"] == {"held_out": 80}
    assert reasons["near_policy"] == len(rl)
    assert 0 < reasons["older_policy"] <= 0.3 * reasons.total()
    unknown = [{**row, "model_digest": None} for row in rows]
    told = from_files(unknown, section(40), tmp_path / "unknown")
    assert {p["reason"] for p in told.prompts if p["split"] == "rl"} == {"policy_unknown"}


def test_rows_of_erased_users_reach_no_prompt(tmp_path: Path) -> None:
    rows = week(400)
    gone = {"u3", "u7", "u11"}
    erasures = add_users(MemoryStore(), "test", sorted(gone), by="x", reason="y").erasures
    curated = from_files(rows, section(20), tmp_path, erasures=erasures)
    assert curated.report["erased"] == sum(row["user_id"] in gone for row in rows)
    assert curated.report["rows"] + curated.report["erased"] == len(rows)
    assert not gone & {prompt["user_id"] for prompt in curated.prompts}


class Dying:
    """An embedder whose process dies: after Phase I."""

    def embed(self, texts: Any) -> Any:
        raise KeyboardInterrupt


def test_a_run_that_broke_off_goes_on_after_phase_one(tmp_path: Path) -> None:
    rows = week(300)
    with pytest.raises(KeyboardInterrupt):
        from_files(rows, section(20), tmp_path, embedder=Dying())
    marks = {
        path: path.stat().st_mtime_ns for path in (tmp_path / "work/phase_one").rglob("*.parquet")
    }
    again = from_files(rows, section(20), tmp_path)
    assert marks
    assert {path: path.stat().st_mtime_ns for path in marks} == marks
    assert again == from_files(rows, section(20), tmp_path / "fresh")


def test_nothing_kept_is_an_error_that_counts_the_rules(tmp_path: Path) -> None:
    rows = [{**row, "response": "my card is 4111 1111 1111 1111"} for row in week(200)]
    with pytest.raises(InputDataError, match=r"kept none of 400 rows: \{'privacy_"):
        from_files(rows, section(6), tmp_path)


TURN = st.sampled_from(["", "a", "b", "a b", '"', "é"])
PROMPT = st.lists(TURN, min_size=1, max_size=3)


@settings(max_examples=50, deadline=None)
@given(st.lists(PROMPT, min_size=1, max_size=12))
def test_the_index_tells_prompts_apart_exactly_as_their_texts_do(prompts: list[list[str]]) -> None:
    rows = traffic_rows(len(prompts))
    for row, turns in zip(rows, prompts, strict=True):
        row["messages"] = [{"role": "user", "content": text} for text in turns]
    table = pa.Table.from_pylist(rows, schema=TRAFFIC)
    seen = IndexRows.of_table(index_of(table, [row["messages"] for row in rows]))
    assert len(seen) == len(rows)
    for one, row in zip(seen, rows, strict=True):
        assert one["messages"][-1]["content"] == row["messages"][-1]["content"]
        for other, another in zip(seen, rows, strict=True):
            assert (prompt_text(one) == prompt_text(other)) == (
                prompt_text(row) == prompt_text(another)
            )
        assert {name: one[name] for name in ("row_id", "user_id", "depth", "jtbd")} == {
            name: row[name] for name in ("row_id", "user_id", "depth", "jtbd")
        }
    assert [row["row_id"] for row in seen[-1:]] == [rows[-1]["row_id"]]
    with pytest.raises(IndexError):
        seen[len(rows)]


def test_an_index_in_several_files_reads_like_one_in_memory(tmp_path: Path) -> None:
    rows = [{**row, "character_id": f"k{number % 3}"} for number, row in enumerate(traffic_rows(9))]
    table = pa.Table.from_pylist(rows, schema=TRAFFIC)
    index = index_of(table, [row["messages"] for row in rows])
    files = tuple(tmp_path / f"{number}.parquet" for number in range(3))
    for number, path in enumerate(files):
        pq.write_table(index.slice(number * 3, 3), path)
    assert [dict(row) for row in IndexRows.of_files(files)] == [
        dict(row) for row in IndexRows.of_table(index)
    ]


def test_a_file_that_is_cut_short_is_named(tmp_path: Path) -> None:
    traffic = files_of(week(50), tmp_path)
    first = traffic.files[0]
    first.write_bytes(first.read_bytes()[:-30])
    with pytest.raises(InputDataError, match=r"2026-01-05\.parquet is not a readable Parquet file"):
        curate_files(
            replace(traffic, files=(first,)),
            section(6),
            HashEmbedder(),
            0,
            production_digest="",
            erasures=NOBODY,
            workshop=Workshop(
                InProcessExecutor(), ExecutorConfig(), tmp_path / "w", lambda *_: None
            ),
        )
