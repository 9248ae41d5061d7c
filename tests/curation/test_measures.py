"""Quality and difficulty from a table of measures: read, checked, and used in Phase III."""

import statistics
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from curation_samples import traffic_rows

from flywheel_core.curation.curate import curate
from flywheel_core.curation.measures import measures_of
from flywheel_core.curation.section import CurationSection
from flywheel_core.curation.strata import Measures
from flywheel_core.engines.fake import HashEmbedder
from flywheel_core.errors import InputDataError
from flywheel_core.records import SPLITS

IDS = pa.array(["a", "b", "c"])


def table(folder: Path, **columns: Any) -> Path:
    path = folder / "measures.parquet"
    pq.write_table(pa.table(columns), path)
    return path


def test_measures_are_in_the_order_of_the_rows_and_null_where_not_named(tmp_path: Path) -> None:
    path = table(
        tmp_path, row_id=["c", "x", "a"], quality=[0.3, 9.0, 1], difficulty=[None, 9.0, 2.0]
    )
    assert measures_of(path, IDS) == Measures([1.0, None, 0.3], [2.0, None, None])
    only = table(tmp_path, row_id=pa.array(["b"], pa.large_string()), difficulty=[7])
    assert measures_of(only, pa.chunked_array([IDS])) == Measures(None, [None, 7.0, None])


def test_difficulty_is_the_variance_of_the_scores_and_quality_their_mean(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    scores = [(rng.standard_normal(int(rng.integers(2, 9))) * 1e3 + 1e6).tolist() for _ in "abc"]
    found = measures_of(table(tmp_path, row_id=["a", "b", "c"], scores=scores), IDS)
    assert found.quality == pytest.approx([statistics.fmean(one) for one in scores], rel=1e-12)
    assert found.difficulty == pytest.approx([statistics.variance(one) for one in scores], rel=1e-9)
    some = table(tmp_path, row_id=["a", "b"], scores=[[1.0, 1.0], None])
    assert measures_of(some, IDS) == Measures([1.0, None, None], [0.0, None, None])


@pytest.mark.parametrize(
    ("columns", "complaint"),
    [
        ({"row": ["a"], "quality": [1.0]}, "no text column row_id"),
        ({"row_id": [1], "quality": [1.0]}, "no text column row_id"),
        ({"row_id": ["a", "a"], "quality": [1.0, 2.0]}, "names a row twice"),
        ({"row_id": ["a", None], "quality": [1.0, 2.0]}, "names a row twice or not at all"),
        ({"row_id": ["a"]}, "nothing that is measured"),
        ({"row_id": ["z"], "quality": [1.0]}, "names none of the 3 rows"),
        ({"row_id": ["a"], "quality": ["good"]}, "quality is not a number"),
        ({"row_id": ["a"], "difficulty": [float("nan")]}, "difficulty holds a number that is not"),
        ({"row_id": ["a"], "scores": [[1.0]]}, "at least 2 finite numbers"),
        ({"row_id": ["a"], "scores": [[1.0, float("inf")]]}, "at least 2 finite numbers"),
        ({"row_id": ["a"], "scores": [[1.0, None]]}, "at least 2 finite numbers"),
        ({"row_id": ["a"], "scores": [3.0]}, "at least 2 finite numbers"),
    ],
)
def test_a_table_that_is_none_is_refused(
    tmp_path: Path, columns: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(InputDataError, match=complaint):
        measures_of(table(tmp_path, **columns), IDS)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "measures.parquet"
    path.write_bytes(b"PAR1")
    with pytest.raises(InputDataError, match=r"measures\.parquet is not a readable Parquet file"):
        measures_of(path, IDS)
    with pytest.raises(InputDataError, match="not a readable Parquet file"):
        measures_of(tmp_path / "none", IDS)


def test_hard_prompts_are_kept_in_their_share_and_good_ones_preferred() -> None:
    rows = traffic_rows(900)
    rng = np.random.default_rng(1)
    quality, difficulty = rng.random(900).tolist(), rng.random(900).tolist()
    section = CurationSection.model_validate(
        {
            "embedder": "hash",
            "keep_share": 1.0,
            "prompts_per_surface": dict.fromkeys(SPLITS, 50),
            "strata_tolerance": 0.05,
        }
    )

    def curated(measures: Measures | None) -> dict[str, Any]:
        done = curate(
            rows, section, HashEmbedder(), 3, production_digest="production", measures=measures
        )
        return done.report["surfaces"]["internal"]["balanced"]  # type: ignore[no-any-return]

    told = curated(Measures(quality, difficulty))
    assert (told["quality"], told["difficulty"]) == ("ranked", "ranked and kept in thirds")
    thirds = [name for name in told["constraints"] if name.startswith("difficulty ")]
    assert Counter(thirds) == {f"difficulty '{band}'": 1 for band in ("easy", "middling", "hard")}
    without = curated(None)
    assert without["quality"] == without["difficulty"] == "not applicable"
