"""Assignment is deterministic, even, sticky, exclusive, and independent between experiments."""

import json
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from scipy import stats
from typer.testing import CliRunner

from flywheel_core.cli import app
from flywheel_core.errors import ConfigError
from flywheel_core.experiments.assignment import Allocation, Layer, assign, ramped, unit_hash
from flywheel_core.experiments.eligibility import Eligibility, Person

USERS = [f"user-{n}" for n in range(20_000)]


def arms(layer: Layer) -> list[str | None]:
    return [assign(layer, Person(user_id=user)).arm for user in USERS]


def one_experiment(name: str = "x1", **shares: float) -> Layer:
    return Layer(salt="chat", allocations=(Allocation(experiment_id=name, **shares),))


def test_the_hash_is_what_it_was() -> None:
    """Fixed values: a change of the hash would move every user of a running experiment."""
    assert unit_hash("salt", "user-1") == 0.5649084257020334
    assert unit_hash("a", "bc") != unit_hash("ab", "c")


def test_ten_percent_an_arm_and_even() -> None:
    found = arms(one_experiment())
    for arm in ("test", "control"):
        assert found.count(arm) / len(USERS) == pytest.approx(0.10, abs=0.007)
    values = [unit_hash("arm:x1", user) for user in USERS]
    assert stats.kstest(values, "uniform").pvalue > 0.001


def test_it_is_sticky_and_independent_of_who_else_is_asked() -> None:
    layer = one_experiment()
    assert arms(layer) == arms(layer)
    assert assign(layer, Person(user_id="user-7")).arm == arms(layer)[7]


def test_ramping_takes_nobody_out_of_the_test_arm() -> None:
    allocation = Allocation(experiment_id="x1")
    before = arms(Layer(salt="chat", allocations=(allocation,)))
    for share in (0.5, 1.0):
        allocation = ramped(allocation, share)
        after = arms(Layer(salt="chat", allocations=(allocation,)))
        assert after.count("test") / len(USERS) == pytest.approx(share, abs=0.012)
        assert all(now == "test" for was, now in zip(before, after, strict=True) if was == "test")
        moved = [was for was, now in zip(before, after, strict=True) if was != now]
        if share == 0.5:
            assert set(moved) == {None}  # control keeps its 10 %
        before = after
    assert allocation.control_share == 0
    with pytest.raises(ConfigError, match="roll back instead"):
        ramped(allocation, 0.1)


def test_experiments_of_a_layer_exclude_each_other() -> None:
    first = Allocation(experiment_id="x1", num_buckets=5000)
    second = Allocation(experiment_id="x2", first_bucket=5000, num_buckets=5000)
    layer = Layer(salt="chat", allocations=(first, second))
    found = [assign(layer, Person(user_id=user)) for user in USERS]
    for name in ("x1", "x2"):
        for arm in ("test", "control"):
            share = sum((one.experiment_id, one.arm) == (name, arm) for one in found) / len(USERS)
            assert share == pytest.approx(0.10, abs=0.008)  # of all users, not of the range
    with pytest.raises(ValidationError, match="share buckets"):
        Layer(salt="chat", allocations=(first, second.model_copy(update={"first_bucket": 4999})))
    with pytest.raises(ValidationError, match="there twice"):
        Layer(salt="chat", allocations=(first, first))


def test_the_next_experiment_mixes_the_last_ones_arms() -> None:
    first, second = (
        np.array([one or "none" for one in arms(one_experiment(name))]) for name in ("x1", "x2")
    )
    table = [
        [((first == a) & (second == b)).sum() for b in ("test", "control", "none")]
        for a in ("test", "control", "none")
    ]
    assert stats.chi2_contingency(table).pvalue > 0.001


