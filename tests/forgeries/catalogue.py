"""Every attack by itself and in pairs, and how many went through."""

import itertools
import random
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import tests.forgeries.answers
import tests.forgeries.artifacts
import tests.forgeries.pointers  # noqa: F401  each enters its attacks
from tests.forgeries.attacks import ATTACKS, Attack
from tests.forgeries.scene import Attempt, approved_scene, attempt

NUM_PAIRS = 200
SEED = 3


@dataclass(frozen=True)
class Forgery:
    """One or two attacks on one approved climb."""

    attacks: tuple[Attack, ...]

    @property
    def name(self) -> str:
        return " + ".join(attack.name for attack in self.attacks)

    def attempt(self) -> Attempt:
        """Apply it to a fresh scene, and try to promote."""
        folder = Path(tempfile.mkdtemp(prefix="fw-forgery-"))
        try:
            scene = approved_scene(folder / "store", self.attacks[0].seed)
            for attack in self.attacks:
                attack.act(scene)
            return attempt(scene)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def singles() -> list[Forgery]:
    """Each attack by itself."""
    return [Forgery((attack,)) for attack in ATTACKS]


def pairs(count: int = NUM_PAIRS, seed: int = SEED) -> list[Forgery]:
    """Two attacks, one after the other: could one open the way for the other?"""
    usable = [attack for attack in ATTACKS if not attack.alone]
    possible = [
        (first, second)
        for first, second in itertools.permutations(usable, 2)
        if first.seed == second.seed
    ]
    return [Forgery(both) for both in random.Random(seed).sample(possible, count)]


def forgeries() -> Iterator[Forgery]:
    """All of them, each alone first."""
    yield from singles()
    yield from pairs()


def forged_attempts() -> tuple[int, int]:
    """How many forged promotions were tried, and how many went through (bench row
    `forged_promotions_through`). Without Airflow: seconds, not minutes."""
    results = [forgery.attempt() for forgery in forgeries()]
    return len(results), sum(result.through for result in results)
