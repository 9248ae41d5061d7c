"""Rows and tables with the labels that the recipe asks for (`labels`)."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import pyarrow as pa

from flywheel_core.curation.config import JobsConfig, RowRules
from flywheel_core.curation.labels import (
    JobClassifier,
    Labels,
    NearestExample,
    job_examples,
    label,
)
from flywheel_core.engines.base import Messages
from flywheel_core.engines.config import EngineConfig
from flywheel_core.engines.pool import EnginePool
from flywheel_core.records import TRAFFIC


def relabelled(
    table: pa.Table, messages: Sequence[Messages], rules: RowRules
) -> tuple[pa.Table, Mapping[str, int]]:
    """The table of `records.TRAFFIC` with its languages and jobs as the recipe wants them, and
    counts; `messages` is its column as Python objects. Nothing is read where the log is trusted."""
    if _trusts_the_log(rules):
        return table, {}
    languages, jobs = (table.column(name).to_pylist() for name in ("language", "jtbd"))
    rows = [
        {"messages": turns, "language": language, "jtbd": job}
        for turns, language, job in zip(messages, languages, jobs, strict=True)
    ]
    labels = _labels(rows, rules)
    for name, values in (("language", labels.languages), ("jtbd", labels.jobs)):
        place = TRAFFIC.get_field_index(name)
        table = table.set_column(place, TRAFFIC.field(name), pa.array(values, pa.string()))
    return table, labels.counts


def relabelled_rows(
    rows: Sequence[Mapping[str, Any]], kept: Sequence[int], rules: RowRules
) -> tuple[Sequence[Mapping[str, Any]], Mapping[str, int]]:
    """The same of rows in memory, those of the indices `kept`."""
    if _trusts_the_log(rules):
        return rows, {}
    labels = _labels([rows[index] for index in kept], rules)
    changed = list(rows)
    for index, language, job in zip(kept, labels.languages, labels.jobs, strict=True):
        changed[index] = {**rows[index], "language": language, "jtbd": job}
    return changed, labels.counts


def _trusts_the_log(rules: RowRules) -> bool:
    return rules.language.source == rules.jobs.source == "field"


def _labels(rows: Sequence[Mapping[str, Any]], rules: RowRules) -> Labels:
    classifier = None
    if rules.jobs.source == "examples":
        classifier = _classifier(rules.jobs.model_dump_json())
    return label(rows, rules.language, rules.jobs, classifier)


@lru_cache(maxsize=1)
def _classifier(config: str) -> JobClassifier:
    """One a process: a worker embeds on its CPU."""
    jobs = JobsConfig.model_validate_json(config)
    engines = EnginePool(EngineConfig())
    return NearestExample(engines.embedder(jobs.embedder), job_examples(jobs), jobs.similarity_min)