def test_who_is_not_eligible_is_told_why() -> None:
    rules = Eligibility(
        locales=("en_US",),
        languages=("en",),
        min_days_since_joined=3,
        excluded_users=frozenset({"boss"}),
    )
    layer = Layer(salt="s", allocations=(Allocation(experiment_id="x", eligibility=rules),))
    person = Person(user_id="u", locale="en_US", language="en", days_since_joined=3)
    assert assign(layer, person).reason in ("assigned", "outside both arms' shares")
    for change, said in (
        ({"user_id": "boss"}, "excluded by name"),
        ({"locale": None}, "locale None"),
        ({"language": "fr"}, "language 'fr'"),
        ({"days_since_joined": 2}, "joined 2 days ago"),
        ({"days_since_joined": None}, "joined None days ago"),
    ):
        found = assign(layer, person.model_copy(update=change))
        assert found.arm is None
        assert said in found.reason


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"test_share": 0.7, "control_share": 0.5}, "together they exceed"),
        ({"num_buckets": 1000}, "together they exceed"),
        ({"first_bucket": 9000, "num_buckets": 2000}, "a layer has 10000"),
        ({"test_share": float("nan")}, "finite"),
    ],
)
def test_shares_that_do_not_fit(fields: dict[str, float], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Allocation.model_validate({"experiment_id": "x", **fields})


def test_the_command_line_assigns() -> None:
    command = ["ab", "assign", "user-1", "user-2", "--experiment", "x1", "--layer", "chat"]
    done = CliRunner().invoke(app, [*command, "--json"])
    assert done.exit_code == 0, done.output
    expected = [assign(one_experiment(), Person(user_id=user)) for user in ("user-1", "user-2")]
    assert json.loads(done.stdout) == [one.model_dump(mode="json") for one in expected]
    wrong = CliRunner().invoke(app, [*command, "--test-share", "0.95"])
    assert wrong.exit_code == 1
    assert "together they exceed" in wrong.output


def test_the_command_line_assigns_within_a_layer(tmp_path: Path) -> None:
    """Two experiments that exclude each other, one of them for people of one locale only."""
    halves = [
        Allocation(
            experiment_id=name,
            first_bucket=5000 * place,
            num_buckets=5000,
            test_share=0.25,
            control_share=0.25,
            eligibility=Eligibility(locales=("en_US",) if name == "x1" else ()),
        )
        for place, name in enumerate(("x1", "x2"))
    ]
    file = tmp_path / "layer.json"
    file.write_text(Layer(salt="chat", allocations=tuple(halves)).model_dump_json())
    command = ["ab", "assign", *USERS[:60], "--layer-file", str(file), "--json"]

    def experiments(*options: str) -> list[tuple[str, str | None]]:
        done = CliRunner().invoke(app, [*command, *options])
        assert done.exit_code == 0, done.output
        return [(one["experiment_id"], one["arm"]) for one in json.loads(done.stdout)]

    here, elsewhere = experiments("--locale", "en_US"), experiments("--locale", "fr_FR")
    assert {name for name, _ in here} == {"x1", "x2"}
    assert [name for name, _ in here] == [name for name, _ in elsewhere]
    for (name, arm), (_, other) in zip(here, elsewhere, strict=True):
        assert arm is not None
        assert other == (None if name == "x1" else arm)
    file.write_text(file.read_text().replace('"first_bucket":5000', '"first_bucket":4999'))
    shared = CliRunner().invoke(app, command)
    assert shared.exit_code == 1
    assert "'x1' and 'x2' share buckets" in shared.output.replace("\n", " ")
    for more in (["--experiment", "x1"], []):
        both = CliRunner().invoke(app, [*(command if more else command[:3]), *more])
        assert both.exit_code == 1
        assert "exactly one" in both.output


def test_who_is_excluded_is_written_in_one_order() -> None:
    users = [f"u{n}" for n in range(50)]
    written = Eligibility(excluded_users=frozenset(users)).model_dump(mode="json")
    assert written["excluded_users"] == sorted(users)
    assert Eligibility.model_validate(written).excluded_users == frozenset(users)
