"""From the logs of some users to sums over them: a pure function, exact in integers.

A partition holds all rows of its users, so users are complete within it, and sums over partitions
are sums over the experiment: the same number whoever computed which partition, in any order.

For each day of the window the sums say what a readout at the end of that day sees, and nothing
later: a user who meets the other arm on day 5 is still in the sums of day 4.
"""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from flywheel_core.errors import InputDataError
from flywheel_core.experiments.logs import ARMS, DAY_US, UNKNOWN, as_numbers

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

NEVER = np.iinfo(np.int64).max
ENTIRE = ("", "")
"""The cell that is no breakdown but the whole population."""

OUTCOMES = ("one", "engaged_days", "engaged", "sends")
"""First columns of the moments: 1, number of days engaged, A = 1(S > 0), S (Eq. 9 and 12)."""


@dataclass(frozen=True)
class Window:
    """What is read, and how. Days run from `start_us` (microseconds since 1970, UTC) in whole
    days; `num_days` of them are read. `days` are those whose sums are wanted, counted from 0."""

    start_us: int
    num_days: int
    days: tuple[int, ...]
    clock_skew_us: int
    max_sends_per_day: int
    dimensions: tuple[str, ...] = ()
    covariates: tuple[str, ...] = ()
    guardrails: tuple[str, ...] = ()
    with_histogram: bool = False

    @property
    def end_us(self) -> int:
        return self.start_us + self.num_days * DAY_US

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the moments' rows and columns."""
        return (*OUTCOMES, *self.covariates, *self.guardrails)


@dataclass(frozen=True, order=True)
class Cell:
    """One day's users of one arm, all of them or those with `value` in `dimension`."""

    day: int
    arm: int
    dimension: str = ""
    value: str = ""


@dataclass
class Sums:
    """Sums over users. `moments[cell]` is Σ u uᵀ of the users' vectors (see `Window.columns`):
    its first row holds the plain sums. `counts` says what was left out and why, by
    (what, day, arm), -1 where neither applies. `histogram` counts the last day's users by (arm,
    engaged days, sends), for the bootstrap."""

    moments: dict[Cell, Ints] = field(default_factory=dict)
    counts: Counter[tuple[str, int, int]] = field(default_factory=Counter)
    histogram: Counter[tuple[int, int, int]] = field(default_factory=Counter)

    def add(self, other: "Sums") -> None:
        """Take another partition's sums in."""
        for cell, matrix in other.moments.items():
            mine = self.moments.get(cell)
            # Python's integers: a sum of partitions may pass 64 bits.
            exact = matrix.astype(object)
            self.moments[cell] = exact if mine is None else mine + exact
        self.counts.update(other.counts)
        self.histogram.update(other.histogram)


@dataclass(frozen=True)
class _Users:
    """One row a user: arm of the first exposure, its time, that of the other arm's first one
    (`NEVER` if there is none), and the row of the log that holds the first."""

    ids: pa.Array
    arm: Ints
    first_us: Ints
    crossed_us: Ints
    row: Ints


def sum_users(exposures: pa.Table, events: pa.Table, window: Window) -> Sums:
    """The sums over the users of one partition; `exposures` and `events` are normalised logs."""
    sums = Sums()
    users = _first_exposures(exposures, window, sums)
    if len(users.ids) == 0:
        sums.counts["events_unexposed", -1, -1] += events.num_rows
        return sums
    code, day, rows = _events_of(events, users, window, sums)
    grids = {
        name: _by_user_and_day(
            _values(events, name, rows, window), code, day, len(users.ids), window
        )
        for name in ("sends", *window.guardrails)
    }
    _count_events_by_day(users, code, day, grids["sends"], window, sums)
    _sum_days(users, exposures, grids, window, sums)
    return sums


