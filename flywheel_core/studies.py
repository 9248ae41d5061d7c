"""Named departures from the method, and what becomes of what they make. Light.

A study may do what a recipe may not. The price: its artifacts from RL on, where it departs, and
everything made from them, are marked unfit for release, and no gate or promotion lets them through.
The mark is in the manifest, and in a file beside the weights of every checkpoint, so that it goes
with a folder that somebody copies or starts another flywheel from.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from flywheel_core.errors import ConfigError

USER_SIGNALS_IN_RL = "user_signals_in_rl"

MARK = "unfit_for_release"
MARK_FILE = f"{MARK}.json"

WHY_NOT_IN_RL = (
    "user-signal models are unsuitable for online RL (§3.5.5): users skip thumbs on clarifying "
    "turns, give them at goodbyes where flattery is common, at rates that differ by job, and for "
    "the turn before, so a policy learns those instead of quality; V12 was lost that way. They "
    "rank rejection samples (rejection_sampling.signal_weights)"
)
OR_STUDY = (
    f"or make it a study (study: {{name: …, allows: [{USER_SIGNALS_IN_RL}]}}), whose artifacts are "
    "unfit for release"
)
WITNESS = (
    "the pairwise model only evaluates (§2.3.1): a policy trained on its scores would take the "
    "independent witness away from the gates"
)


class StudySection(BaseModel):
    """A study: its name, and the departures it makes on purpose."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    allows: tuple[Literal["user_signals_in_rl"], ...] = Field(min_length=1)


def check_rl_rewards(weights: Mapping[str, float], study: StudySection | None) -> None:
    """Refuse (`ValueError`) a reward of online RL that the paper refuses, unless a study names it.

    `weights` is `rl.reward_weights`.
    """
    pairwise = sorted(name for name in weights if name.startswith("pairwise_"))
    if pairwise:
        raise ValueError(f"rl.reward_weights names {', '.join(pairwise)}: {WITNESS}; take it out")
    signals = signals_in(weights)
    if signals and not _allows_signals(study):
        raise ValueError(
            f"rl.reward_weights names {', '.join(signals)}: {WHY_NOT_IN_RL}; take it out, "
            f"{OR_STUDY}"
        )


def check_preference_labels(source: str, study: StudySection | None) -> None:
    """Refuse (`ValueError`) preference models made of users' thumbs, unless a study names it: they
    guide online RL, under whatever name. `source` is `annotation.source`."""
    if source == "signals" and not _allows_signals(study):
        raise ValueError(
            "annotation.source: 'signals' trains the preference models that guide online RL "
            f"(pointwise_user, pointwise_internal) on users' thumbs: {WHY_NOT_IN_RL}; take files, "
            f"label_studio or world, {OR_STUDY}"
        )


def _allows_signals(study: StudySection | None) -> bool:
    return study is not None and USER_SIGNALS_IN_RL in study.allows


def signals_in(weights: Mapping[str, float]) -> list[str]:
    """The user-signal models among the names, sorted."""
    return sorted(name for name in weights if name.startswith("signal_"))


def why_unfit(study: StudySection) -> str:
    """The mark that a study's artifacts carry."""
    return f"study {study.name} ({', '.join(study.allows)})"


def mark_checkpoints(folder: Path, marks: Iterable[str]) -> None:
    """Put the marks beside the weights of every checkpoint in or below `folder`."""
    text = json.dumps(sorted(marks), indent=1)
    for config in sorted(folder.rglob("config.json")):
        path = config.parent / MARK_FILE
        path.unlink(missing_ok=True)  # it may be a link to the file of another artifact
        path.write_text(text)


def checkpoint_marks(folder: Path) -> list[str]:
    """Why a checkpoint folder is unfit for release, sorted: by the file beside its weights, and by
    the manifest of the artifact whose attempt it lies in."""
    found = [folder / MARK_FILE, *_manifests_around(folder.resolve())]
    marks = {mark for path in found if path.is_file() for mark in _marks_in(path)}
    return sorted(marks)


def _manifests_around(folder: Path) -> Iterator[Path]:
    """`manifest.json` lies beside `attempts/`."""
    for parent in folder.parents:
        if parent.name == "attempts":
            yield parent.parent / "manifest.json"


def _marks_in(path: Path) -> list[str]:
    try:
        found: Any = json.loads(path.read_text())
    except ValueError as error:
        raise ConfigError(
            f"{path} is not JSON ({error}), so nobody knows whether the checkpoint may be "
            "released; restore the file, or give another checkpoint"
        ) from error
    if isinstance(found, dict):
        found = found.get("metrics", {}).get(MARK, [])
    return [str(mark) for mark in (found if isinstance(found, list) else [found])]
