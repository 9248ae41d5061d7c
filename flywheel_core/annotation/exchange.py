"""Where a batch lies in the annotation exchange: a folder an artifact, one below it a workflow."""

from pathlib import Path

from flywheel_core.artifacts import ArtifactRef


def batch_folder(root: str | Path, ref: ArtifactRef) -> Path:
    """The folder of tasks and labels from which the artifact `ref` is made."""
    return Path(root) / ref.flywheel / f"{ref.stage}-{ref.key}"
