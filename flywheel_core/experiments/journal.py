"""An experiment's records in the store: one decision a day, and the steps of its ramp.

`<flywheel>/experiments/<id>/decisions/<day>.json` is put if absent: the first decision of a day is
the decision of that day, whoever runs it again. `<flywheel>/pointers/ramp-<id>/` is an append-only
sequence of states; the product's router reads the newest allocation there. A decision is written
first and its step after it, so a run that dies in between is completed by running its day again,
as long as no later day was decided.

A decision is told, never obeyed: it lies where jobs write too. The step taken is the one that the
day's run worked out from the logs, and a record that says otherwise stops it. Steps lie under
`pointers/`, whose writers may move production.
"""

import datetime
from contextlib import suppress
from typing import Any

from pydantic import ValidationError

from flywheel_core.artifacts import SCHEMA_VERSION, Record, digest_of
from flywheel_core.errors import ArtifactCorrupt, ConfigError, PointerConflict, StoreMissing
from flywheel_core.experiments.approval import Approval
from flywheel_core.experiments.assignment import Allocation
from flywheel_core.experiments.config import ExperimentRule
from flywheel_core.experiments.ramp import Action, RampState, advance, rolled_back
from flywheel_core.experiments.readout import DayReadout, Readout
from flywheel_core.pointers import Pointer
from flywheel_core.store import Store

BY = "flywheel_ab_test"


class Decision(Record):
    """What was decided on a day, on which readout."""

    schema_version: int = SCHEMA_VERSION
    experiment_id: str
    day: datetime.date
    readout_digest: str
    action: Action
    by: str
    approval: Approval | None = None


class Decided(Record):
    """A day after it was run: its decision, whether this run made it, and the state in force."""

    decision: Decision
    is_new: bool
    moved: bool
    state: RampState


