"""A simulated experiment as the product logs it: exposures and events, day by day.

People of the product are assigned by the experiment's own allocation, so arms are as uneven as they
are in life. Everybody meets the experiment on the first day and on each day they come; a day's
messages are one event row. Reports are the guardrail: the worse what a user met, the likelier. What
a person did in the week before is logged with the exposure, for CUPED.
"""

import datetime
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from flywheel_core.errors import ConfigError
from flywheel_core.experiments.assignment import Allocation, Layer, assign
from flywheel_core.experiments.eligibility import Eligibility, Person
from flywheel_core.experiments.logs import DAY_US
from flywheel_core.world.experiment import ARMS, ArmWeek, ExperimentConfig, draw_week
from flywheel_core.world.people import sigmoid
from flywheel_core.world.phrases import LANGUAGES
from flywheel_core.world.product import LOCALES, make_mix
from flywheel_core.world.utility import FloatArray

EPOCH = datetime.date(1970, 1, 1)
LAYER = "flywheel"
PEOPLE_PER_ARM_USER = 10
NEW_SHARE = 0.3
REPORT_LOG_ODDS, REPORT_SLOPE = -4.5, -0.8


@dataclass(frozen=True)
class LoggedDay:
    """One day's rows of both logs."""

    day: datetime.date
    exposures: pa.Table
    events: pa.Table


@dataclass(frozen=True)
class _Arm:
    """An arm's people and their week."""

    name: str
    users: pa.Array
    week: ArmWeek
    locale: pa.Array
    language: pa.Array
    user_kind: pa.Array
    pre_days: np.ndarray
    pre_sends: np.ndarray


def simulate_logs(
    control: FloatArray,
    test: FloatArray,
    allocation: Allocation,
    config: ExperimentConfig,
    first_day: datetime.date,
    seed: int,
) -> Iterator[LoggedDay]:
    """The days of an experiment between two models, from hidden utilities of their responses.

    The product has ten times `config.num_users_per_arm` people: that many are in an arm of 10 %,
    and those outside both arms leave no trace here.
    """
    rng = np.random.default_rng([seed, 0xAB2])
    members = _assigned(allocation, PEOPLE_PER_ARM_USER * config.num_users_per_arm)
    arms = [
        _draw_arm(name, members[name], utilities, config, rng)
        for name, utilities in zip(ARMS, (control, test), strict=True)
    ]
    number = 0
    for index in range(config.num_days):
        day = first_day + datetime.timedelta(days=index)
        exposures = pa.concat_tables([_exposures(arm, day, index, rng) for arm in arms])
        parts = [_events(arm, day, index, rng) for arm in arms]
        events = pa.concat_tables(parts)
        ids = pa.array(np.arange(number, number + events.num_rows))
        number += events.num_rows
        yield LoggedDay(day, exposures, events.append_column("event_id", ids))


def _assigned(allocation: Allocation, num_people: int) -> dict[str, list[str]]:
    """The people of the product in each arm."""
    if allocation.eligibility != Eligibility(excluded_users=allocation.eligibility.excluded_users):
        raise ConfigError(
            "eligibility: the simulated people have no locale, language or age before they are "
            "assigned; leave it out of the policy's `experiment`, or use real traffic"
        )
    layer = Layer(salt=LAYER, allocations=(allocation,))
    found: dict[str, list[str]] = {name: [] for name in ARMS}
    for index in range(num_people):
        user = f"p{index:07d}"
        arm = assign(layer, Person(user_id=user)).arm
        if arm is not None:
            found[arm].append(user)
    if not all(found.values()):
        raise ConfigError(
            f"allocation of {allocation.experiment_id!r}: {len(found['test'])} people in test, "
            f"{len(found['control'])} in control; both arms need some"
        )
    return found


def _draw_arm(
    name: str,
    users: list[str],
    utilities: FloatArray,
    config: ExperimentConfig,
    rng: np.random.Generator,
) -> _Arm:
    size = len(users)
    sized = config.model_copy(update={"num_users_per_arm": size})
    week = draw_week(utilities, "test" if name == "test" else "control", sized, rng)
    is_new = rng.random(size) < NEW_SHARE
    pre_days = np.where(is_new, 0, rng.binomial(7, week.usual_chance))
    pre_sends = pre_days + rng.poisson(pre_days * week.usual_rate)
    languages = rng.choice(len(LANGUAGES), size, p=make_mix("user").language_shares)
    places = rng.random(size)
    locale = [
        LOCALES[LANGUAGES[language]][int(place * len(LOCALES[LANGUAGES[language]]))]
        for language, place in zip(languages, places, strict=True)
    ]
    return _Arm(
        name=name,
        users=pa.array(users),
        week=week,
        locale=pa.array(locale),
        language=pa.array(LANGUAGES).take(pa.array(languages)),
        user_kind=pa.array(["returning", "new"]).take(pa.array(is_new.astype(np.int8))),
        pre_days=pre_days,
        pre_sends=pre_sends,
    )


def _exposures(arm: _Arm, day: datetime.date, index: int, rng: np.random.Generator) -> pa.Table:
    there = np.flatnonzero(arm.week.engaged[:, index] | (index == 0))
    rows = pa.array(there)
    return pa.table(
        {
            "user_id": arm.users.take(rows),
            "arm": pa.array([arm.name]).take(pa.array(np.zeros(len(there), np.int8))),
            "exposed_at": _times(day, rng.uniform(0, 0.4, len(there))),
            "locale": arm.locale.take(rows),
            "language": arm.language.take(rows),
            "user_kind": arm.user_kind.take(rows),
            "pre_engaged_days": pa.array(arm.pre_days[there]),
            "pre_sends": pa.array(arm.pre_sends[there]),
        }
    )


def _events(arm: _Arm, day: datetime.date, index: int, rng: np.random.Generator) -> pa.Table:
    there = np.flatnonzero(arm.week.engaged[:, index])
    chance = sigmoid(REPORT_LOG_ODDS + REPORT_SLOPE * arm.week.quality[there])
    return pa.table(
        {
            "user_id": arm.users.take(pa.array(there)),
            "at": _times(day, rng.uniform(0.4, 1.0, len(there))),
            "sends": pa.array(arm.week.sends[there, index]),
            "reports": pa.array((rng.random(len(there)) < chance).astype(np.int64)),
        }
    )


def _times(day: datetime.date, share_of_day: FloatArray) -> pa.Array:
    start = (day - EPOCH).days * DAY_US
    return pa.array(start + (share_of_day * DAY_US).astype(np.int64)).cast(
        pa.timestamp("us", "UTC")
    )
