"""Who is in which arm: deterministic, sticky, and in one experiment at a time.

A user's place is a number in [0, 1) from SHA-256 of a salt and the user's id: the same on every
server, every day, with no table to keep. Two hashes with different salts are used. The *layer's*
puts each user into one of 10,000 buckets, and experiments of a layer hold disjoint ranges of
buckets, so nobody is in two of them. The *experiment's own* splits its users into arms, so that the
users who met the last candidate are spread evenly over the next experiment's arms.

The test arm grows from 0 upwards and control from 1 downwards: a ramp from 10 to 50 % moves users
into the test arm and nobody out of an arm.
"""

import hashlib

from pydantic import ConfigDict, Field, model_validator

from flywheel_core.artifacts import Record
from flywheel_core.errors import ConfigError
from flywheel_core.experiments.eligibility import Eligibility, Person
from flywheel_core.experiments.logs import Arm

NUM_BUCKETS = 10_000
DEFAULT_SHARE = 0.10
"""Of all users, in each arm (paper §2.5.2)."""


def unit_hash(salt: str, user_id: str) -> float:
    """A number in [0, 1), uniform over users: the first 53 bits of SHA-256 of salt and id."""
    digest = hashlib.sha256(f"{len(salt)}:{salt}:{user_id}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53


class Allocation(Record):
    """One experiment's place in its layer. Shares are of all users, so `test_share` 0.1 is 10 % of
    everybody whatever the range of buckets; both together must fit into it."""

    model_config = ConfigDict(allow_inf_nan=False)

    experiment_id: str = Field(min_length=1)
    first_bucket: int = Field(default=0, ge=0, lt=NUM_BUCKETS)
    num_buckets: int = Field(default=NUM_BUCKETS, ge=1, le=NUM_BUCKETS)
    test_share: float = Field(default=DEFAULT_SHARE, ge=0, le=1)
    control_share: float = Field(default=DEFAULT_SHARE, ge=0, le=1)
    eligibility: Eligibility = Eligibility()

    @model_validator(mode="after")
    def _fits(self) -> "Allocation":
        if self.first_bucket + self.num_buckets > NUM_BUCKETS:
            raise ValueError(
                f"buckets {self.first_bucket} to {self.first_bucket + self.num_buckets - 1}: a "
                f"layer has {NUM_BUCKETS}"
            )
        if self.test_share + self.control_share > self.range_share + 1e-12:
            raise ValueError(
                f"test_share {self.test_share} and control_share {self.control_share}: together "
                f"they exceed the {self.range_share:g} of all users that the buckets hold"
            )
        return self

    @property
    def range_share(self) -> float:
        return self.num_buckets / NUM_BUCKETS

    def overlaps(self, other: "Allocation") -> bool:
        """Whether some bucket is in both."""
        return (
            self.first_bucket < other.first_bucket + other.num_buckets
            and other.first_bucket < self.first_bucket + self.num_buckets
        )


class Layer(Record):
    """Experiments that exclude each other."""

    salt: str = Field(min_length=1)
    allocations: tuple[Allocation, ...]

    @model_validator(mode="after")
    def _exclusive(self) -> "Layer":
        for place, one in enumerate(self.allocations):
            for other in self.allocations[:place]:
                if one.experiment_id == other.experiment_id:
                    raise ValueError(f"experiment {one.experiment_id!r} is there twice")
                if one.overlaps(other):
                    raise ValueError(
                        f"experiments {other.experiment_id!r} and {one.experiment_id!r} share "
                        "buckets; give them ranges that do not overlap"
                    )
        return self


class Assignment(Record):
    """Where a user is; neither experiment nor arm where they meet production outside of any."""

    user_id: str
    experiment_id: str | None = None
    arm: Arm | None = None
    reason: str


def assign(layer: Layer, person: Person) -> Assignment:
    """The user's experiment and arm. Depends on the layer, the user and nothing else."""
    bucket = int(unit_hash(layer.salt, person.user_id) * NUM_BUCKETS)
    for one in layer.allocations:
        if one.first_bucket <= bucket < one.first_bucket + one.num_buckets:
            return _within(one, person)
    return Assignment(user_id=person.user_id, reason="in no experiment's buckets")


def _within(one: Allocation, person: Person) -> Assignment:
    against = one.eligibility.reason_against(person)
    if against is not None:
        return Assignment(
            user_id=person.user_id,
            experiment_id=one.experiment_id,
            reason=f"not eligible: {against}",
        )
    place = unit_hash(f"arm:{one.experiment_id}", person.user_id) * one.range_share
    arm: Arm | None = None
    if place < one.test_share:
        arm = "test"
    elif place >= one.range_share - one.control_share:
        arm = "control"
    return Assignment(
        user_id=person.user_id,
        experiment_id=one.experiment_id,
        arm=arm,
        reason="assigned" if arm else "outside both arms' shares",
    )


def ramped(one: Allocation, test_share: float) -> Allocation:
    """The same experiment with a larger test arm; control gives way where it has to. Users in the
    test arm stay there; a smaller arm is refused, because it would take users out of it."""
    if test_share < one.test_share:
        raise ConfigError(
            f"test_share {test_share}: below the {one.test_share} that are in the test arm now; "
            "roll back instead"
        )
    control = min(one.control_share, max(0.0, one.range_share - test_share))
    return Allocation.model_validate(
        {**one.model_dump(), "test_share": test_share, "control_share": control}
    )
