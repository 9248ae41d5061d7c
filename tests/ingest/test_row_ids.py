"""Row ids seen before: as a set says, in 8 bytes a row."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from flywheel_core.row_ids import SeenIds, are_in, hashes_of


@given(st.lists(st.lists(st.sampled_from([f"r{n}" for n in range(40)]), max_size=30), max_size=12))
def test_an_id_is_new_once(batches: list[list[str]]) -> None:
    seen, known = SeenIds(), set()
    for batch in batches:
        found = seen.are_new(batch).tolist()
        for row_id, new in zip(batch, found, strict=True):
            assert new == (row_id not in known)
            known.add(row_id)
    assert seen.sorted_hashes().tolist() == sorted(hashes_of(known).tolist())


def test_runs_stay_few_and_hold_eight_bytes_a_row() -> None:
    seen = SeenIds()
    for first in range(0, 100_000, 1_000):
        assert seen.are_new([f"r{first + n}" for n in range(1_000)]).all()
    assert len(seen._runs) <= 8
    assert sum(run.nbytes for run in seen._runs) == 800_000
    assert not seen.are_new(["r0", "r99999", "r50000"]).any()


def test_nothing_is_in_an_empty_run() -> None:
    assert not are_in(hashes_of(["a"]), np.empty(0, np.uint64)).any()
