"""Which checkpoints are whole: a DONE mark, written last.

Ray's own record of a checkpoint can lag behind a crash by a poll (FACTS: a rank killed right
after reporting one restarts from scratch), so a resume trusts the mark inside the folder.
"""

import shutil
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


def drop_half_written(folder: Path) -> None:
    """Remove what a killed try left without its mark."""
    for path in folder.glob("checkpoint-*"):
        if not (path / DONE).is_file():
            shutil.rmtree(path, ignore_errors=True)


def keep_newest(folder: Path, count: int) -> None:
    """Remove whole checkpoints but the newest `count`: optimiser state is three models' worth.

    The mark goes first, so that a removal cut short leaves no checkpoint that looks whole.
    """
    for path in done_checkpoints(folder)[:-count]:
        (path / DONE).unlink()
        shutil.rmtree(path, ignore_errors=True)
