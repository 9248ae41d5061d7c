"""Language and job by the recipe: what wins, what is counted, and how often the job is right."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from curation_samples import traffic_rows
from job_lines import LINES

from flywheel_core.curation.config import JobsConfig, LanguageConfig, RowRules
from flywheel_core.curation.curate import curate
from flywheel_core.curation.labels import (
    NearestExample,
    job_examples,
    jobs_of,
    label,
    labels_told,
    languages_of,
)
from flywheel_core.curation.pipeline import TrafficFiles, Workshop, curate_files
from flywheel_core.curation.relabel import relabelled
from flywheel_core.curation.section import CurationSection
from flywheel_core.engines.base import Messages, Vectors
from flywheel_core.engines.config import EmbedderConfig, EngineConfig, ExecutorConfig
from flywheel_core.engines.executor import InProcessExecutor
from flywheel_core.engines.fake import HashEmbedder
from flywheel_core.engines.pool import EnginePool
from flywheel_core.erasure.users import NOBODY
from flywheel_core.records import SPLITS, TRAFFIC, write_table

SAID = {
    "kya haal hai yaar": "hi-Latn",
    "hola amigo, qué haces": "es",
    "what are you doing": "en",
    "123": None,
}


def said(text: str, **fields: Any) -> dict[str, Any]:
    (row,) = traffic_rows(1, **fields)
    return row | {"messages": [row["messages"][0], {"role": "user", "content": text}]}


@pytest.mark.parametrize(
    ("logged", "text", "language", "how"),
    [
        (None, "kya haal hai yaar", "hi-Latn", "found"),
        (None, "123", None, "none"),
        ("en", "what are you doing", "en", "agreed"),
        ("en", "kya haal hai yaar", "hi-Latn", "disagreed"),
        ("hi", "kya haal hai yaar", "hi-Latn", "refined"),
        ("en-GB", "what are you doing", "en", "refined"),
        ("en", "123", "en", "logged"),
        ("pt", "hola amigo, qué haces", "pt", "logged"),
    ],
)
def test_the_text_outweighs_a_label_that_it_could_have_had(
    logged: str | None, text: str, language: str | None, how: str
) -> None:
    labelled = languages_of([said(text, language=logged)])
    assert labelled.values == [language]
    assert labelled.counts == {how: 1}
    pair = {f"{logged} → {language}": 1} if how in ("disagreed", "refined") else {}
    assert labelled.changed == pair


def test_only_rows_without_a_job_and_of_the_languages_asked_for_are_classified() -> None:
    asked: list[int] = []

    class Chats:
        def jobs_of(self, conversations: Sequence[Messages]) -> Sequence[str]:
            asked.append(len(conversations))
            return ["chat"] * len(conversations)

    rows = [
        said("hi", jtbd=None, language="en"),
        said("hi", jtbd="info", language="en"),
        said("hola", jtbd=None, language="es"),
        said("hi", jtbd=None, language=None),
    ]
    labelled = jobs_of(rows, Chats(), ["chat", "info"], ["en"])
    assert labelled.values == ["chat", "info", None, None]
    assert labelled.counts == {"found": 1, "logged": 1, "none": 2}
    assert asked == [1]


def test_a_row_on_which_the_classifier_fails_takes_no_other_along() -> None:
    class Picky:
        def jobs_of(self, conversations: Sequence[Messages]) -> Sequence[str]:
            if any("bad" in one[-1]["content"] for one in conversations):
                raise RuntimeError("jane@example.com")
            return ["chat"] * len(conversations)

    rows = [said("bad" if n == 5 else "fine", jtbd=None) for n in range(9)]
    labelled = jobs_of(rows, Picky(), ["chat"])
    assert labelled.values == ["chat"] * 5 + [None] + ["chat"] * 3
    assert labelled.counts == {"found": 8, "failed": 1}


def test_a_batch_of_another_length_counts_as_failed() -> None:
    class Short:
        def jobs_of(self, conversations: Sequence[Messages]) -> Sequence[str]:
            return []

    labelled = jobs_of([said("hi", jtbd=None)] * 3, Short(), ["chat"])
    assert (labelled.values, labelled.counts) == ([None] * 3, {"failed": 3})


class Axes:
    """Texts on the axes their first word names."""

    def embed(self, texts: Sequence[str]) -> Vectors:
        words = ["tea", "war"]
        rows = [[float(text.startswith(word)) for word in words] for text in texts]
        return np.array(rows, dtype=np.float32)


def test_the_nearest_example_decides_if_it_is_near_enough() -> None:
    classifier = NearestExample(Axes(), {"chat": ("tea time",), "info": ("war", "x")}, 0.5)
    conversations = [said(text)["messages"] for text in ("tea?", "war?", "neither")]
    assert classifier.jobs_of(conversations) == ["chat", "info", None]


@pytest.mark.heavy
def test_jobs_of_hand_written_lines_are_found_as_often_as_is_said() -> None:
    """English lines; half of them are near enough to an example, and of those 95 % are right."""
    embedder = EnginePool(EngineConfig()).embedder()
    jobs = [job for job, _ in LINES]
    conversations = [said(text)["messages"] for _, text in LINES]
    for similarity_min, covered_min, accuracy_min in ((-1.0, 1.0, 0.80), (0.4, 0.5, 0.93)):
        classifier = NearestExample(embedder, job_examples(JobsConfig()), similarity_min)
        found = classifier.jobs_of(conversations)
        told = [(job, guess) for job, guess in zip(jobs, found, strict=True) if guess]
        accuracy = sum(job == guess for job, guess in told) / len(told)
        print(f"at least {similarity_min}: {len(told)} of {len(jobs)}, accuracy {accuracy:.3f}")
        print(Counter(pair for pair in told if pair[0] != pair[1]))
        assert len(told) >= covered_min * len(jobs)
        assert accuracy >= accuracy_min


def test_no_line_of_the_test_is_an_example() -> None:
    examples = {text for texts in job_examples(JobsConfig()).values() for text in texts}
    assert not examples & {text for _, text in LINES}
    assert {job for job, _ in LINES} == set(job_examples(JobsConfig()))


RULES = RowRules(
    language=LanguageConfig(source="identify"),
    jobs=JobsConfig(
        source="examples",
        examples={"greet": ("hola amigo",)},
        languages=("es",),
        embedder=EmbedderConfig(model="hash"),
    ),
)


def test_a_table_gets_its_columns_and_the_default_touches_nothing() -> None:
    rows = [said(text, language=None, jtbd=None) for text in SAID]
    table = pa.Table.from_pylist(rows, schema=TRAFFIC)
    messages = [row["messages"] for row in rows]
    found, counts = relabelled(table, messages, RULES)
    assert found.schema == TRAFFIC
    assert found.column("language").to_pylist() == list(SAID.values())
    assert found.column("jtbd").to_pylist() == [None, "greet", None, None]
    assert found.drop_columns(["language", "jtbd"]) == table.drop_columns(["language", "jtbd"])
    assert labels_told(counts) == {
        "language": {"found": 3, "none": 1},
        "changed": {},
        "jtbd": {"found": 1, "none": 3},
    }
    assert relabelled(table, messages, RowRules()) == (table, {})
    same = label(rows, RULES.language, JobsConfig(), None)
    assert same.jobs == [None] * 4


def test_files_and_memory_label_alike_and_the_strata_follow_the_labels(tmp_path: Path) -> None:
    rows = traffic_rows(800, 1, language="en", jtbd=None)
    for number, row in enumerate(rows):
        text = f"kya haal hai, {number}" if number % 4 == 0 else f"what is up, {number}"
        row["messages"] = [row["messages"][0], {"role": "user", "content": text}]
    section = CurationSection.model_validate(
        {
            "embedder": "hash",
            "prompts_per_surface": dict.fromkeys(SPLITS, 20),
            "language": {"source": "identify"},
            "jobs": {"source": "examples", "similarity_min": 0.2, "embedder": "hash"},
        }
    )
    expected = curate(rows, section, HashEmbedder(), 7, production_digest="production")
    write_table(tmp_path / "day.parquet", rows, TRAFFIC)
    workshop = Workshop(InProcessExecutor(), ExecutorConfig(), tmp_path / "work", lambda *_: None)
    found = curate_files(
        TrafficFiles((tmp_path / "day.parquet",), "in memory", {}),
        section,
        HashEmbedder(),
        7,
        production_digest="production",
        erasures=NOBODY,
        workshop=workshop,
    )
    assert found.report == expected.report | {"erased": 0}
    assert found.prompts == expected.prompts
    told = found.report["labels"]
    assert told["language"] == {"agreed": 600, "disagreed": 200}
    assert told["changed"] == {"en → hi-Latn": 200}
    assert set(told["jtbd"]) <= {"found", "none"}
    shares = found.report["surfaces"]["internal"]["final"]["language_shares"]
    assert shares["hi-Latn"] == pytest.approx(0.25, abs=0.05)
    assert json.loads(json.dumps(told)) == told
