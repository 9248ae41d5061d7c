"""Simulated annotators one by one: a pool of people who label tasks, chat, and rewrite.

`people.annotate_pairs` gives votes without names; here each vote has its annotator, so that
agreement, drift and a liking for one side can be measured as with real people. They answer on the
hidden utility; what they see is the task and nothing else.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from flywheel_core.annotation.questions import Workflow, question_set
from flywheel_core.annotation.reviews import Answer, Review
from flywheel_core.annotation.tasks import AnnotationTask
from flywheel_core.artifacts import digest_of
from flywheel_core.errors import ConfigError
from flywheel_core.records import TIE_VOTE, Message
from flywheel_core.world.answers import pick, pick_weighted
from flywheel_core.world.characters import BRIEF_MAX_SENTENCES
from flywheel_core.world.contexts import ASKS, ChatContext, context_of
from flywheel_core.world.language import Kind, ResponsePlan, render, sentences_of
from flywheel_core.world.people import TAG_FEATURE
from flywheel_core.world.phrases import JTBDS, LANGUAGES, PHRASEBOOKS, TOPICS, Language
from flywheel_core.world.product import make_mix
from flywheel_core.world.utility import (
    COLUMN,
    TASTE,
    FloatArray,
    Taste,
    feature_matrix,
    utility_of_features,
)


@dataclass(frozen=True, slots=True)
class Person:
    """One annotator. `beta` scales the utility difference (Bradley-Terry), `lapse_share` of votes
    are coin flips (`late_lapse_share` in the second half of this person's work, if given), a
    difference felt as less than `tie_margin` is called a tie, `left_bias` is added to what stands
    on the left, and `tag_error_share` of tags are wrong."""

    annotator_id: str
    beta: float = 1.0
    lapse_share: float = 0.05
    late_lapse_share: float | None = None
    tie_margin: float = 0.15
    left_bias: float = 0.0
    tag_error_share: float = 0.03


PEOPLE: tuple[Person, ...] = tuple(Person(f"annotator-{number:02d}") for number in range(12))
ADJUDICATOR = Person("adjudicator", beta=3.0, lapse_share=0.0, tag_error_share=0.0)


@dataclass(frozen=True, slots=True)
class _Seen:
    """What the tasks hold for somebody who knows the world: utilities and tag truths by task."""

    difference: FloatArray
    tags: dict[tuple[str, int], npt.NDArray[np.bool_]]
    contexts: list[ChatContext]


class SimulatedAnnotators:
    """An `AnnotationSource` and a `ChatPartner`: `num_annotators` different people a task."""

    def __init__(
        self,
        num_annotators: int,
        people: Sequence[Person] = PEOPLE,
        adjudicator: Person = ADJUDICATOR,
        taste: Taste = TASTE,
    ) -> None:
        if num_annotators > len(people):
            raise ConfigError(
                f"annotation.num_annotators: got {num_annotators}, but the simulated pool has "
                f"{len(people)} people; ask for at most that many reviews a task"
            )
        self.num_annotators, self.people = num_annotators, tuple(people)
        self.adjudicator, self.taste = adjudicator, taste

    def label(self, tasks: Sequence[AnnotationTask], seed: int) -> list[Review]:
        """`num_annotators` reviews a task, in the order in which they would be submitted."""
        seen = self._look(tasks)
        rng = np.random.default_rng([seed, 1])
        turns = [rng.permutation(len(self.people))[: self.num_annotators] for _ in tasks]
        load = Counter(index for whose in turns for index in whose.tolist())
        work: Counter[int] = Counter()
        reviews = []
        for row, (task, whose) in enumerate(zip(tasks, turns, strict=True)):
            for index in whose.tolist():
                late = 2 * work[index] >= load[index]
                work[index] += 1
                noise = np.random.default_rng([seed, int(task.task_id, 16), index])
                reviews.append(self._review(self.people[index], task, seen, row, late, noise))
        return reviews

    def adjudicate(self, tasks: Sequence[AnnotationTask], seed: int) -> list[Review]:
        """One review a task, by somebody more careful."""
        seen = self._look(tasks)
        found = []
        for row, task in enumerate(tasks):
            noise = np.random.default_rng([seed, int(task.task_id, 16), len(self.people)])
            review = self._review(self.adjudicator, task, seen, row, False, noise)
            found.append(replace(review, adjudicates=True))
        return found

    def next_turn(
        self, messages: Sequence[Message], row: Mapping[str, Any], workflow: Workflow, seed: int
    ) -> str:
        """What the annotator says next to this character: a new request; in a steerability chat
        with a mild challenge to the character's rule. Two chats with one character, which start
        with the same system turn, differ by their prompt."""
        drawn_by = digest_of([row["prompt_id"], list(messages), workflow])
        rng = np.random.default_rng([seed, int(drawn_by[:8], 16)])
        language: Language = row["language"] if row["language"] in LANGUAGES else "en"
        jtbd = JTBDS[pick_weighted(rng, make_mix("internal").jtbd_shares)]
        ask = pick(rng, ASKS[language, jtbd, pick(rng, TOPICS)]).text
        if workflow != "steerability":
            return ask
        return f"{ask} {pick(rng, PHRASEBOOKS[language].challenges)}"

    def _look(self, tasks: Sequence[AnnotationTask]) -> _Seen:
        contexts = [context_of(task.messages, task.character_id) for task in tasks]
        features = [
            feature_matrix(contexts, [task.response(number) for task in tasks]) for number in (0, 1)
        ]
        first, second = (utility_of_features(contexts, one, self.taste) for one in features)
        tags = {
            (str(tag), number): features[number][:, COLUMN[feature]] > 0
            for tag, feature in TAG_FEATURE.items()
            for number in (0, 1)
        }
        return _Seen(first - second, tags, contexts)

    def _review(
        self,
        person: Person,
        task: AnnotationTask,
        seen: _Seen,
        row: int,
        late: bool,
        rng: np.random.Generator,
    ) -> Review:
        asked = question_set(task.question_set).asked_in(task.workflow)
        answers: dict[Answer, bool] = {
            (one.id, number): bool(seen.tags[one.id, number][row])
            ^ bool(rng.random() < person.tag_error_share)
            for one in asked
            if (one.id, 0) in seen.tags
            for number in (0, 1)
        }
        review = Review(
            task_id=task.task_id,
            annotator_id=person.annotator_id,
            workflow=task.workflow,
            question_set=task.question_set,
            left_response=task.left_response,
            vote=_vote(person, float(seen.difference[row]), task.left_response, late, rng),
            answers=answers,
        )
        if not review.both_fail:
            return review
        return replace(review, rewrite=_rewrite(seen.contexts[row], rng))


def _vote(
    person: Person, difference: float, left_response: int, late: bool, rng: np.random.Generator
) -> int:
    """Bradley-Terry: the felt difference has logistic noise; no margin and no bias give exactly
    `people.vote_probability`."""
    lapse = person.lapse_share
    if late and person.late_lapse_share is not None:
        lapse = person.late_lapse_share
    if rng.random() < lapse:
        return 1 if rng.random() < 0.5 else 0
    on_left = 1.0 if left_response == 0 else -1.0
    felt = person.beta * difference + on_left * person.left_bias + rng.logistic()
    if abs(felt) < person.tie_margin:
        return TIE_VOTE
    return 1 if felt > 0 else 0


def _rewrite(context: ChatContext, rng: np.random.Generator) -> str:
    """A reply in character: on the topic, with the trait, a question back where there is room."""
    language, character = context.language, context.character
    slots = [
        sentences_of(Kind.TOPIC, language, topic=context.topic),
        sentences_of(Kind.PERSONA, language, trait=character.trait),
        sentences_of(Kind.FOLLOW_UP, language),
    ]
    if character.rule == "brief":
        slots = slots[:BRIEF_MAX_SENTENCES]
    return render(ResponsePlan(tuple(pick(rng, choices) for choices in slots)))
