"""A signal model on real conversations: Topical-Chat's turn ratings, against a bag of words.

`Excellent` against `Passable` or worse; `Good` and unrated turns are left out. Both learn from the
same conversations and are asked about conversations that neither has seen.
"""

import gzip
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from flywheel_core.annotation.pairs import held_out_unit, is_held_out
from flywheel_core.evaluation.statistics import Interval
from flywheel_core.ingest.topical_chat import HistoryLimits, read_topical_chat
from flywheel_core.records import MESSAGES
from flywheel_core.training.reward_metrics import area_under_curve
from tests.bench import Row

FILE = Path(__file__).resolve().parents[3] / "shared/reference/topical_chat/test_freq.json.gz"
LABELS = {"Excellent": 1.0, "Passable": 0.0, "Not Good": 0.0, "Poor": 0.0}
TEST_SHARE = 0.3
SHARES = (0.25, 1.0)
NUM_EPOCHS = 2
MAX_WORDS = 64
NUM_RESAMPLES = 1000
SCHEMA = pa.schema(
    [
        pa.field("messages", MESSAGES),
        pa.field("response", pa.string()),
        pa.field("label", pa.float32()),
    ]
)


@dataclass(frozen=True)
class Compared:
    """AUC of both on unseen conversations, and their difference (bootstrap over conversations)."""

    num_train: int
    num_test: int
    signal_model: float
    bag_of_words: float
    difference: Interval


def rated_turns(file: Path = FILE) -> list[dict[str, Any]]:
    """Turns with a label, their history cut to what the tiny model takes."""
    content = json.loads(gzip.decompress(file.read_bytes()))
    ratings = {
        f"{conversation}-{index}": turn["turn_rating"]
        for conversation, one in content.items()
        for index, turn in enumerate(one["content"])
    }
    found = read_topical_chat(file, limits=HistoryLimits(max_words=MAX_WORDS))
    return [
        row | {"label": LABELS[ratings[row["row_id"]]]}
        for row in found
        if isinstance(row, dict) and ratings[row["row_id"]] in LABELS
    ]


def compare(
    bench: Any, turns: Sequence[dict[str, Any]], share: float, *, num_epochs: float = NUM_EPOCHS
) -> Compared:
    """Train both on `share` of the training conversations, and ask both about the test ones."""
    test = [row for row in turns if is_held_out(held_out_unit(row), TEST_SHARE)]
    names = sorted({row["conversation_id"] for row in turns} - {r["conversation_id"] for r in test})
    taken = set(np.random.default_rng(0).permutation(names)[: round(share * len(names))].tolist())
    training = [row for row in turns if row["conversation_id"] in taken]
    labels = np.array([row["label"] for row in test])
    path = bench.folder / f"topical-{share}.parquet"
    pq.write_table(pa.Table.from_pylist(training, schema=SCHEMA), path)
    model = bench.train("signal", path, num_epochs=num_epochs)
    asked = [(row["messages"], row["response"]) for row in test]
    scores = np.asarray(bench.scorer.score(model, asked), dtype=np.float64)
    known = np.isfinite(scores)
    words = bag_of_words(training, test)
    clusters = np.array([row["conversation_id"] for row in test])[known]
    signal, baseline = scores[known], words[known]
    return Compared(
        num_train=len(training),
        num_test=int(known.sum()),
        signal_model=_auc(signal, labels[known]),
        bag_of_words=_auc(baseline, labels[known]),
        difference=_difference(signal, baseline, labels[known], clusters),
    )


def bag_of_words(training: Sequence[dict[str, Any]], test: Sequence[dict[str, Any]]) -> np.ndarray:
    """Logistic regression on counts of words and word pairs, of the response and of the turn that
    it answers, each with its own columns. Scikit-learn's defaults but for the iterations."""
    from scipy.sparse import hstack
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression

    columns = []
    for read in (lambda row: row["response"], lambda row: row["messages"][-1]["content"]):
        counter = CountVectorizer(ngram_range=(1, 2), min_df=2)
        counter.fit([read(row) for row in training])
        columns.append(
            [counter.transform([read(row) for row in part]) for part in (training, test)]
        )
    fitted = LogisticRegression(max_iter=2000).fit(
        hstack([column[0] for column in columns]), [row["label"] for row in training]
    )
    return np.asarray(fitted.decision_function(hstack([column[1] for column in columns])))


def _auc(scores: np.ndarray, labels: np.ndarray) -> float:
    found = area_under_curve(scores, labels)
    assert found is not None, "both classes are in every part"
    return found


def _difference(
    signal: np.ndarray, words: np.ndarray, labels: np.ndarray, clusters: np.ndarray
) -> Interval:
    """AUC of the signal model minus that of the bag of words; percentile interval over
    conversations drawn anew, because one conversation has one pair of raters."""
    rng = np.random.default_rng(1)
    names, index = np.unique(clusters, return_inverse=True)
    members = [np.flatnonzero(index == number) for number in range(len(names))]
    drawn = []
    for _ in range(NUM_RESAMPLES):
        rows = np.concatenate([members[i] for i in rng.integers(0, len(names), len(names))])
        drawn.append(_auc(signal[rows], labels[rows]) - _auc(words[rows], labels[rows]))
    lower, upper = np.quantile(drawn, [0.025, 0.975])
    estimate = _auc(signal, labels) - _auc(words, labels)
    return Interval(
        estimate=estimate, lower=min(float(lower), estimate), upper=max(float(upper), estimate)
    )


def rows(bench: Any) -> Iterator[Row]:
    """`signal_auc_topical_chat`; says so where the data set is not here."""
    if not FILE.is_file():
        yield Row("signal_auc_topical_chat", None, "AUC", "", None, f"not measured: no {FILE}")
        return
    turns = rated_turns()
    found = [compare(bench, turns, share) for share in SHARES]
    said = "; ".join(
        f"{one.num_train} turns: signal model {one.signal_model:.3f}, bag of words "
        f"{one.bag_of_words:.3f}, difference {one.difference.estimate:+.3f} "
        f"[{one.difference.lower:+.3f}, {one.difference.upper:+.3f}]"
        for one in found
    )
    yield Row(
        "signal_auc_topical_chat", found[-1].signal_model, "AUC", "", None,
        f"Excellent against Passable or worse, {found[-1].num_test} turns of unseen conversations; "
        f"0.7M parameters pre-trained on the simulated world; {said}",
    )  # fmt: skip