class Journal:
    """One experiment's decisions and steps."""

    def __init__(self, store: Store, flywheel: str, experiment_id: str) -> None:
        self.store = store
        self.experiment_id = experiment_id
        self.folder = f"{flywheel}/experiments/{experiment_id}"
        self._ramp = Pointer(store, flywheel, f"ramp-{experiment_id}")

    def allocate(
        self, allocation: Allocation, rule: ExperimentRule, *, today: datetime.date | None = None
    ) -> RampState:
        """Open the experiment: from here on the router exposes users, and nothing is read yet.
        `today` is the date on which this takes effect, None for simulated days, which are whole.
        Opening it again changes nothing."""
        if self._ramp.newest() is None:
            state = RampState(
                experiment_id=self.experiment_id,
                allocation=allocation,
                first_day=None,
                rule=rule,
                took_effect=today,
            )
            with suppress(PointerConflict):  # another run opened it meanwhile
                self._append(state, 0, by=BY, reason="allocated")
        return self.state()

    def begin(self, first_day: datetime.date) -> RampState:
        """Fix the first day that is read, once."""
        newest, state = self._ramp.newest(), self.state()
        if newest is not None and state.first_day is None and not state.is_over:
            begun = state.model_copy(update={"first_day": first_day})
            with suppress(PointerConflict):  # another run did, or ended the experiment
                reason = f"the first exposures are of {first_day}"
                self._append(begun, newest.number, by=BY, reason=reason)
        return self.state()

    @property
    def is_allocated(self) -> bool:
        """Whether users may meet the candidate, or could."""
        return self._ramp.newest() is not None

    def state(self) -> RampState:
        """Where the experiment stands now."""
        newest = self._ramp.newest()
        if newest is None:
            raise ConfigError(
                f"experiment {self.experiment_id!r} was never opened; promote a candidate under "
                "`release: ab` first"
            )
        return _parse(RampState, newest.value, self._ramp.folder)

    def states(self) -> list[RampState]:
        """Every state there was, oldest first."""
        records = self._ramp.history()
        return [_parse(RampState, one.value, self._ramp.folder) for one in records]

    def decision(self, day: datetime.date) -> Decision | None:
        """The decision of a day, or None; the rollback where one superseded it."""
        path = self._rollback_path(day)
        if not self.store.exists(path):
            path = self._decision_path(day)
        if not self.store.exists(path):
            return None
        try:
            return Decision.model_validate_json(self.store.get(path))
        except ValidationError as error:
            raise ArtifactCorrupt(f"{path} is not a decision: {error}; restore a copy") from error

    def decided_days(self) -> tuple[datetime.date, ...]:
        """The days that have a decision, oldest first."""
        paths = self.store.list(f"{self.folder}/decisions")
        names = (path.rsplit("/", 1)[-1].split(".")[0] for path in paths)
        return tuple(sorted({datetime.date.fromisoformat(name) for name in names}))

    def decide(
        self,
        readout: Readout,
        action: Action,
        *,
        by: str = BY,
        approval: Approval | None = None,
        took_effect: datetime.date | None = None,
    ) -> Decided:
        """Record the day's decision and take its step, once. `wait` and `ask` decide nothing yet
        and are not recorded: the day can be run again when the data, or the answer, are there.
        `ArtifactCorrupt` where the day has a record of another action, unless this one is a
        rollback: that is recorded beside it, and supersedes it."""
        day, state = readout.newest.day, self.state()
        if state.is_over:  # ended by hand since the day was read
            action = Action(kind="nothing", reason=f"the experiment is over: {state.phase}")
        if action.kind in ("wait", "ask", "nothing"):
            decision = self._decision_of(readout, action, by, None)
            return Decided(decision=decision, is_new=False, moved=False, state=state)
        later = [one for one in self.decided_days() if one > day]
        if later and self.decision(day) is None:
            raise ConfigError(
                f"day {day}: {later[-1]} was decided already; an older day cannot be decided any "
                "more, only read"
            )
        mine = self._decision_of(readout, action, by, approval)
        is_new = self.store.put_if_absent(
            self._decision_path(day), mine.model_dump_json(indent=1).encode()
        )
        if not is_new:
            is_new = self._supersede_or_require_same(mine)
        moved = not later and self._take_step(mine, took_effect)
        return Decided(decision=mine, is_new=is_new, moved=moved, state=self.state())

    def end(self, *, by: str, reason: str) -> RampState:
        """Take the candidate from everybody, whatever day it is; also after a release that did
        not come to move production. The caller knows whether it did: taking that back is
        production's rollback."""
        while True:
            newest, state = self._ramp.newest(), self.state()
            if state.phase == "rolled_back" or newest is None:
                return state
            ended = rolled_back(state)
            with suppress(PointerConflict):  # a run was first: look at where it stands now
                self._append(ended, newest.number, by=by, reason=reason)
                return ended

    def _supersede_or_require_same(self, mine: Decision) -> bool:
        found = self.decision(mine.day)
        said = found.action.kind if found else "gone"
        if said != mine.action.kind == "rollback":
            path = self._rollback_path(mine.day)
            return self.store.put_if_absent(path, mine.model_dump_json(indent=1).encode())
        if said != mine.action.kind:
            raise ArtifactCorrupt(
                f"{self._decision_path(mine.day)} says {said}, but the logs of that day say "
                f"{mine.action.kind} ({mine.action.reason}): nothing is moved; find out who wrote "
                "it and delete it, or end the experiment by `flywheel ab end`"
            )
        return False

    def _take_step(self, decision: Decision, took_effect: datetime.date | None) -> bool:
        newest = self._ramp.newest()
        state = self.state()
        if newest is None or state.is_over:
            return False
        if state.decided is not None and decision.day <= state.decided:
            return False
        following = advance(
            state,
            decision.day,
            decision.action,
            approval=decision.approval,
            took_effect=took_effect,
        )
        try:
            self._append(following, newest.number, by=decision.by, reason=decision.action.reason)
        except PointerConflict:
            return False  # another run of this day was first
        return True

    def _append(self, state: RampState, expected: int, *, by: str, reason: str) -> None:
        value = state.model_dump(mode="json")
        self._ramp.move(value, expected_number=expected, by=by, reason=reason)

    def _decision_of(
        self, readout: Readout, action: Action, by: str, approval: Approval | None
    ) -> Decision:
        return Decision(
            experiment_id=self.experiment_id,
            day=readout.newest.day,
            readout_digest=digest_of(readout.model_dump(mode="json")),
            action=action,
            by=by,
            approval=approval,
        )

    def _decision_path(self, day: datetime.date) -> str:
        return f"{self.folder}/decisions/{day}.json"

    def _rollback_path(self, day: datetime.date) -> str:
        return f"{self.folder}/decisions/{day}.rollback.json"

    def keep_readout(self, readout: Readout) -> str:
        """Store a readout under its digest, and return its path; a day read again on other data
        is a second file, and the decision names the one it rests on."""
        digest = digest_of(readout.model_dump(mode="json"))
        path = self._readout_path(readout.newest.day, digest)
        self.store.put_if_absent(path, readout.model_dump_json(indent=1).encode())
        return path

    def decisive_readout(self) -> Readout | None:
        """What the window ended on: the readout that its last decision names. None while it runs,
        and where it was ended before anything was decided."""
        days = self.decided_days()
        if not days or not self.is_allocated:
            return None
        read = [(one, self._readout_of(one)) for one in map(self.decision, days) if one]
        first_day = read[0][1].first_day  # a step of the ramp starts later
        decision, readout = [one for one in read if one[1].first_day == first_day][-1]
        ended = decision.action.kind in ("ramp", "release", "rollback") or self.state().is_over
        return readout if ended else None

    def _readout_of(self, decision: Decision) -> Readout:
        path = self._readout_path(decision.day, decision.readout_digest)
        try:
            return Readout.model_validate_json(self.store.get(path))
        except (StoreMissing, FileNotFoundError, ValidationError) as error:
            raise ArtifactCorrupt(
                f"{path}: the readout that the decision of {decision.day} names cannot be read "
                f"({type(error).__name__}); restore a copy"
            ) from error

    def _readout_path(self, day: datetime.date, digest: str) -> str:
        return f"{self.folder}/readouts/{day}-{digest[:16]}.json"


def ended_experiments(store: Store, flywheel: str) -> list[tuple[str, DayReadout]]:
    """The experiments of a flywheel that were ramped or rolled back, each with the day that this
    was decided on in its window, in the order of their first days: the releases of the paper's
    Figure 8, those that never got to their last day included."""
    folders = {"/".join(path.split("/")[:3]) for path in store.list(f"{flywheel}/experiments")}
    found = []
    for folder in sorted(folders):
        journal = Journal(store, flywheel, folder.rsplit("/", 1)[-1])
        readout = journal.decisive_readout()
        if readout is not None:
            found.append((readout.first_day, journal.experiment_id, readout.newest))
    found.sort(key=lambda one: one[:2])
    return [(name, read) for _, name, read in found]


def _parse(kind: type[RampState], value: dict[str, Any], folder: str) -> RampState:
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise ArtifactCorrupt(f"{folder}: the newest record is no ramp state: {error}") from error
