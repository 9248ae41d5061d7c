"""The three phases and the splits together, on made-up rows, the world, and Topical-Chat."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from curation_samples import broken_caps, traffic_rows

from flywheel_core.curation.curate import Curated, curate
from flywheel_core.curation.section import CurationSection
from flywheel_core.curation.strata import Measures
from flywheel_core.engines.fake import HashEmbedder
from flywheel_core.ingest.topical_chat import HistoryLimits, read_topical_chat
from flywheel_core.records import PROMPTS, SPLITS, read_table, write_table
from flywheel_core.release.metrics import DataEvidence

REAL_FILE = Path(__file__).resolve().parents[3] / "shared/reference/topical_chat/test_freq.json.gz"


def section(size: int, **changes: Any) -> CurationSection:
    return CurationSection.model_validate(
        {"embedder": "hash", "prompts_per_surface": dict.fromkeys(SPLITS, size)} | changes
    )


def both_surfaces(count: int, **changes: Any) -> list[dict[str, Any]]:
    return traffic_rows(count, 1, **changes) + traffic_rows(count, 2, surface="user", **changes)


def run(rows: list[dict[str, Any]], config: CurationSection, seed: int = 0) -> Curated:
    return curate(rows, config, HashEmbedder(), seed, production_digest="production")


def evidence(curated: Curated) -> DataEvidence:
    """What the data gate will read, through its own strict schema."""
    return DataEvidence.model_validate(curated.report["data_evidence"])


def texts(curated: Curated) -> Counter[str]:
    return Counter(json.dumps(prompt["messages"]) for prompt in curated.prompts)


def test_the_prompts_are_a_table_of_the_schema_and_the_report_is_json(tmp_path: Path) -> None:
    curated = run(both_surfaces(1500), section(60))
    write_table(tmp_path / "prompts.parquet", curated.prompts, PROMPTS)
    assert read_table(tmp_path / "prompts.parquet", PROMPTS).num_rows == 2 * 6 * 60
    json.dumps(curated.report, allow_nan=False)
    assert Counter((p["surface"], p["split"]) for p in curated.prompts) == {
        (surface, split): 60 for surface in ("internal", "user") for split in SPLITS
    }


def test_the_caps_hold_for_the_final_set_of_each_surface() -> None:
    config = section(70)
    curated = run(both_surfaces(1000), config)
    for surface in ("internal", "user"):
        final = [prompt for prompt in curated.prompts if prompt["surface"] == surface]
        assert not broken_caps(
            final,
            first_turn_share_min=config.first_turn_share_min,
            character_share_max=config.character_share_max,
        )
        told = curated.report["surfaces"][surface]["final"]
        assert told["rows"] == len(final)
        assert told["largest_character_share"] <= config.character_share_max


def test_equal_prompts_are_kept_once_over_both_surfaces() -> None:
    rows = both_surfaces(1000)
    for number in range(300):
        rows[1000 + number]["messages"] = rows[number]["messages"]
        rows[300 + number]["messages"] = rows[number]["messages"]
    curated = run(rows, section(60))
    assert max(texts(curated).values()) == 1
    found = evidence(curated)
    assert (found.train_eval_overlap_count, found.prompt_set_overlap_count) == (0, 0)


def test_rejected_rows_are_counted_by_rule_and_their_text_is_in_no_report() -> None:
    rows = both_surfaces(500)
    for row in rows[:20]:
        row["response"] = "write to jane@example.com"
    curated = run(rows, section(20))
    assert curated.report["rejected"] == {"privacy_email": 20}
    assert "jane" not in json.dumps(curated.report)
    assert "jane" not in json.dumps(curated.prompts)


def test_the_near_policy_share_is_measured_or_absent() -> None:
    rows = both_surfaces(1000)
    for row in rows[::2]:
        row["model_digest"] = "older"
    curated = run(rows, section(40))
    share = evidence(curated).near_policy_share
    assert share is not None
    assert 0.5 < share < 0.8
    assert all(
        prompt["model_digest"] == "production"
        for prompt in curated.prompts
        if prompt["split"] == "rl"
    )
    human = run(both_surfaces(1000, model_digest=None), section(40))
    assert evidence(human).near_policy_share is None
    assert Counter(prompt["split"] for prompt in human.prompts)["rl"] == 80


def test_it_repeats_and_the_seed_matters() -> None:
    rows = both_surfaces(600)
    assert run(rows, section(30)) == run(rows, section(30))
    assert run(rows, section(30), seed=1).prompts != run(rows, section(30)).prompts


def test_fields_nobody_has_are_called_not_applicable() -> None:
    rows = both_surfaces(400, user_id=None, character_id=None, language=None, jtbd=None)
    curated = run(rows, section(30))
    told = curated.report["surfaces"]["user"]
    assert told["split_by"] == "conversation"
    assert told["final"]["largest_character_share"] == "not applicable"
    assert told["final"]["language_shares"] == "not applicable"


@pytest.mark.skipif(not REAL_FILE.exists(), reason=f"the data set is not here: {REAL_FILE}")
def test_real_conversations_go_through() -> None:
    found = read_topical_chat(REAL_FILE, limits=HistoryLimits(max_words=64))
    rows = [row for row in found if isinstance(row, dict)]
    curated = run(rows, section(1000, first_turn_share_min=0.0))
    told = curated.report["surfaces"]["user"]
    assert told["got"] == dict.fromkeys(SPLITS, 1000)
    assert told["split_by"] == "conversation"
    assert curated.report["rejected"] == {}
    sides = [
        {p["conversation_id"] for p in curated.prompts if p["split"] == split} for split in SPLITS
    ]
    assert sum(map(len, sides)) == len(set().union(*sides))
    assert evidence(curated).train_eval_overlap_count == 0


def test_the_final_set_keeps_the_strata_of_the_traffic_and_the_better_rows() -> None:
    """Far fewer prompts than balanced rows: what is drawn is what Table 1 speaks of."""
    rows = traffic_rows(1500)
    quality = [float(number % 97) for number in range(1500)]
    config = section(20)
    curated = curate(
        rows, config, HashEmbedder(), 0, production_digest="", measures=Measures(quality=quality)
    )
    place = {row["row_id"]: number for number, row in enumerate(rows)}
    for told in curated.report["surfaces"].values():
        assert [name for name, one in told["final"]["constraints"].items() if not one["met"]] == []
    for field in ("language", "jtbd"):
        before, after = (Counter(row[field] for row in some) for some in (rows, curated.prompts))
        for value, count in before.items():
            assert after[value] / len(curated.prompts) == pytest.approx(count / 1500, abs=0.04)
    chosen = [quality[place[prompt["prompt_id"]]] for prompt in curated.prompts]
    assert sum(chosen) / len(chosen) > 1.2 * sum(quality) / len(quality)


def test_strata_follow_the_traffic_not_what_duplicates_left_of_it() -> None:
    """Half of the traffic is Spanish, four of five Spanish rows are copies."""
    rows = traffic_rows(600)
    for number, row in enumerate(rows):
        row["language"] = "es" if number % 2 else "en"
        if number % 2 and number % 10 != 1:
            row["messages"] = rows[1]["messages"]
    curated = curate(rows, section(7), HashEmbedder(), 0, production_digest="")
    told = curated.report["surfaces"]["internal"]["final"]["constraints"]["language 'es'"]
    assert told["low"] == pytest.approx(0.48)
    assert told["met"]
