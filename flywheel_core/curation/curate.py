"""The three phases in order, surface by surface, then the splits (§2.2.1)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flywheel_core.curation.constraints import achieved_shares, balance
from flywheel_core.curation.diversity import Vectors, first_of_each, prune
from flywheel_core.curation.filters import filter_rows
from flywheel_core.curation.near_duplicates import JACCARD_MIN, near_duplicates
from flywheel_core.curation.privacy import NameFinder
from flywheel_core.curation.safety import (
    ConversationClassifier,
    RuleSafetyClassifier,
    SafetyClassifier,
)
from flywheel_core.curation.splits import (
    EVALUATION_SPLITS,
    TRAINING_SPLITS,
    Assigned,
    Sides,
    assign,
    count_overlaps,
    hash_share,
    shared_between_sides,
)
from flywheel_core.engines.base import Embedder
from flywheel_core.recipe import CurationSection
from flywheel_core.records import SURFACES


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
    classifier: SafetyClassifier | ConversationClassifier | None = None,
    names: NameFinder | None = None,
) -> Curated:
    """Filter, diversify, balance and split logged turns.

    RL prompts are near-policy only (§3.5.2), where any row says which model served it.
    """
    filtered = filter_rows(rows, classifier or RuleSafetyClassifier(), names)
    passed = filtered.kept
    report: dict[str, Any] = {
        "rows": len(rows),
        "rejected": dict(sorted(filtered.rejected.items())),
        "privacy": {
            "rows_by_rule": dict(sorted(filtered.found.items())),
            "suspected_street_addresses": filtered.num_suspected_addresses,
        },
        "safety": {
            "failures": dict(sorted(filtered.safety_failures.items())),
            "rows_by_category": dict(sorted(filtered.unsafe_categories.items())),
        },
        "surfaces": {},
    }
    distinct = [passed[i] for i in first_of_each([rows[index] for index in passed])]
    report |= {"filtered": len(passed), "distinct": len(distinct)}
    assigned: list[Assigned] = []
    sides = Sides(rows, near_duplicates(rows, distinct))
    for surface in SURFACES:
        indices = [index for index in distinct if rows[index]["surface"] == surface]
        if indices:
            one, told = _curate_surface(
                rows, indices, config, embedder, seed, production_digest, sides
            )
            assigned.append(one)
            report["surfaces"][surface] = told
    prompts = [
        _prompt_row(rows[index], split)
        for one in assigned
        for split, chosen in one.by_split.items()
        for index in chosen
    ]
    shared = shared_between_sides(rows, assigned)
    report["splits"] = {"near_duplicate_jaccard_min": JACCARD_MIN, "shared": shared}
    report["data_evidence"] = _evidence(rows, assigned, prompts, production_digest, shared)
    return Curated(prompts, report)


def _curate_surface(
    rows: Sequence[Mapping[str, Any]],
    indices: list[int],
    config: CurationSection,
    embedder: Embedder,
    seed: int,
    production_digest: str,
    sides: Sides,
) -> tuple[Assigned, dict[str, Any]]:
    vectors = _embed([rows[index]["messages"][-1]["content"] for index in indices], embedder)
    diverse = [indices[i] for i in prune(vectors, config.keep_share, config.num_clusters, seed)]
    balanced = balance(
        rows,
        diverse,
        first_turn_share_min=config.first_turn_share_min,
        character_share_max=config.character_share_max,
        tolerance=config.strata_tolerance,
        targets={str(name): shares for name, shares in config.strata_targets.items()},
        traffic=indices,
        seed=seed,
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
        sides=sides,
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
        "left_out": dict(sorted(assigned.left_out.items())),
    }


def _embed(texts: Sequence[str], embedder: Embedder) -> Vectors:
    """Unit vectors [len(texts), d] of the turns to be answered, each wording embedded once."""
    unique = sorted(set(texts))
    position = {text: index for index, text in enumerate(unique)}
    return embedder.embed(unique)[[position[text] for text in texts]]


def _prompt_row(row: Mapping[str, Any], split: str) -> dict[str, Any]:
    kept = {name: value for name, value in row.items() if name not in ("row_id", "day")}
    return {**kept, "prompt_id": row["row_id"], "split": split}


def _evidence(
    rows: Sequence[Mapping[str, Any]],
    assigned: Sequence[Assigned],
    prompts: Sequence[Mapping[str, Any]],
    production_digest: str,
    shared: Mapping[str, Mapping[str, int]],
) -> dict[str, Any]:
    """What the data gate reads: sizes, overlaps (equal prompts and near duplicates), and the
    near-policy share of training prompts."""
    in_training, in_two_sets = count_overlaps(rows, assigned)
    in_training += shared["training_and_evaluation"]["near_duplicates"]
    in_two_sets += shared["evaluation_sets"]["near_duplicates"]
    training = [prompt for prompt in prompts if prompt["split"] in TRAINING_SPLITS]
    known = [prompt for prompt in training if prompt["model_digest"] is not None]
    near = sum(prompt["model_digest"] == production_digest for prompt in known)
    return {
        "num_train_rows": len(training),
        "num_eval_prompts": sum(prompt["split"] in EVALUATION_SPLITS for prompt in prompts),
        "train_eval_overlap_count": in_training,
        "prompt_set_overlap_count": in_two_sets,
        "near_policy_share": near / len(training) if known else None,
    }
