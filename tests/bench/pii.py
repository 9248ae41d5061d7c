"""Privacy rules against planted truths: identifiers in real text, near misses, and clean rows.

Rows of the group `curation`. The real text is Topical-Chat's `test_freq`, which holds nobody's
identifiers; where it is not at hand the rows have no value.
"""

import gzip
import json
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from flywheel_core.curation.privacy import scan
from tests.bench import Row
from tests.curation.pii_samples import MAKERS, bad_checksum, near_miss

REAL_FILE = Path(__file__).resolve().parents[3] / "shared/reference/topical_chat/test_freq.json.gz"
NUM_PLANTED, NUM_NEAR_MISSES = 504, 1000
SEED = 4
RECALL_MIN, FALSE_ALARM_RATE_MAX = 0.99, 0.005


@dataclass(frozen=True)
class PrivacyMeasured:
    """Planted identifiers missed by kind; clean rows in which something was found."""

    num_planted: int
    missed: Counter[str]
    num_clean: int
    alarms: int
    num_near_misses: int
    near_misses: Counter[str]

    @property
    def recall(self) -> float:
        return 1 - self.missed.total() / self.num_planted

    @property
    def false_alarm_rate(self) -> float:
        """Of real utterances and near misses together; no row of either holds an identifier."""
        rows = self.num_clean + self.num_near_misses
        return (self.alarms + self.near_misses.total()) / rows

    def __str__(self) -> str:
        return (
            f"pii_recall {self.recall:.4f} ({self.num_planted} planted, missed {dict(self.missed)})"
            f"\npii_false_alarm_rate {self.false_alarm_rate:.5f}: {self.alarms} of "
            f"{self.num_clean} real utterances, {dict(self.near_misses)} of "
            f"{self.num_near_misses} near misses"
        )


def rows() -> Iterator[Row]:
    """`pii_recall` and `pii_false_alarm_rate`."""
    if not REAL_FILE.exists():
        how = f"the real text is not here: {REAL_FILE}"
        yield Row("pii_recall", None, "", f">= {RECALL_MIN}", None, how)
        yield Row("pii_false_alarm_rate", None, "", f"<= {FALSE_ALARM_RATE_MAX}", None, how)
        return
    found = measure_privacy()
    kinds = f"{found.num_planted} of {len(MAKERS)} kinds planted in real utterances"
    how = f"{kinds}, missed {dict(found.missed)}; check digits from python-stdnum"
    goal = f">= {RECALL_MIN}"
    yield Row("pii_recall", found.recall, "", goal, found.recall >= RECALL_MIN, how)
    rate = found.false_alarm_rate
    how = (
        f"{found.alarms} of {found.num_clean} real utterances, and {found.near_misses.total()} of "
        f"{found.num_near_misses} near misses planted in them"
    )
    goal = f"<= {FALSE_ALARM_RATE_MAX}"
    yield Row("pii_false_alarm_rate", rate, "", goal, rate <= FALSE_ALARM_RATE_MAX, how)


def measure_privacy() -> PrivacyMeasured:
    """Plant, scan and count; seeded."""
    rng = random.Random(SEED)
    clean = _utterances()
    kinds = [list(MAKERS)[number % len(MAKERS)] for number in range(NUM_PLANTED)]
    missed: Counter[str] = Counter()
    for kind, text in zip(kinds, rng.sample(clean, NUM_PLANTED), strict=True):
        missed[kind] += not scan(_planted(text, MAKERS[kind](rng), rng))[kind]
    near_misses: Counter[str] = Counter()
    for text in rng.sample(clean, NUM_NEAR_MISSES):
        make = near_miss if rng.random() < 0.7 else bad_checksum
        near_misses.update(scan(_planted(text, make(rng), rng)))
    alarms = sum(bool(scan(text)) for text in clean)
    return PrivacyMeasured(NUM_PLANTED, +missed, len(clean), alarms, NUM_NEAR_MISSES, near_misses)


def _utterances() -> list[str]:
    with gzip.open(REAL_FILE) as file:
        conversations = json.load(file)
    return [turn["message"] for one in conversations.values() for turn in one["content"]]


def _planted(text: str, identifier: str, rng: random.Random) -> str:
    words = text.split(" ")
    place = rng.randint(0, len(words))
    return " ".join([*words[:place], identifier, *words[place:]])
