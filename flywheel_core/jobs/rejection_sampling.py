"""Algorithm 1: best of k from a pool of policies becomes the supervised data (§2.4.1)."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flywheel_core.annotation.section import PrevalenceSection
from flywheel_core.curation.config import LintRule
from flywheel_core.curation.lint_tables import LINT_EDITS, LINT_FILE, lint_training_rows
from flywheel_core.engines.checkpoint import require_same_tokenizer
from flywheel_core.errors import ConfigError, InputDataError
from flywheel_core.evaluation.features import feature_means
from flywheel_core.evaluation.prevalence import (
    compare_accepted,
    summarise_comparisons,
)
from flywheel_core.jobs.answers import (
    Prompts,
    Scores,
    answer,
    read_prompts,
    read_standards,
    reward_models,
    score_or_nan,
)
from flywheel_core.jobs.base import StageContext, StageOutput, main
from flywheel_core.records import SIGNALS, TRAINING_ROWS, write_table
from flywheel_core.sampling.rejection import accept_best, composite, require_scored, route
from flywheel_core.sections import RejectionSection, Section


class Config(Section):
    rejection_sampling: RejectionSection
    lint: tuple[LintRule, ...] = ()
    prevalence: PrevalenceSection = PrevalenceSection()


def run(config: Config, inputs: Mapping[str, Path], context: StageContext) -> StageOutput:
    """Writes `training.parquet`: accepted samples, and a share of the base model's own data; and
    where the recipe asks for the linter, its edits to them."""
    section = config.rejection_sampling
    require_same_tokenizer(
        [inputs["production"] / "model"], reward_models(inputs["reward_models"], "")
    )
    prompts = read_prompts(inputs["curate"], "reject")
    policies = {"production": inputs["production"] / "model"} | {
        name: folder / "model"
        for name, folder in inputs.items()
        if name == "base" or name.startswith("pool-")
    }
    routed = route(len(prompts), list(policies), section.pool_share, context.seed)
    candidates = _candidates(section, prompts, policies, routed, context)
    scores = _scores(section, inputs["reward_models"], prompts, candidates, context)
    unscored = require_scored(scores, section.unscored_share_max)
    accepted = accept_best(scores, section.threshold_sd)
    if not accepted:
        best = scores[np.isfinite(scores)].max(initial=-np.inf)
        raise InputDataError(
            f"rejection_sampling.threshold_sd {section.threshold_sd:g}: the best of {scores.size} "
            f"candidates scores {best:.3f}, so nothing is accepted and SFT would have no rows; "
            "lower it, or raise num_candidates"
        )
    rows: list[dict[str, Any]] = [
        {
            "messages": prompts.rows[best.prompt_index]["messages"],
            "response": candidates[best.prompt_index][best.candidate_index],
            "source": f"rejection_{prompts.rows[best.prompt_index]['surface']}",
        }
        for best in accepted
    ]
    rows += _base_rows(section, prompts, inputs["base"] / "model", len(rows), context)
    told: dict[str, Any] = {}
    if config.lint:
        linted = lint_training_rows(rows, config.lint)
        rows, told = linted.rows, {"lint": linted.report}
        write_table(context.output / LINT_FILE, linted.edits, LINT_EDITS)
    write_table(context.output / "training.parquet", rows, TRAINING_ROWS)
    taken = {(best.prompt_index, best.candidate_index) for best in accepted}
    compared = compare_accepted(prompts.messages, candidates, taken, config.prevalence)
    rejected = [
        text
        for row, texts in enumerate(candidates)
        for column, text in enumerate(texts)
        if (row, column) not in taken
    ]
    return StageOutput(
        kind="training_rows",
        row_counts={
            "prompts": len(prompts),
            "candidates": sum(map(len, candidates)),
            "unscored": unscored,
            "accepted": len(accepted),
            "base": len(rows) - len(accepted),
            **{f"routed_to_{name}": routed.count(name) for name in policies},
        },
        metrics={
            "features_accepted": feature_means([row["response"] for row in rows[: len(accepted)]]),
            "features_rejected": feature_means(rejected),
            "features_accepted_rejected": summarise_comparisons(compared),
            "mean_score_accepted": float(np.mean([best.score for best in accepted])),
            **told,
        },
    )


def _candidates(
    section: RejectionSection,
    prompts: Prompts,
    policies: Mapping[str, Path],
    routed: list[str],
    context: StageContext,
) -> list[list[str]]:
    """k responses a prompt, each prompt asked of the policy it was routed to."""
    sampling = section.sampling.model_copy(
        update={"num_samples": section.num_candidates, "seed": context.seed}
    )
    candidates: list[list[str]] = [[] for _ in routed]
    done = 0
    for name, model in policies.items():
        indices = [index for index, policy in enumerate(routed) if policy == name]
        if not indices:
            continue
        asked = [prompts.messages[index] for index in indices]
        answers = context.engines.generator(model).generate(asked, sampling)
        for index, samples in zip(indices, answers, strict=True):
            candidates[index] = [sample.text for sample in samples]
        done += len(indices)
        context.progress(done, len(routed), "prompts sampled")
    return candidates


def _scores(
    section: RejectionSection,
    rewards: Path,
    prompts: Prompts,
    candidates: list[list[str]],
    context: StageContext,
) -> Scores:
    """Composite scores [num_prompts, k]."""
    flat_prompts = [
        messages
        for messages, texts in zip(prompts.messages, candidates, strict=True)
        for _ in texts
    ]
    flat = [text for texts in candidates for text in texts]
    standards = read_standards(rewards)
    found = {
        prefix: {
            name: score_or_nan(context.engines, model, flat_prompts, flat)
            for name, model in reward_models(rewards, prefix).items()
            if section.weight_of(name)
        }
        for prefix in ("pointwise_", "signal_")
    }
    _warn_without_model(section, found["signal_"])
    weights = {name: section.weight_of(name) for names in found.values() for name in names}
    if not found["pointwise_"]:
        raise ConfigError(
            f"rejection_sampling.preference_weights {section.preference_weights}: no preference "
            "model counts, and signals alone may not choose; give one a weight above 0"
        )
    total = composite(found["pointwise_"], found["signal_"], standards, weights)
    print(
        "composite reward: "
        + ", ".join(f"{name} x {weight:g}" for name, weight in sorted(weights.items())),
        flush=True,
    )
    return total.reshape(len(candidates), section.num_candidates)


def _warn_without_model(section: RejectionSection, trained: Collection[str]) -> None:
    """Say which signals weigh and have no model: the score is then of the others alone."""
    for name in (f"signal_{signal}" for signal in SIGNALS):
        if section.weight_of(name) and name not in trained:
            print(
                f"warning: {name} weighs {section.weight_of(name):g} in the composite reward but "
                "has no model (too few logged turns, or one class only), so it does not count",
                flush=True,
            )


def _base_rows(
    section: RejectionSection,
    prompts: Prompts,
    base: Path,
    num_accepted: int,
    context: StageContext,
) -> list[dict[str, Any]]:
    """The base model's own answers, unselected: they hold what it can do (§2.4.2, source 6)."""
    wanted = round(num_accepted * section.base_share / max(1e-9, 1 - section.base_share))
    asked = prompts.messages[: min(wanted, len(prompts))]
    said = answer(context.engines, base, asked, section.sampling, context.seed + 7)
    return [
        {"messages": messages, "response": text, "source": "base"}
        for messages, text in zip(asked, said, strict=True)
    ]


if __name__ == "__main__":
    main("rejection_sampling")
