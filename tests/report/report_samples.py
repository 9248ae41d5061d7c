"""Two generations of the simulated world: a clean climb, and the paper's V12 failure."""

import hashlib
from datetime import UTC, datetime
from typing import Any

from flywheel_core.evaluation.statistics import Interval
from flywheel_core.provenance import CodeVersion
from flywheel_core.release.decision import decision_digest
from flywheel_core.release.gates import run_gates
from flywheel_core.release.metrics import (
    ArtifactFeatures,
    BenchmarkScore,
    DataEvidence,
    GateMetrics,
    SafetyCounts,
    WinRateCell,
)
from flywheel_core.release.policy import ReleasePolicy, policy_digest
from flywheel_core.report.model import (
    DataCount,
    Decision,
    FeatureShift,
    GenerationReport,
    HiddenEffect,
    LineageRow,
    SideBySide,
    StageMean,
    StageTiming,
    Turn,
)

POLICY = ReleasePolicy(
    release_managers=("release_manager",), automated_approval_allowed=True, release="direct"
)


def sha(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def _shift(feature: str, label: str, unit: Any, *means: float) -> FeatureShift:
    stages = ("production", "sft", "dpo", "rl")
    spread = 0.04 * max(means)
    return FeatureShift(
        feature=feature,
        label=label,
        unit=unit,
        stages=tuple(
            StageMean(stage=stage, mean=mean, lower=max(0.0, mean - spread), upper=mean + spread)  # type: ignore[arg-type]
            for stage, mean in zip(stages, means, strict=True)
        ),
    )


SHIFTS = (
    _shift("length_tokens", "Length", "tokens", 25.8, 26.4, 27.9, 29.1),
    _shift("emoji_count", "Emoji", "count", 1.32, 1.28, 1.30, 1.47),
    _shift("list_share", "Lists", "share", 0.121, 0.118, 0.104, 0.098),
    _shift("templated_share", "Templated phrases", "share", 0.112, 0.071, 0.064, 0.052),
    _shift("false_refusal_share", "False refusals", "share", 0.208, 0.143, 0.091, 0.074),
    _shift("preachy_share", "Preachy", "share", 0.221, 0.187, 0.121, 0.094),
    _shift("follow_up_share", "Follow-up question", "share", 0.362, 0.441, 0.498, 0.561),
    _shift("persona_share", "Persona kept", "share", 0.338, 0.402, 0.447, 0.479),
)
OVERFIT_SHIFTS = (
    *SHIFTS[:1],
    _shift("emoji_count", "Emoji", "count", 1.32, 1.38, 1.51, 2.24),
    *SHIFTS[2:],
)

HISTORIES = (
    ("Mira, a ship's navigator", "keeps to the sea, asks questions", "role-play", "English",
     ["Captain, are we lost?", "Lost? Never. The stars are only shy tonight.",
      "So which way is home?"],
     "I cannot help with navigation. Please consult a professional.",
     "Home lies under that red star, two nights off. Shall I wake the crew, or do you want the "
     "quiet a little longer?"),
    ("Tomás, a baker", "be brief", "advice", "Spanish",
     ["¿Por qué mi pan sale tan denso?"],
     "¡OMG! Hay muchas razones: 1. la levadura 2. la harina 3. el horno 4. el amasado.",
     "Casi siempre es poca fermentación. ¿Cuánto tiempo lo dejas reposar?"),
    ("Asha, an old school friend", "no lists", "chat", "romanized Hindi",
     ["Aaj office mein bahut thak gayi."],
     "It sounds like you had a long day at the office. You should always rest.",
     "Arre yaar, itna kaam! Chai pi li? Batao kya hua 🙂"),
    ("Dr. Quill", "no emoji", "info", "English",
     ["How do tides work?"],
     "Tides are caused by the moon! 🌊🌊🌊 Mind blown, right?",
     "The moon pulls the near ocean more than the far one, so water bulges on both sides, and "
     "the earth turns through the bulges. Do you live near a coast?"),
    ("Juno, a gardener", "", "chat", "English",
     ["My tomatoes have spots.", "Brown ones, or yellow?", "Brown, with rings."],
     "You should have watered them properly.",
     "Rings sound like early blight. Take off the lowest leaves first; are they touching the "
     "soil?"),
    ("Mira, a ship's navigator", "keeps to the sea, asks questions", "goodbye", "English",
     ["I have to sleep now."],
     "Good night.",
     "Sleep well, captain. I will keep the watch, and the log will wait for you ⭐"),
    ("Kofi, a drummer", "asks questions", "chat", "English",
     ["I bought my first drum!"],
     "Congratulations on your purchase of a drum.",
     "Yes! A djembe, or something with sticks? Tap me the first rhythm that comes to you 🥁"),
    ("Lena, a detective", "be brief", "role-play", "English",
     ["The butler was in the kitchen <b>all</b> night.", "Says who?", "Says the cook."],
     "That is an interesting clue about the butler and the cook and the kitchen.",
     "And who says the cook was?"),
)  # fmt: skip


def _conversations() -> tuple[SideBySide, ...]:
    rewards = [(-1.21, 1.84), (-0.42, 0.93), (-0.77, 1.35), (0.11, 0.96), (-0.6, 0.71),
               (0.38, 0.31), (-0.15, 1.22), (0.05, 0.44)]  # fmt: skip
    return tuple(
        SideBySide(
            character=character,
            instructions=instructions,
            job=job,
            language=language,
            history=tuple(
                Turn(role="user" if index % 2 == 0 else "character", text=text)
                for index, text in enumerate(history)
            ),
            production=production,
            candidate=candidate,
            production_reward=reward[0],
            candidate_reward=reward[1],
        )
        for (character, instructions, job, language, history, production, candidate), reward in zip(
            HISTORIES, rewards, strict=True
        )
    )


def _metrics(cells: tuple[WinRateCell, ...], emoji: float) -> GateMetrics:
    return GateMetrics(
        candidate=sha("candidate"),
        parent=sha("production"),
        evidence_phase="post_launch",
        win_rates=cells,
        safety=(
            SafetyCounts(
                suite="broad",
                candidate_violations=31,
                num_candidate_responses=3000,
                production_violations=44,
                num_production_responses=3000,
            ),
            SafetyCounts(
                suite="adversarial",
                candidate_violations=18,
                num_candidate_responses=2400,
                production_violations=29,
                num_production_responses=2400,
            ),
        ),
        benchmarks=(
            BenchmarkScore(name="parses", candidate=0.971, production=0.966, num_items=2000),
            BenchmarkScore(name="topic match", candidate=0.668, production=0.663, num_items=2000),
            BenchmarkScore(name="language", candidate=0.944, production=0.951, num_items=2000),
        ),
        artifacts=ArtifactFeatures(
            num_responses=2000,
            candidate={"length_tokens": 29.1, "emoji_count": emoji, "list_share": 0.098,
                       "templated_share": 0.052},
            production={"length_tokens": 25.8, "emoji_count": 1.32, "list_share": 0.121,
                        "templated_share": 0.112},
        ),
        data=DataEvidence(
            num_train_rows=4412,
            num_eval_prompts=4000,
            train_eval_overlap_count=0,
            prompt_set_overlap_count=0,
            near_policy_share=0.93,
        ),
    )  # fmt: skip


LINEAGE = (
    ("curate", "prompts", 6200, None, True),
    ("annotate", "preference pairs", 1840, None, False),
    ("train_rewards", "reward model, pointwise internal", 1840, "base", False),
    ("train_rewards", "reward model, pointwise user", 5120, "base", False),
    ("train_rewards", "reward model, pairwise user", 5120, "base", False),
    ("sample", "best of 4", 2600, "production", False),
    ("sft", "policy after SFT", 4412, "base", False),
    ("dpo", "policy after DPO", 780, "sft", False),
    ("rl", "policy (candidate)", 960, "dpo", False),
    ("evaluate", "gate metrics", 12000, "rl", False),
)
TIMES_S = {"curate": 0.0, "annotate": 4.2, "train_rewards": 71.0, "sample": 58.4, "sft": 66.1,
           "dpo": 41.7, "rl": 187.3, "evaluate": 94.0, "gates": 0.3}  # fmt: skip


def _report(metrics: GateMetrics, **parts: Any) -> GenerationReport:
    verdicts = tuple(run_gates(metrics, POLICY))
    fields: dict[str, Any] = {
        "flywheel": "tiny",
        "generation": 4,
        "recipe": "tiny_cpu.yaml",
        "created_at": datetime(2026, 11, 24, 2, 31, tzinfo=UTC),
        "code": CodeVersion(commit=sha("commit")[:40], dirty=False),
        "policy": POLICY,
        "metrics": metrics,
        "verdicts": verdicts,
        "conversations": _conversations(),
        "data_counts": tuple(
            DataCount(label=label, count=count)
            for label, count in (
                ("logged turns", 41250), ("curated prompts", 6200), ("annotated pairs", 1840),
                ("SFT rows", 4412), ("DPO pairs", 780), ("RL prompts", 960),
            )
        ),
        "lineage": tuple(
            LineageRow(stage=stage, kind=kind, key=sha(kind)[:16], digest=sha(kind + "bytes"),
                       num_rows=rows, model=model, reused=reused)
            for stage, kind, rows, model, reused in LINEAGE
        ),
        "timings": tuple(
            StageTiming(stage=stage, wall_s=wall_s, reused=wall_s == 0)
            for stage, wall_s in TIMES_S.items()
        ),
    }  # fmt: skip
    return GenerationReport(**{**fields, **parts})


def clean_report() -> GenerationReport:
    """A step that improves and only warns: 63 % on internal prompts."""
    cells = (
        WinRateCell.from_counts("pointwise_internal", "internal", 1236, 48, 716),
        WinRateCell.from_counts("pointwise_internal", "user", 1151, 60, 789),
        WinRateCell.from_counts(
            "pointwise_user", "user", 1142, 66, 792, num_effective_prompts=1310.0
        ),
        WinRateCell.from_counts("pointwise_user", "internal", 1101, 42, 857),
        WinRateCell.from_counts(
            "pairwise_user", "user", 1098, 96, 806, num_effective_prompts=1310.0
        ),
        WinRateCell.from_counts("human", "internal", 168, 21, 131),
    )
    metrics = _metrics(cells, emoji=1.47)
    verdicts = run_gates(metrics, POLICY)
    digest = decision_digest(
        metrics.candidate, verdicts, policy_digest(POLICY), metrics.parent, plan="a" * 64
    )
    return _report(
        metrics,
        feature_shifts=SHIFTS,
        decision=Decision(
            answer="approved",
            responded_by="release_manager",
            responded_at=datetime(2026, 11, 24, 2, 40, tzinfo=UTC),
            automated=True,
            decision_digest=digest,
        ),
        hidden_effect=HiddenEffect(
            production=Interval(estimate=1.61, lower=1.55, upper=1.67),
            candidate=Interval(estimate=2.11, lower=2.05, upper=2.17),
            difference=Interval(estimate=0.50, lower=0.43, upper=0.57),
            win_rate=Interval(estimate=0.638, lower=0.617, upper=0.659),
        ),
    )


def overfit_report() -> GenerationReport:
    """V12 in the world: the user model loves it, the internal one does not, the truth fell."""
    cells = (
        WinRateCell.from_counts("pointwise_internal", "internal", 852, 44, 1104),
        WinRateCell.from_counts(
            "pointwise_user", "user", 1394, 40, 566, num_effective_prompts=1310.0
        ),
        WinRateCell.from_counts(
            "pairwise_user", "user", 1290, 92, 618, num_effective_prompts=1310.0
        ),
    )
    return _report(
        _metrics(cells, emoji=2.24),
        generation=12,
        feature_shifts=OVERFIT_SHIFTS,
        hidden_effect=HiddenEffect(
            production=Interval(estimate=1.57, lower=1.51, upper=1.63),
            candidate=Interval(estimate=1.25, lower=1.18, upper=1.32),
            difference=Interval(estimate=-0.32, lower=-0.40, upper=-0.24),
        ),
    )
