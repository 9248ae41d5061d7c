"""The exception tree.

    FlywheelError
    ├── ConfigError            a recipe, policy or flag is wrong: never retried
    ├── InputDataError         a file is not what it says it is: never retried
    ├── StoreError             the store cannot be read or written
    │   └── StoreMissing       nothing lies at that path
    ├── ArtifactError
    │   ├── ArtifactMissing    no manifest: the stage has not finished
    │   ├── ArtifactCorrupt    bytes differ from the manifest's digest
    │   └── SchemaTooNew       written by a newer flywheel than this one
    ├── PointerConflict        somebody else moved the pointer first
    ├── EngineError            a model cannot be loaded, served or scored
    ├── TrainingError          a training run ended without a model
    ├── JobError               a Ray job failed
    ├── StackError             Airflow or Ray cannot be started or reached
    ├── GateBlocked            a gate's verdict is block or insufficient
    └── PromotionRefused       a release check failed (release/decision.py has one for each)

Every message says which field, the value received, what is allowed, and the next step.
"""


class FlywheelError(Exception):
    """Base of every error the flywheel raises on purpose."""


class ConfigError(FlywheelError):
    """A recipe, policy or flag is wrong."""


class InputDataError(FlywheelError):
    """A data file is not what it says it is."""


class StoreError(FlywheelError):
    """The store cannot be read or written."""


class StoreMissing(StoreError):
    """Nothing lies at that path."""


class ArtifactError(FlywheelError):
    """An artifact cannot be used."""


class ArtifactMissing(ArtifactError):
    """There is no manifest: the stage has not finished."""


class ArtifactCorrupt(ArtifactError):
    """The bytes differ from the digest in the manifest."""


class SchemaTooNew(ArtifactError):
    """The record was written by a newer flywheel than this one."""


class PointerConflict(FlywheelError):
    """Somebody else moved the pointer first."""


class EngineError(FlywheelError):
    """A model cannot be loaded, served or scored."""


class TrainingError(FlywheelError):
    """A training run ended without a model."""


class JobError(FlywheelError):
    """A Ray job failed."""


class StackError(FlywheelError):
    """Airflow or Ray cannot be started or reached."""


class GateBlocked(FlywheelError):
    """A gate's verdict is block or insufficient."""


class PromotionRefused(FlywheelError):
    """A release check failed."""