def _first_exposures(exposures: pa.Table, window: Window, sums: Sums) -> _Users:
    at = as_numbers(exposures.column("exposed_at"))
    early, late = at < window.start_us, at >= window.end_us
    sums.counts["exposures_before_window", -1, -1] += int(early.sum())
    sums.counts["exposures_after_window", -1, -1] += int(late.sum())
    kept = np.flatnonzero(~(early | late))
    sums.counts["exposures", -1, -1] += len(kept)
    arm = as_numbers(exposures.column("arm")).astype(np.int64)
    names = exposures.column("user_id")
    if len(kept) < len(at):
        at, arm, names = at[kept], arm[kept], names.take(pa.array(kept))
    encoded = names.combine_chunks().dictionary_encode()
    ids, code = encoded.dictionary, encoded.indices.to_numpy().astype(np.int64)
    for day, count in enumerate(np.bincount((at - window.start_us) // DAY_US)):
        sums.counts["exposures_of_day", day, -1] += int(count)
    first = np.full((len(ids), 2), NEVER)
    np.minimum.at(first.reshape(-1), code * 2 + arm, at)
    in_control, in_test = first.T
    own = (in_test < in_control).astype(np.int64)  # at the same moment: crossed from the start
    first_us, crossed_us = np.minimum(in_control, in_test), np.maximum(in_control, in_test)
    opening = np.flatnonzero((at == first_us[code]) & (arm == own[code]))[::-1]
    row = np.zeros(len(ids), np.int64)
    row[code[opening]] = kept[opening]
    return _Users(ids, own, first_us, crossed_us, row)


def _events_of(
    events: pa.Table, users: _Users, window: Window, sums: Sums
) -> tuple[Ints, Ints, Ints]:
    """User number, day and row of each event that counts; the rest is counted by its reason."""
    sums.counts["events", -1, -1] += events.num_rows
    at = as_numbers(events.column("at"))
    found = pc.index_in(events.column("user_id"), value_set=users.ids)
    code = found.fill_null(-1).to_numpy().astype(np.int64)
    exposed = code >= 0
    first = np.where(exposed, users.first_us[code], 0)
    reasons: dict[str, Bools] = {
        "events_unexposed": ~exposed,
        "events_after_window": exposed & (at >= window.end_us),
        "events_before_exposure": exposed & (at < first - window.clock_skew_us),
    }
    dropped = np.zeros(len(at), bool)
    for reason, mask in reasons.items():
        sums.counts[reason, -1, -1] += int(mask.sum())
        dropped |= mask
    sums.counts["events_skewed", -1, -1] += int((~dropped & (at < first)).sum())
    rows = np.flatnonzero(~dropped)
    rows = _without_duplicates(events, rows, code, sums)
    # An event that a slow clock puts before its user's exposure counts at the exposure.
    moment = np.maximum(at[rows], first[rows])
    return code[rows], (moment - window.start_us) // DAY_US, rows


def _without_duplicates(events: pa.Table, rows: Ints, code: Ints, sums: Sums) -> Ints:
    """The rows whose event id their user did not have before. By the user: ids may be counters
    that start again for each, and the other users of a partition must not matter."""
    if "event_id" not in events.column_names:
        return rows
    column = events.column("event_id")
    if pa.types.is_integer(column.type):
        ids = as_numbers(column)[rows]
        if (ids[1:] > ids[:-1]).all():  # a counter, in the order of the log
            return rows
        ordered = np.sort(ids)
        if not (ordered[1:] == ordered[:-1]).any():
            return rows
    else:
        encoded = column.take(pa.array(rows)).combine_chunks().dictionary_encode()
        if len(encoded.dictionary) == len(rows):
            return rows
        ids = encoded.indices.to_numpy()
    users = code[rows]
    order = np.lexsort((ids, users))  # stable: of equal ones the first row stays first
    users, ids = users[order], ids[order]
    again = (users[1:] == users[:-1]) & (ids[1:] == ids[:-1])
    sums.counts["events_duplicate", -1, -1] += int(again.sum())
    kept: Ints = rows[np.sort(order[np.r_[True, ~again]])]
    return kept


def _values(events: pa.Table, name: str, rows: Ints, window: Window) -> Ints | None:
    """A column's values; None means 1 for each row. A row that makes its user a program does so
    as well with one send too many, and its size must not matter to the other users' sums."""
    if name not in events.column_names:
        return None
    values = as_numbers(events.column(name))[rows]
    return np.minimum(values, window.max_sends_per_day + 1) if name == "sends" else values


def _by_user_and_day(
    values: Ints | None, code: Ints, day: Ints, num_users: int, window: Window
) -> Ints:
    """Sums of shape [num_users, num_days]. Exact: float64 holds every integer below 2^53."""
    size = num_users * window.num_days
    cells = np.bincount(code * window.num_days + day, weights=values, minlength=size)
    if cells.max() >= 2**53:  # by the user's own day, so alike in every partition
        raise InputDataError(
            f"a user's day holds {int(cells.max()):,} of something: no log has that many; find "
            "what wrote it"
        )
    return cells.astype(np.int64).reshape(num_users, window.num_days)


def _count_events_by_day(
    users: _Users, code: Ints, day: Ints, sends: Ints, window: Window, sums: Sums
) -> None:
    """What tells a day that was logged in part from a whole one (`broken`): rows of the events by
    day and arm, without the days of programs, and how many users were new."""
    num_rows = _by_user_and_day(None, code, day, len(users.ids), window)
    most = window.max_sends_per_day
    usual = np.where((num_rows > most) | (sends > most), 0, num_rows)
    new = (users.first_us - window.start_us) // DAY_US
    by_arm = np.argsort(users.arm, kind="stable")
    num_rows, usual, new = num_rows[by_arm], usual[by_arm], new[by_arm]
    first_test = int(len(users.arm) - users.arm.sum())
    for place, mine in enumerate((slice(first_test), slice(first_test, None))):
        found = {
            "events_of_day": num_rows[mine].sum(axis=0),
            "usual_events": usual[mine].sum(axis=0),
            "usual_squares": np.einsum("ij,ij->j", usual[mine], usual[mine]),
            "users_new": np.bincount(new[mine], minlength=window.num_days),
        }
        for what, by_day in found.items():
            for one, count in enumerate(by_day.tolist()):
                sums.counts[what, one, place] += count


def _sum_days(
    users: _Users, exposures: pa.Table, grids: dict[str, Ints], window: Window, sums: Sums
) -> None:
    before = [as_numbers(exposures.column(name))[users.row] for name in window.covariates]
    cells = [(np.zeros(len(users.ids), np.int64), [ENTIRE])] + [
        _cells_of(exposures, name, users.row) for name in window.dimensions
    ]
    over = grids["sends"] > window.max_sends_per_day
    for day in window.days:
        end_us = window.start_us + (day + 1) * DAY_US
        there = users.first_us < end_us
        crossed = there & (users.crossed_us < end_us)
        bot = there & ~crossed & over[:, : day + 1].any(axis=1)
        read = there & ~crossed & ~bot
        sums.counts["users_in_both_arms", day, -1] += int(crossed.sum())
        for arm in range(len(ARMS)):
            sums.counts["users_bots", day, arm] += int((bot & (users.arm == arm)).sum())
        vectors = _vectors(grids, before, day, window)
        for number, values in cells:
            _add_moments(vectors, read, users.arm, number, values, day, sums)
        if window.with_histogram and day == max(window.days):
            _add_histogram(vectors[read], users.arm[read], sums)


def _cells_of(exposures: pa.Table, dimension: str, row: Ints) -> tuple[Ints, list[tuple[str, str]]]:
    """The number of each user's cell of a breakdown, and the cells' names."""
    column = exposures.column(dimension).take(pa.array(row)).combine_chunks()
    encoded = column.fill_null(UNKNOWN).dictionary_encode()
    names = [(dimension, value) for value in encoded.dictionary.to_pylist()]
    return encoded.indices.to_numpy().astype(np.int64), names


def _vectors(grids: dict[str, Ints], before: list[Ints], day: int, window: Window) -> Ints:
    """The users' vectors, shape [num_users, len(window.columns)], at the end of a day."""
    sent = grids["sends"][:, : day + 1]
    sends = sent.sum(axis=1)
    columns = [np.ones_like(sends), (sent > 0).sum(axis=1), (sends > 0).astype(np.int64), sends]
    columns += before
    columns += [grids[name][:, : day + 1].sum(axis=1) for name in window.guardrails]
    return np.stack(columns, axis=1)


def _add_moments(
    vectors: Ints,
    read: Bools,
    arm: Ints,
    number: Ints,
    values: list[tuple[str, str]],
    day: int,
    sums: Sums,
) -> None:
    for place in range(len(ARMS)):
        for index, (dimension, value) in enumerate(values):
            chosen = vectors[read & (arm == place) & (number == index)]
            if len(chosen):
                sums.moments[Cell(day, place, dimension, value)] = _products(chosen)


def _products(vectors: Ints) -> Ints:
    """Σ u uᵀ, exact: in float64 (fast) where every sum stays below 2^53, else in int64."""
    largest = int(vectors.max())
    bound = largest * largest * len(vectors)
    if bound < 2**53:
        floats = vectors.astype(np.float64)
        return (floats.T @ floats).astype(np.int64)
    if bound >= 2**63:
        raise InputDataError(
            f"a user has {largest} of something within the window: the sum of its squares does "
            "not fit; find what wrote it, or lower max_sends_per_day"
        )
    return vectors.T @ vectors


def _add_histogram(vectors: Ints, arm: Ints, sums: Sums) -> None:
    days, sends = vectors[:, 1], vectors[:, 3]
    keys, counts = np.unique(np.stack([arm, days, sends], axis=1), axis=0, return_counts=True)
    for key, count in zip(keys.tolist(), counts.tolist(), strict=True):
        sums.histogram[key[0], key[1], key[2]] += count
