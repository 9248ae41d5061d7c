"""A row's language and job-to-be-done (Table 1), where the recipe does not trust the log for them.

What the log says of a language is compared with what the text says, and counted; a job is only
looked for where the log names none. What cannot be told stays null: *not applicable*, never
invented.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources
from typing import Any, Protocol

import numpy as np

from flywheel_core.curation.config import JobsConfig, LanguageConfig
from flywheel_core.curation.language import LANGUAGES, identify, primary, says_enough
from flywheel_core.engines.base import Embedder, Messages, Vectors

Row = Mapping[str, Any]


class JobClassifier(Protocol):
    """Says which job-to-be-done each conversation is for, in the recipe's own words (Table 1);
    None where it cannot tell."""

    def jobs_of(self, conversations: Sequence[Messages]) -> Sequence[str | None]: ...


@dataclass(frozen=True)
class Labelled:
    """The field's value for each row, and counts of how it was come by.

    `logged`: the log's own. `found`: the log had none. `none`: nobody knows. For languages also
    `undecided` (the log's own: the text says too little to outweigh it), `agreed`, and `refined`
    (`hi` is `hi-Latn`) and `disagreed`, whose pairs are in `changed`; for jobs `failed`, where the
    classifier gave no usable answer.
    """

    values: list[str | None]
    counts: Counter[str] = field(default_factory=Counter)
    changed: Counter[str] = field(default_factory=Counter)


def languages_of(rows: Sequence[Row], languages: Sequence[str] = LANGUAGES) -> Labelled:
    """Each row's language by all of its user turns: one short turn ("ok") says nothing of a talk.

    A label stays where the text does not say enough, and outside of `languages`, because
    identification could not have found it.
    """
    labelled = Labelled([])
    for row in rows:
        logged = row["language"]
        said = "\n".join(turn["content"] for turn in row["messages"] if turn["role"] == "user")
        found = None
        if logged is None or primary(logged) in languages:
            found = identify(said, languages)
        if logged and found and not says_enough(said, languages):
            labelled.values.append(logged)
            labelled.counts["undecided"] += 1
            continue
        labelled.values.append(logged if found is None else found)
        labelled.counts[_compared(logged, found)] += 1
        if logged and found and logged != found:
            labelled.changed[f"{logged} → {found}"] += 1
    return labelled


def _compared(logged: str | None, found: str | None) -> str:
    if logged is None or found is None:
        return "logged" if logged else "found" if found else "none"
    if logged == found:
        return "agreed"
    return "refined" if primary(logged) == primary(found) else "disagreed"


def jobs_of(
    rows: Sequence[Row],
    classifier: JobClassifier | None,
    jobs: Sequence[str],
    languages: Sequence[str] | None = None,
) -> Labelled:
    """Each row's job: the logged one, else the classifier's if it is one of `jobs`.

    Rows of other `languages` are not asked about. A batch on which the classifier fails is halved,
    so that one row cannot take the others along.
    """
    values = [row["jtbd"] for row in rows]
    counts = Counter({"logged": sum(value is not None for value in values)})
    asked = [
        index
        for index, row in enumerate(rows)
        if row["jtbd"] is None
        and (languages is None or primary(row["language"] or "") in languages)
    ]
    answers = _answers([rows[index]["messages"] for index in asked], classifier)
    for index, answer in zip(asked, answers, strict=True):
        known = isinstance(answer, str) and answer in jobs
        values[index] = answer if known else None
        counts["found" if known else "none" if answer is None else "failed"] += 1
    counts["none"] += len(rows) - counts["logged"] - len(asked)
    return Labelled(values, +counts)


FAILED = object()


def _answers(
    conversations: Sequence[Messages], classifier: JobClassifier | None
) -> Sequence[object]:
    if classifier is None or not conversations:
        return [None] * len(conversations)
    try:
        answers = classifier.jobs_of(conversations)
        fits = len(answers) == len(conversations)
    except Exception:  # a model may fail in any way, and its message may repeat the text
        fits = False
    if fits:
        return answers
    if len(conversations) == 1:
        return [FAILED]
    half = len(conversations) // 2
    return [
        *_answers(conversations[:half], classifier),
        *_answers(conversations[half:], classifier),
    ]


class NearestExample:
    """The job of the example whose embedding is most similar to the last user turn's.

    Measured with MiniLM and the examples that ship on 72 hand-written English chat lines
    (`tests/curation/test_labels.py`): 83 % are right, and above the default similarity, which half
    of the lines reach, 95 %.
    """

    def __init__(
        self,
        embedder: Embedder,
        examples: Mapping[str, Sequence[str]],
        similarity_min: float,
    ) -> None:
        self._embedder, self._similarity_min = embedder, similarity_min
        self._jobs = [job for job, texts in examples.items() for _ in texts]
        self._vectors = self._embedded([text for texts in examples.values() for text in texts])

    def jobs_of(self, conversations: Sequence[Messages]) -> list[str | None]:
        """One embedding a conversation."""
        vectors = self._embedded([messages[-1]["content"] for messages in conversations])
        similarity = vectors @ self._vectors.T
        nearest = similarity.argmax(axis=1)
        highest = similarity[np.arange(len(nearest)), nearest]
        return [
            self._jobs[place] if value >= self._similarity_min else None
            for place, value in zip(nearest, highest, strict=True)
        ]

    def _embedded(self, texts: Sequence[str]) -> Vectors:
        vectors = self._embedder.embed(texts)
        return vectors[np.arange(len(vectors))]


def job_examples(config: JobsConfig) -> dict[str, tuple[str, ...]]:
    """The recipe's examples, or those that ship."""
    return dict(config.examples) if config.examples is not None else _shipped_examples()


@lru_cache(maxsize=1)
def _shipped_examples() -> dict[str, tuple[str, ...]]:
    file = resources.files("flywheel_core.curation").joinpath("job_examples.json")
    return {job: tuple(texts) for job, texts in json.loads(file.read_text("utf-8")).items()}


@dataclass(frozen=True)
class Labels:
    """Languages and jobs of some rows, and the counts of both in one flat mapping."""

    languages: list[str | None]
    jobs: list[str | None]
    counts: dict[str, int]


def label(
    rows: Sequence[Row],
    language: LanguageConfig,
    jobs: JobsConfig,
    classifier: JobClassifier | None,
) -> Labels:
    """What the recipe asks for of rows with `messages`, `language` and `jtbd`."""
    spoken = Labelled([row["language"] for row in rows])
    if language.source == "identify":
        spoken = languages_of(rows, language.languages)
    wanted = Labelled([row["jtbd"] for row in rows])
    if jobs.source == "examples":
        told = [{**row, "language": value} for row, value in zip(rows, spoken.values, strict=True)]
        wanted = jobs_of(told, classifier, list(job_examples(jobs)), jobs.languages)
    named = {"language": spoken.counts, "changed": spoken.changed, "jtbd": wanted.counts}
    flat = {f"{kind}:{name}": n for kind, one in named.items() for name, n in one.items()}
    return Labels(spoken.values, wanted.values, flat)


def labels_told(counts: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """Added-up `Labels.counts` as the report shows them; empty where the log was trusted."""
    return {
        kind: {
            name.removeprefix(f"{kind}:"): count
            for name, count in sorted(counts.items())
            if name.startswith(f"{kind}:")
        }
        for kind in ("language", "changed", "jtbd")
    }
