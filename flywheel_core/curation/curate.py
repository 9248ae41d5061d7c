"""The three phases in order, surface by surface, then the splits (§2.2.1)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flywheel_core.curation.constraints import achieved_shares, balance
from flywheel_core.curation.diversity import Vectors, first_of_each, prune
from flywheel_core.curation.filters import RuleSafetyClassifier, SafetyClassifier, filter_rows
from flywheel_core.curation.splits import (
    EVALUATION_SPLITS,
    TRAINING_SPLITS,
    Assigned,
    assign,
    count_overlaps,
    hash_share,
)
from flywheel_core.engines.base import Embedder
from flywheel_core.recipe import CurationSection
from flywheel_core.records import PROMPTS, SURFACES, Reason, Split


@dataclass(frozen=True)
class Curated:
    """Prompt rows of `records.PROMPTS`, and what happened to every other row."""

    prompts: list[dict[str, Any]]
    report: dict[str, Any]


def curate(
    rows: Sequence[Mapping[str, Any]],
    config: CurationSection,
    embedder: Embedder,
    seed: int,
    *,
    production_digest: str,
    classifier: SafetyClassifier | None = None,
    source_key: str = "in memory",
) -> Curated:
    """Filter, diversify, balance and split logged turns (`pipeline` does it for files).

    RL prompts are near-policy (§3.5.2), where any row says which model served it. `source_key` is
    the artifact the rows came from.
    """
    passed, rejected = filter_rows(rows, classifier or RuleSafetyClassifier())
    report: dict[str, Any] = {
        "rows": len(rows),
        "rejected": dict(sorted(rejected.items())),
        "filtered": len(passed),
    }
    selected = select(rows, passed, config, embedder, seed, production_digest=production_digest)
    prompts = [
        prompt_row(rows[index], split, source_key, production_digest)
        for index, split in selected.chosen
    ]
    return Curated(prompts, report | selected.report)


@dataclass(frozen=True)
class Selected:
    """Indices of the chosen rows with their split, and what was weighed."""

    chosen: list[tuple[int, Split]]
    report: dict[str, Any]


def select(
    rows: Sequence[Mapping[str, Any]],
    passed: Sequence[int],
    config: CurationSection,
    embedder: Embedder,
    seed: int,
    *,
    production_digest: str,
) -> Selected:
    """Phases II and III and the splits, on the rows that passed Phase I."""
    distinct = [passed[i] for i in first_of_each([rows[index] for index in passed])]
    report: dict[str, Any] = {"distinct": len(distinct), "surfaces": {}}
    assigned: list[Assigned] = []
    for surface in SURFACES:
        indices = [index for index in distinct if rows[index]["surface"] == surface]
        if indices:
            one, told = _curate_surface(rows, indices, config, embedder, seed, production_digest)
            assigned.append(one)
            report["surfaces"][surface] = told
    chosen = [
        (index, split)
        for one in assigned
        for split, indices in one.by_split.items()
        for index in indices
    ]
    report["data_evidence"] = _evidence(rows, assigned, chosen, production_digest)
    return Selected(chosen, report)


def _curate_surface(
    rows: Sequence[Mapping[str, Any]],
    indices: list[int],
    config: CurationSection,
    embedder: Embedder,
    seed: int,
    production_digest: str,
) -> tuple[Assigned, dict[str, Any]]:
    vectors = _embed([rows[index]["messages"][-1]["content"] for index in indices], embedder)
    diverse = [indices[i] for i in prune(vectors, config.keep_share, config.num_clusters, seed)]
    balanced = balance(
        rows,
        diverse,
        first_turn_share_min=config.first_turn_share_min,
        character_share_max=config.character_share_max,
    )
    order = sorted(balanced.kept, key=lambda i: hash_share(f"{seed}:{rows[i]['row_id']}"))
    knows_model = any(rows[index]["model_digest"] for index in order)
    assigned = assign(
        rows,
        order,
        config.prompts_per_surface,
        first_turn_share_min=config.first_turn_share_min,
        character_share_max=config.character_share_max,
        rl_digest=production_digest if knows_model else None,
        rl_older_share_max=config.rl_older_share_max,
    )
    final = [index for taken in assigned.by_split.values() for index in taken]
    return assigned, {
        "distinct": len(indices),
        "diverse": len(diverse),
        "balanced": balanced.achieved,
        "final": achieved_shares(rows, final),
        "split_by": assigned.unit,
        "asked": dict(assigned.asked),
        "got": dict(assigned.got),
    }


def _embed(texts: Sequence[str], embedder: Embedder) -> Vectors:
    """Unit vectors [len(texts), d] of the turns to be answered, each wording embedded once."""
    unique = sorted(set(texts))
    position = {text: index for index, text in enumerate(unique)}
    return embedder.embed(unique)[[position[text] for text in texts]]


def prompt_row(
    row: Mapping[str, Any], split: Split, source_key: str, production_digest: str
) -> dict[str, Any]:
    """A row of `records.PROMPTS`, with where it came from and why it was taken."""
    return {
        **{name: row[name] for name in PROMPTS.names if name in row},
        "prompt_id": row["row_id"],
        "split": split,
        "source_key": source_key,
        "reason": reason_of(split, row["model_digest"], production_digest),
    }


def reason_of(split: Split, model_digest: str | None, production_digest: str) -> Reason:
    """Why a prompt of that split is taken."""
    if split in EVALUATION_SPLITS:
        return "held_out"
    if split != "rl":
        return "annotation" if split == "annotate" else "supervised"
    if model_digest is None:
        return "policy_unknown"
    return "near_policy" if model_digest == production_digest else "older_policy"


def _evidence(
    rows: Sequence[Mapping[str, Any]],
    assigned: Sequence[Assigned],
    chosen: Sequence[tuple[int, Split]],
    production_digest: str,
) -> dict[str, Any]:
    """What the data gate reads: sizes, overlaps, and the near-policy share of training prompts."""
    train_overlap, shared = count_overlaps(rows, assigned)
    training = [rows[index]["model_digest"] for index, split in chosen if split in TRAINING_SPLITS]
    known = [digest for digest in training if digest is not None]
    near = sum(digest == production_digest for digest in known)
    return {
        "num_train_rows": len(training),
        "num_eval_prompts": sum(split in EVALUATION_SPLITS for _, split in chosen),
        "train_eval_overlap_count": train_overlap,
        "prompt_set_overlap_count": shared,
        "near_policy_share": near / len(training) if known else None,
    }
