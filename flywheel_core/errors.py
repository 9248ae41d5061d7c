"""The exception tree.

    FlywheelError
    ├── ConfigError            a recipe, policy or flag is wrong
    ├── InputDataError         a file is not what it says it is
    ├── SolverGaveUp           no balanced set was found, nor a proof that there is none
    ├── LabelsPending          people have not labelled the batch yet
    ├── StoreError         ↻   the store cannot be read or written
    │   ├── StoreMissing       nothing lies at that path
    │   ├── StoreFull          no space is left
    │   └── StoreRefused       the path, the rights or the bucket are wrong
    ├── ArtifactError
    │   ├── ArtifactMissing    no manifest: the stage has not finished
    │   ├── ArtifactCorrupt    bytes differ from the manifest's digest
    │   ├── ArtifactRetired    its rows were removed: they held erased users
    │   └── SchemaTooNew       written by a newer flywheel than this one
    ├── PointerConflict        somebody else moved the pointer first
    ├── EngineError            a model cannot be loaded, served or scored
    ├── MapFailed              a function over rows failed, or a shard of it is missing
    ├── TrainingError          a training run ended without a model
    │   └── TrainingLost   ↻   its ranks died without an error of their own
    ├── Superseded             another driver has taken over this key
    ├── JobError               a Ray job failed of its own: its code, data or configuration
    │   ├── JobInterrupted ↻   a Ray job was ended by its surroundings: a kill, a lost node
    │   ├── RayUnreachable ↻   no Ray answers
    │   ├── RayRefused         Ray does not accept our credentials or our request
    │   └── BudgetExceeded     the climb has used its GPU-hours
    ├── StackError         ↻   Airflow or Ray cannot be started or reached
    ├── GateBlocked            a gate's verdict is block or insufficient
    └── PromotionRefused       a release check failed (release/decision.py has one for each)

↻ marks what a later try may find mended (`transient`): only these are retried.
Every message says which field, the value received, what is allowed, and the next step.
"""

from typing import ClassVar


class FlywheelError(Exception):
    """Base of every error the flywheel raises on purpose."""

    transient: ClassVar[bool] = False
    """Whether trying again, with nothing else changed, may help."""


class ConfigError(FlywheelError):
    """A recipe, policy or flag is wrong."""


class InputDataError(FlywheelError):
    """A data file is not what it says it is."""


class SolverGaveUp(FlywheelError):
    """The search for a balanced set (Table 1) ended without one; the constraints need not clash."""


class LabelsPending(FlywheelError):
    """People have not labelled the batch yet: only they can mend it, so it is not tried again."""


class StoreError(FlywheelError):
    """The store cannot be read or written."""

    transient = True


class StoreMissing(StoreError):
    """Nothing lies at that path."""

    transient = False


class StoreFull(StoreError):
    """No space is left where the store, or the work folder, lies."""

    transient = False


class StoreRefused(StoreError):
    """The path, the rights or the bucket are wrong: nothing to wait for."""

    transient = False


class ArtifactError(FlywheelError):
    """An artifact cannot be used."""


class ArtifactMissing(ArtifactError):
    """There is no manifest: the stage has not finished."""


class ArtifactCorrupt(ArtifactError):
    """The bytes differ from the digest in the manifest."""


class ArtifactRetired(ArtifactError):
    """Rows of erased users were in it, so its data was removed for good."""


class SchemaTooNew(ArtifactError):
    """The record was written by a newer flywheel than this one."""


class PointerConflict(FlywheelError):
    """Somebody else moved the pointer first."""


class EngineError(FlywheelError):
    """A model cannot be loaded, served or scored."""


class MapFailed(FlywheelError):
    """A function over rows failed on a shard, or a shard's mark is missing."""


class TrainingError(FlywheelError):
    """A training run ended without a model."""


class TrainingLost(TrainingError):
    """Ranks died without an error of their own: a kill, a lost node, a full machine."""

    transient = True


class Superseded(FlywheelError):
    """Another driver has taken over this key."""


class JobError(FlywheelError):
    """A Ray job failed of its own: its code, its data or its configuration."""


class JobInterrupted(JobError):
    """A Ray job was ended by its surroundings: a kill, a lost node, a full machine."""

    transient = True


class RayUnreachable(JobError):
    """No Ray answers."""

    transient = True


class RayRefused(JobError):
    """Ray does not accept our credentials or our request."""


class BudgetExceeded(JobError):
    """The climb has used the GPU-hours that the policy gives it."""


class StackError(FlywheelError):
    """Airflow or Ray cannot be started or reached."""

    transient = True


class GateBlocked(FlywheelError):
    """A gate's verdict is block or insufficient."""


class PromotionRefused(FlywheelError):
    """A release check failed."""
