"""`flywheel annotate`: a batch from pairs in a file to pairs to train on, without a climb."""

import json
from pathlib import Path
from typing import Any

import pytest
from annotation_samples import world_pairs
from typer.testing import CliRunner

from flywheel_core.annotation.files import read_tasks
from flywheel_core.annotation.folder import DRAFTS_FILE, PRIVATE
from flywheel_core.cli import app
from flywheel_core.records import DRAFTS, PAIRS, REVIEWS, read_table, write_table
from flywheel_core.world.annotators import SimulatedAnnotators

HERE = Path(__file__).parent
MADE_UP = (
    ("Did you see the storm last night?", "The storm was loud. Did the waves reach your door?",
     "I cannot talk about that."),
    ("What should I bake for Sunday?", "Rye. Always rye.", "OMG! Mind blown! Bake a cake 🎂🎂"),
    ("Tell me something odd.", "My lamp once blinked in Morse code by itself.",
     "A gull steals my left sock every Tuesday."),
    ("I am bored.", "Sorry, I must skip this one.", "As an AI, I cannot be bored. LOL!"),
)  # fmt: skip
CHARACTERS = (
    ("pim", "Pim, a curious lighthouse keeper. Never uses emoji. Always asks about the sea."),
    ("odo", "Odo, a grumpy baker. Speaks in short sentences."),
)


def made_up_rows() -> list[dict[str, Any]]:
    """The pairs of which `label_studio_export.json` holds the labels."""
    rows = []
    for number, (ask, first, second) in enumerate(MADE_UP):
        character_id, character = CHARACTERS[number % 2]
        said = [
            ("system", character),
            ("user", "Hello <b>there</b>!"),
            ("assistant", "Hi. I am knitting a hat for my lamp."),
            ("user", ask),
        ]
        rows.append(
            {
                "prompt_id": f"made-up-{number}",
                "messages": [{"role": role, "content": text} for role, text in said],
                "surface": "internal",
                "conversation_id": f"made-up-{number}",
                "turn_index": 1,
                "character_id": character_id,
                "locale": "en_US",
                "language": "en",
                "jtbd": "chat",
                "depth": 1,
                "response_0": first,
                "response_1": second,
                "policy_0": "production",
                "policy_1": "base",
            }
        )
    return rows


def flywheel(*words: Any, code: int = 0) -> Any:
    done = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == code, done.output
    return done


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def test_label_studios_own_labels_come_in_on_the_tasks_that_went_out(tmp_path: Path) -> None:
    pairs = write_jsonl(tmp_path / "pairs.jsonl", made_up_rows())
    batch, out = tmp_path / "batch", tmp_path / "out"
    sent = ("annotate", "export", pairs, "--out", batch, "--format", "label_studio")
    for _ in range(2):
        flywheel(*sent, "--workflow", "steerability", "--seed", 5)
    exported = json.loads((HERE / "label_studio_export.json").read_text())
    went_out = json.loads((batch / "tasks.json").read_text())
    assert [one["data"] for one in went_out] == [one["data"] for one in exported]
    assert "production" not in (batch / "tasks.json").read_text()
    labels = HERE / "label_studio_export.json"
    taken = ("annotate", "import", batch, labels, "--out", out, "--format", "label_studio")
    report = json.loads(flywheel(*taken, "--json").output)
    assert (report["pairs"], report["reviews"], report["rewrites"]) == (4, 12, 1)
    rows = read_table(out / "pairs.parquet", PAIRS).to_pylist()
    assert [row["target"] for row in rows] == [1.0, pytest.approx(2 / 3), 0.5, 0.5]
    assert [row["policy_1"] for row in rows] == ["base"] * 4
    assert rows[0]["workflow"] == "steerability"
    shown = flywheel(*taken).output
    assert "4 pairs from 12 labels" in shown
    assert "rewrite_missing 1" in shown


