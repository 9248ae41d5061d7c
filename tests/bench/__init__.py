"""`make bench`: measurements that take minutes, as rows of `bench.json` and a table.

A group is a module with `rows() -> Iterator[Row]`. Speeds are ratios measured in one run against
what a user would otherwise call; absolute times are printed for orientation and hold no promise
beyond the machine they were taken on.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One measurement. `goal` says in words what would be good, `holds` whether it was met
    (None: no goal), `how` how it was measured."""

    name: str
    value: float | None
    unit: str
    goal: str
    holds: bool | None
    how: str
