"""Annotated pairs of this generation and of those before it, as training rows and as consensus."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from flywheel_core.annotation.adjudication import has_consensus
from flywheel_core.annotation.pairs import held_out_unit
from flywheel_core.erasure.users import Erasures, without_erased
from flywheel_core.errors import InputDataError
from flywheel_core.records import PAIRS, Surface, missing_columns, read_table
from flywheel_core.stages import BATCH

Reviews = Literal["all", "single", "unanimous"]

COLUMNS = [
    PAIRS.field(name)
    for name in (
        *("prompt_id", "messages", "response_0", "response_1"),
        *("user_id", "conversation_id", "votes", "target", "held_out"),
    )
]
"""What is read of a batch: an older flywheel's pairs had fewer columns than this one's."""

STATIC = "static"


@dataclass(frozen=True)
class Batch:
    """One generation's pairs of one surface; `workflow` is static where the batch does not say."""

    generation: int
    table: pa.Table

    @property
    def workflows(self) -> list[str]:
        if "workflow" not in self.table.column_names:
            return [STATIC] * self.table.num_rows
        return [found or STATIC for found in self.table.column("workflow").to_pylist()]

    def training(self, reviews: Reviews) -> pa.Table:
        """The rows with `COLUMNS`, their targets as the recipe wants reviews to be read, and
        `consensus`: whether the votes have it, which a target does not say once reviews are read
        one by one or splits are adjudicated."""
        taken = self.table.select([one.name for one in COLUMNS]).cast(pa.schema(COLUMNS))
        agreed = [has_consensus(votes) for votes in taken.column("votes").to_pylist()]
        return with_reviews(taken.append_column("consensus", pa.array(agreed, pa.bool_())), reviews)

    def consensus(self) -> dict[str, list[dict[str, Any]]]:
        """Held-out pairs on which three annotators agree, by workflow (Table 9's rule)."""
        found: dict[str, list[dict[str, Any]]] = {}
        for row, workflow in zip(self.table.to_pylist(), self.workflows, strict=True):
            if row["held_out"] and has_consensus(row["votes"]):
                found.setdefault(workflow, []).append(row)
        return dict(sorted(found.items()))

    def held_out_units(self) -> set[str]:
        rows = self.table.select(["held_out", "user_id", "conversation_id"]).to_pylist()
        return {held_out_unit(row) for row in rows if row["held_out"]}

    def num_without_consensus(self) -> int:
        """Held-out pairs that the rule sets aside."""
        held_out: list[bool] = self.table.column("held_out").to_pylist()
        return sum(held_out) - sum(map(len, self.consensus().values()))


def read_batches(
    inputs: Mapping[str, Path], generation: int, surface: Surface, erasures: Erasures
) -> list[Batch]:
    """Every batch with pairs of this surface, oldest first; the last one is this generation's."""
    folders = {
        int(name.split("-")[1]): folder
        for name, folder in inputs.items()
        if name.startswith(f"{BATCH}-")
    } | {generation: inputs["annotate"]}
    batches = []
    for number, folder in sorted(folders.items()):
        path = folder / f"pairs_{surface}.parquet"
        table = without_erased(read_table(path), erasures)
        _require_columns(path, table)
        batches.append(Batch(number, table))
    return batches


@dataclass(frozen=True)
class Training:
    """Rows of `Batch.training`, held-out ones among them, and how many training rows were left out
    because another batch holds out their user or conversation."""

    table: pa.Table
    num_left_out: int


def training_rows(
    batches: Sequence[Batch], reviews: Reviews, earlier_batches_max: int | None
) -> Training:
    """The newest batch's pairs, and those of the earlier ones that the recipe takes.

    A batch was split by its own climb's `annotation.held_out_share`. A unit that any batch holds
    out, taken or not, trains nothing: the ledger measures on every batch.
    """
    taken = batches if earlier_batches_max is None else batches[-(earlier_batches_max + 1) :]
    table = pa.concat_tables([batch.training(reviews) for batch in taken])
    held_out = {unit for batch in batches for unit in batch.held_out_units()}
    kept = [
        row["held_out"] or held_out_unit(row) not in held_out
        for row in table.select(["held_out", "user_id", "conversation_id"]).to_pylist()
    ]
    return Training(table.filter(pa.array(kept, pa.bool_())), kept.count(False))


def _require_columns(path: Path, table: pa.Table) -> None:
    faults = missing_columns(table.schema, pa.schema(COLUMNS))
    if faults:
        raise InputDataError(f"{path}: not a table of pairs: {'; '.join(faults)}")


def with_reviews(table: pa.Table, reviews: Reviews) -> pa.Table:
    """Targets of the three variants of §3.4.1 (Table 9).

    `all`: the targets as annotated: the share of votes, which is training on every single review in
    expectation, or the adjudicator's choice where a split was settled. `single`: one annotator's
    vote a pair, the choice fixed by the prompt's id. `unanimous`: only pairs on which all agree.
    Held-out rows are kept as they are.
    """
    if reviews == "all":
        return table
    votes, held_out = table.column("votes").to_pylist(), table.column("held_out").to_pylist()
    if reviews == "unanimous":
        kept = [out or has_consensus(cast) for cast, out in zip(votes, held_out, strict=True)]
        return table.filter(pa.array(kept, pa.bool_()))
    names = table.column("prompt_id").to_pylist()
    chosen = [_chosen(name, cast) for name, cast in zip(names, votes, strict=True)]
    targets = [
        target if out else float(vote if vote in (0, 1) else 0.5)
        for target, out, vote in zip(
            table.column("target").to_pylist(), held_out, chosen, strict=True
        )
    ]
    index = table.column_names.index("target")
    return table.set_column(index, PAIRS.field("target"), pa.array(targets, pa.float32()))


def _chosen(prompt_id: str, votes: list[int]) -> int:
    """One vote, drawn by the prompt's id: the same on every try."""
    digest = hashlib.sha256(f"review:{prompt_id}".encode()).digest()
    return int(votes[int.from_bytes(digest[:8], "big") % len(votes)])
