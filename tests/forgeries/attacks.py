"""What an attack is: a small function with a name, and the refusal it must meet."""

from collections.abc import Callable
from dataclasses import dataclass

from tests.forgeries.scene import Scene, Seed

Act = Callable[[Scene], None]


@dataclass(frozen=True)
class Attack:
    """`refusal` and `says`: the exception and the words it must meet, applied by itself.

    `alone`: it re-asks the question or lets the release manager approve what is there, so another
    attack before it would be approved honestly; left out of the pairs.
    """

    name: str
    act: Act
    refusal: type[Exception]
    says: str
    seed: Seed = "good"
    alone: bool = False


ATTACKS: list[Attack] = []


def attack(
    refusal: type[Exception], says: str, *, seed: Seed = "good", alone: bool = False
) -> Callable[[Act], Act]:
    """Enter a function into the catalogue."""

    def enter(act: Act) -> Act:
        ATTACKS.append(Attack(act.__name__, act, refusal, says, seed, alone))
        return act

    return enter
