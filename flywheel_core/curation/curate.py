"""The three phases in order, surface by surface, then the splits (§2.2.1)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from flywheel_core.curation.columns import hash_shares
from flywheel_core.curation.constraints import (
    TableOne,
    achieved_shares,
    balance,
    best_first,
    checked,
)
from flywheel_core.curation.diversity import Pruned, first_of_each, prune
from flywheel_core.curation.drawing import plan_of
from flywheel_core.curation.filters import filter_rows, told
from flywheel_core.curation.labels import labels_told
from flywheel_core.curation.near_duplicates import (
    JACCARD_MIN,
    FindNear,
    copies,
    near_duplicates,
)
from flywheel_core.curation.privacy import NameFinder
from flywheel_core.curation.relabel import relabelled_rows
from flywheel_core.curation.safety import (
    ConversationClassifier,
    RuleSafetyClassifier,
    SafetyClassifier,
)
from flywheel_core.curation.section import CurationSection
from flywheel_core.curation.splits import (
    EVALUATION_SPLITS,
    TRAINING_SPLITS,
    Assigned,
    Sides,
    assign,
    count_overlaps,
    shared_between_sides,
)
from flywheel_core.curation.strata import Measures, row_strata
from flywheel_core.engines.base import Embedder
from flywheel_core.errors import InputDataError
from flywheel_core.records import PROMPTS, SPLITS, SURFACES, Reason, Split


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
    source_key: str = "in memory",
    measures: Measures | None = None,
) -> Curated:
    """Filter, diversify, balance and split logged turns (`pipeline` does it for files).

    RL prompts are near-policy (§3.5.2), where any row says which model served it. `source_key` is
    the artifact the rows came from.
    """
    timeout_s = config.safety.timeout_s if classifier else None
    filtered = filter_rows(rows, classifier or RuleSafetyClassifier(), names, timeout_s)
    rows, labels = relabelled_rows(rows, filtered.kept, config.row_rules)
    report: dict[str, Any] = {
        "rows": len(rows),
        **told(filtered.counts()),
        "labels": labels_told(labels),
        "filtered": len(filtered.kept),
    }
    selected = select(
        rows,
        filtered.kept,
        config,
        embedder,
        seed,
        production_digest=production_digest,
        find_near=partial(near_duplicates, rows),
        measures=measures,
    )
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
    find_near: FindNear,
    measures: Measures | None = None,
) -> Selected:
    """Phases II and III and the splits, on the rows that passed Phase I. `measures` are of all
    `rows`."""
    ranks = _ranks(rows, passed, seed)
    order = sorted(passed, key=ranks.__getitem__)
    distinct = sorted(order[place] for place in first_of_each([rows[index] for index in order]))
    groups = find_near(distinct)
    gone = copies(rows, groups, ranks)
    unlike = [index for index in distinct if index not in gone]
    report: dict[str, Any] = {
        "distinct": len(distinct),
        "duplicates": {
            "exact": len(passed) - len(distinct),
            "near": len(gone),
            "near_duplicate_jaccard_min": JACCARD_MIN,
        },
        "surfaces": {},
    }
    assigned: list[Assigned] = []
    sides = Sides(rows, groups)
    for surface in SURFACES:
        traffic, indices = (
            [index for index in some if rows[index]["surface"] == surface]
            for some in (passed, unlike)
        )
        if indices:
            one, told = _curate_surface(
                rows,
                traffic,
                indices,
                ranks,
                config,
                embedder,
                seed,
                production_digest,
                sides,
                measures or Measures(),
            )
            assigned.append(one)
            report["surfaces"][surface] = told
    chosen = [
        (index, split)
        for one in assigned
        for split, indices in one.by_split.items()
        for index in indices
    ]
    shared = shared_between_sides(rows, assigned, find_near)
    report["splits"] = {"near_duplicate_jaccard_min": JACCARD_MIN, "shared": shared}
    report["pools"] = _pools(rows, chosen, production_digest)
    report["data_evidence"] = _evidence(rows, assigned, chosen, production_digest, shared)
    return Selected(chosen, report)


def _curate_surface(
    rows: Sequence[Mapping[str, Any]],
    traffic: list[int],
    indices: list[int],
    ranks: Mapping[int, float],
    config: CurationSection,
    embedder: Embedder,
    seed: int,
    production_digest: str,
    sides: Sides,
    measures: Measures,
) -> tuple[Assigned, dict[str, Any]]:
    """`traffic` are the surface's rows that passed Phase I, whose shares the strata follow;
    `indices` those of them that are nobody's duplicate."""
    pruned = _prune(rows, indices, ranks, config, embedder, seed)
    diverse = [indices[place] for place in pruned.kept]
    table = TableOne(
        config.first_turn_share_min,
        config.character_share_max,
        config.strata_tolerance,
        {str(name): shares for name, shares in config.strata_targets.items()},
    )
    balanced = balance(
        rows,
        diverse,
        first_turn_share_min=table.first_turn_share_min,
        character_share_max=table.character_share_max,
        tolerance=table.tolerance,
        targets=table.targets,
        traffic=traffic,
        measures=measures,
        seed=seed,
    )
    kept = np.asarray(balanced.kept, np.int64)
    plan = plan_of(row_strata(rows, np.asarray(traffic, np.int64), measures), balanced.wanted, kept)
    order = kept[best_first(rows, kept, np.zeros(len(kept), np.int64), measures, seed)].tolist()
    knows_model = any(rows[index]["model_digest"] for index in order)
    assigned = assign(
        rows,
        order,
        config.prompts_per_surface,
        first_turn_share_min=config.first_turn_share_min,
        character_share_max=config.character_share_max,
        rl_digest=production_digest if knows_model else None,
        sides=sides,
        rl_older_share_max=config.rl_older_share_max,
        plan=plan,
    )
    final = [index for taken in assigned.by_split.values() for index in taken]
    if not final:
        raise InputDataError(
            f"curation: none of the {len(traffic)} rows of surface {rows[traffic[0]]['surface']!r} "
            f"that passed Phase I became a prompt ({len(kept)} were balanced): at "
            f"character_share_max {config.character_share_max} a set needs "
            f"{1 / config.character_share_max:.0f} prompts before a character may have one; bring "
            "more traffic, or raise it"
        )
    return assigned, {
        "distinct": len(indices),
        "diverse": len(diverse),
        "diversity": pruned.report(),
        "balanced": balanced.achieved,
        "final": achieved_shares(rows, final)
        | {"constraints": checked(rows, final, traffic, table, measures)},
        "split_by": assigned.unit,
        "asked": dict(assigned.asked),
        "got": dict(assigned.got),
        "left_out": dict(sorted(assigned.left_out.items())),
    }