def labelled_batch(tmp_path: Path, source: SimulatedAnnotators) -> tuple[Path, Path]:
    """A batch of the world's pairs, and its labels as an annotation tool would leave them."""
    rows = [
        {**{one.name: pair.context[one.name] for one in DRAFTS if one.name in pair.context},
         "response_0": pair.response_0, "response_1": pair.response_1,
         "policy_0": pair.policy_0, "policy_1": pair.policy_1}
        for pair in world_pairs(60)
    ]  # fmt: skip
    write_table(tmp_path / "pairs.parquet", rows, DRAFTS)
    batch = tmp_path / "batch"
    flywheel("annotate", "export", tmp_path / "pairs.parquet", "--out", batch)
    tasks = {one.task_id: one for one in read_tasks(batch / "tasks.jsonl")}
    lines = []
    for review in source.label(list(tasks.values()), 1):
        task = tasks[review.task_id]
        side = {1: "left", 0: "right"}[int((review.vote == 1) == (task.left_response == 0))]
        answers: dict[str, dict[str, bool]] = {}
        for (name, number), yes in review.answers.items():
            where = "left" if number == task.left_response else "right"
            answers.setdefault(name, {})[where] = yes
        lines.append(
            {
                "task_id": review.task_id,
                "annotator_id": review.annotator_id,
                "choice": "tie" if review.vote == -1 else side,
                "answers": answers,
                "rewrite": review.rewrite,
            }
        )
    return batch, write_jsonl(batch / "labels.jsonl", lines)


def test_labels_in_files_are_those_that_were_given(tmp_path: Path) -> None:
    source = SimulatedAnnotators(3)
    batch, labels = labelled_batch(tmp_path, source)
    flywheel("annotate", "import", batch, labels, "--out", tmp_path / "out")
    expected = source.label(read_tasks(batch / "tasks.jsonl"), 1)
    rows = read_table(tmp_path / "out" / "reviews.parquet", REVIEWS).to_pylist()
    given = {(one.task_id, one.annotator_id): one for one in expected}
    assert len(rows) == len(given) == 3 * len({one.task_id for one in expected})
    assert all(given[row["task_id"], row["annotator_id"]].to_row() == row for row in rows)
    shown = flywheel("annotate", "agreement", tmp_path / "out" / "reviews.parquet").output
    assert "annotator-00" in shown
    assert "preference" in shown


def test_a_label_in_several_files_counts_once_as_the_newest_has_it(tmp_path: Path) -> None:
    batch, labels = labelled_batch(tmp_path, SimulatedAnnotators(3))
    flywheel("annotate", "import", batch, labels, "--out", tmp_path / "first")
    lines = [json.loads(line) for line in labels.read_text().splitlines()]
    who = lines[0]["annotator_id"]
    turned = {"left": "right", "right": "left", "tie": "tie"}
    for line in lines:
        if line["annotator_id"] == who:
            line["choice"] = turned[line["choice"]]
    write_jsonl(labels, lines)
    flywheel("annotate", "import", batch, labels, "--out", tmp_path / "again")
    first, again = (tmp_path / name / "reviews.parquet" for name in ("first", "again"))

    def agreement(*files: Path) -> dict[str, Any]:
        found = flywheel("annotate", "agreement", *files, "--json").output
        report: dict[str, Any] = json.loads(found)
        return report

    once, corrected = agreement(first), agreement(again)
    assert once["agreement"] != corrected["agreement"]
    for files, expected in (((first, first), once), ((first, again), corrected)):
        assert agreement(*files) == expected | {"dropped_reviews": {"superseded": len(lines)}}
    shown = flywheel("annotate", "agreement", first, again).output
    assert f"dropped: superseded {len(lines)}" in shown


