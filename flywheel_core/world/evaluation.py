"""The world's judge behind the evaluation's protocol: Table 4 answered by look-up."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from flywheel_core.evaluation.judging import Judged
from flywheel_core.world.contexts import context_of
from flywheel_core.world.judge import Judgement, WorldJudge

METRICS = tuple(field.name for field in fields(Judgement) if field.type in (bool, "bool"))


class WorldEvaluationJudge:
    """Judges responses to the world's own prompts; InputDataError on any other prompt."""

    def judge(self, rows: Sequence[Mapping[str, Any]], responses: Sequence[str]) -> Judged:
        contexts = [context_of(row["messages"], row["character_id"]) for row in rows]
        judgements = WorldJudge().judge_batch(contexts, responses)
        return Judged({metric: [getattr(one, metric) for one in judgements] for metric in METRICS})