def _ranks(
    rows: Sequence[Mapping[str, Any]], indices: Sequence[int], seed: int
) -> dict[int, float]:
    """By row index, the number by which duplicates and neighbours decide who stays: drawn from the
    row's id, so it depends neither on the order of the rows nor on the other rows."""
    shares = hash_shares(f"rank:{seed}:", rows, np.asarray(indices, dtype=np.int64))
    return dict(zip(indices, shares.tolist(), strict=True))


def _prune(
    rows: Sequence[Mapping[str, Any]],
    indices: Sequence[int],
    ranks: Mapping[int, float],
    config: CurationSection,
    embedder: Embedder,
    seed: int,
) -> Pruned:
    """Phase II on the turns to be answered; each wording is embedded once."""
    turns = [rows[index]["messages"][-1]["content"] for index in indices]
    wordings = sorted(set(turns))
    numbers = {wording: number for number, wording in enumerate(wordings)}
    return prune(
        embedder.embed(wordings),
        np.array([ranks[index] for index in indices]),
        config.keep_share,
        config.cluster_rows_max,
        seed,
        wording=np.array([numbers[turn] for turn in turns], dtype=np.int64),
    )


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


def _pools(
    rows: Sequence[Mapping[str, Any]], chosen: Sequence[tuple[int, Split]], production_digest: str
) -> dict[Split, dict[Reason, int]]:
    """How many prompts of each split were taken for which reason."""
    pools: dict[Split, dict[Reason, int]] = {split: {} for split in SPLITS}
    for index, split in chosen:
        reason = reason_of(split, rows[index]["model_digest"], production_digest)
        pools[split][reason] = pools[split].get(reason, 0) + 1
    return pools


def _evidence(
    rows: Sequence[Mapping[str, Any]],
    assigned: Sequence[Assigned],
    chosen: Sequence[tuple[int, Split]],
    production_digest: str,
    shared: Mapping[str, Mapping[str, int]],
) -> dict[str, Any]:
    """What the data gate reads: sizes, overlaps (equal prompts and near duplicates), and the
    near-policy share of training prompts."""
    in_training, in_two_sets = count_overlaps(rows, assigned)
    in_training += shared["training_and_evaluation"]["near_duplicates"]
    in_two_sets += shared["evaluation_sets"]["near_duplicates"]
    training = [rows[index]["model_digest"] for index, split in chosen if split in TRAINING_SPLITS]
    known = [digest for digest in training if digest is not None]
    near = sum(digest == production_digest for digest in known)
    return {
        "num_train_rows": len(training),
        "num_eval_prompts": sum(split in EVALUATION_SPLITS for _, split in chosen),
        "train_eval_overlap_count": in_training,
        "prompt_set_overlap_count": in_two_sets,
        "near_policy_share": near / len(training) if known else None,
    }
