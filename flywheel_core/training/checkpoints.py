"""Which checkpoints are whole: a DONE mark, written last.

Ray's own record of a checkpoint can lag behind a crash by a poll (FACTS: a rank killed right
after reporting one restarts from scratch), so a resume trusts the mark inside the folder.
"""

from pathlib import Path

DONE = "DONE"


def mark_done(folder: Path) -> None:
    """Say that every file of this checkpoint has been written."""
    (folder / DONE).touch()


def step_of(folder: Path) -> int:
    """The optimiser step in a folder's name, `checkpoint-12`."""
    return int(folder.name.rsplit("-", 1)[1])


def done_checkpoints(folder: Path) -> list[Path]:
    """Every whole checkpoint below `folder`, in order of step."""
    found = [path for path in folder.glob("checkpoint-*") if (path / DONE).is_file()]
    return sorted(found, key=step_of)


def latest_done(folder: Path) -> Path | None:
    """The newest whole checkpoint, or None."""
    found = done_checkpoints(folder)
    return found[-1] if found else None