def test_splits_go_out_again_and_the_adjudicators_word_is_taken(tmp_path: Path) -> None:
    batch, labels = labelled_batch(tmp_path, SimulatedAnnotators(3))
    recipe = tmp_path / "mine.yaml"
    text = (Path(__file__).parents[2] / "dags" / "recipes" / "smoke.yaml").read_text()
    annotators = "  num_annotators: 3\n"
    recipe.write_text(text.replace(annotators, annotators + "  adjudicate: split\n"))
    taken = ("annotate", "import", batch, labels, "--out", tmp_path / "out", "--recipe", recipe)
    waiting = json.loads(flywheel(*taken, "--json").output)["waiting_for_adjudication"]
    split = read_tasks(batch / "adjudication" / "tasks.jsonl")
    assert len(split) == waiting > 10
    said = [{"task_id": one.task_id, "annotator_id": "senior", "choice": "left"} for one in split]
    second = {"task_id": split[0].task_id, "annotator_id": "second", "choice": "right"}
    write_jsonl(batch / "adjudication" / "labels.jsonl", [*said, second])
    shown = flywheel(*taken).output
    assert "dropped: adjudicators_disagree 2" in shown
    assert "1 splits wait in the batch's adjudication/ folder" in shown
    write_jsonl(batch / "adjudication" / "labels.jsonl", said)
    assert json.loads(flywheel(*taken, "--json").output)["waiting_for_adjudication"] == 0
    rows = read_table(tmp_path / "out" / "pairs.parquet", PAIRS).to_pylist()
    assert sum(row["adjudicated"] for row in rows) == waiting
    assert {row["target"] for row in rows if row["adjudicated"]} == {0.0, 1.0}


SYSTEM, USER, SAID = ({"role": one, "content": "Hi."} for one in ("system", "user", "assistant"))


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"surface": "mars"}, "surface: must be one of internal, user (received 'mars')"),
        ({"messages": []}, "messages: must be a list of turns (received turns of: nobody)"),
        (
            {"messages": [SYSTEM, USER, {"role": "tool", "content": "4"}, USER]},
            "messages: roles after the first must be user or assistant (received turns of: "
            "system, user, tool, user)",
        ),
        (
            {"messages": [SYSTEM, {"role": "user", "content": None}]},
            "messages: must be a text that is not empty",
        ),
        ({"messages": [SYSTEM, USER, SAID]}, "messages: the last turn must be the user's"),
        ({"messages": [USER]}, "messages: the first turn must be the system turn"),
        ({"messages": [SYSTEM, USER, USER]}, "messages: user and assistant must alternate"),
        ({"messages": [SYSTEM, None, USER]}, "messages: each turn must have exactly role and"),
    ],
)
def test_a_conversation_that_could_not_be_traffic_is_not_sent_out(
    tmp_path: Path, kind: str, change: dict[str, Any], complaint: str
) -> None:
    rows = made_up_rows()
    rows[2] |= change
    pairs = tmp_path / f"pairs.{kind}"
    if kind == "jsonl":
        pairs.write_text("\n\n".join(json.dumps(row) for row in rows))
    else:
        write_table(pairs, rows, DRAFTS)
    done = flywheel("annotate", "export", pairs, "--out", tmp_path / "batch", code=1)
    place = f"{pairs}:5: " if kind == "jsonl" else f"{pairs}: row 2: "
    assert place + complaint in " ".join(done.output.split())
    assert not (tmp_path / "batch").exists()


def test_bad_input_is_told_in_one_sentence(tmp_path: Path) -> None:
    one = SimulatedAnnotators(1, [SimulatedAnnotators(1).people[0]])
    batch, labels = labelled_batch(tmp_path, one)
    done = flywheel("annotate", "import", batch, labels, "--out", tmp_path / "out", code=1)
    assert "num_annotators: 3 were asked for" in done.output
    rows = made_up_rows()
    rows[0].pop("depth")
    pairs = write_jsonl(tmp_path / "pairs.jsonl", rows)
    done = flywheel("annotate", "export", pairs, "--out", tmp_path / "b", code=1)
    assert "depth: is empty" in done.output
    pairs.write_text("")
    done = flywheel("annotate", "export", pairs, "--out", tmp_path / "b", code=1)
    assert "batch is empty" in done.output
    again = ("annotate", "export", tmp_path / "pairs.parquet", "--out", batch, "--seed", 9)
    done = flywheel(*again, code=1)
    assert "made from other inputs" in done.output
    assert (batch / PRIVATE / DRAFTS_FILE).is_file()
