"""Where a climb begins when somebody starts it by hand: at a later stage, from a checkpoint."""

import re
from typing import Self

from pydantic import model_validator

from flywheel_core.artifacts import (
    ArtifactRef,
    Record,
    is_done,
    model_digest,
    read_manifest,
)
from flywheel_core.errors import ArtifactError, ConfigError
from flywheel_core.pointers import Pointer
from flywheel_core.stages import STAGES, stage_named
from flywheel_core.store import Store

MODEL_STAGES = ("sft", "dpo", "rl")
"""The stages whose output is a policy: what a checkpoint can take the place of."""

CHECKPOINT_STARTS = ("dpo", "rl", "evaluate")
"""The stages that read a policy, and so can begin from a checkpoint."""

CHECKPOINT_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]*/gen-[0-9]{4,}/[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+$"


class StartAt(Record):
    """What was asked for; the plan records it.

    `start_from`: the first stage that may have to run; the ones before it must be in the store.
    `checkpoint`: `<flywheel>/gen-0007/<stage>/<key>`, an artifact with a `model/` folder, in the
    place of the output of every model stage before `start_from`. Its whole artifact takes that
    place: if it holds several checkpoints, `evaluate` has them all on offer.
    """

    start_from: str | None = None
    checkpoint: str | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.start_from is not None:
            stage_named(self.start_from)
        if self.checkpoint is not None:
            self._check_checkpoint()
        return self

    def _check_checkpoint(self) -> None:
        if not re.fullmatch(CHECKPOINT_PATTERN, str(self.checkpoint)):
            raise ConfigError(
                f"checkpoint: {self.checkpoint!r} is not a path in the store; write it as "
                "<flywheel>/gen-0007/<stage>/<key>, as a task's log names it"
            )
        if self.start_from not in CHECKPOINT_STARTS:
            raise ConfigError(
                f"checkpoint: it needs start_from to be one of {', '.join(CHECKPOINT_STARTS)}, "
                f"received {self.start_from!r}; say which stage begins from it"
            )

    @property
    def stages_before(self) -> tuple[str, ...]:
        """The stages that must be there already."""
        order = tuple(STAGES)
        return order[: order.index(self.start_from)] if self.start_from else ()

    @property
    def replaced(self) -> tuple[str, ...]:
        """The stages whose output the checkpoint takes the place of."""
        before = self.stages_before if self.checkpoint else ()
        return tuple(stage for stage in MODEL_STAGES if stage in before)


FROM_THE_START = StartAt()


def checkpoint_ref(store: Store, flywheel: str, path: str) -> ArtifactRef:
    """The artifact at `path`: committed, of this flywheel, with a model, not called bad."""
    owner, generation, stage, key = path.split("/")
    if owner != flywheel:
        raise ConfigError(
            f"checkpoint: {path!r} is of flywheel {owner!r}, but the recipe's is {flywheel!r}; "
            "name an artifact of that one"
        )
    ref = ArtifactRef(
        flywheel=owner, generation=int(generation.removeprefix("gen-")), stage=stage, key=key
    )
    if ref.path != path or not is_done(store, ref):
        raise ConfigError(
            f"checkpoint: there is no finished artifact at {path}; copy its path from the log of "
            "the task that made it"
        )
    if Pointer(store, flywheel, f"invalidated/{key}").newest() is not None:
        raise ConfigError(
            f"checkpoint: {path} was called bad with `flywheel invalidate`; name another"
        )
    try:
        model_digest(read_manifest(store, ref))
    except ArtifactError as error:
        raise ConfigError(
            f"checkpoint: {error}; name an artifact of sft, dpo, rl or evaluate"
        ) from error
    return ref
