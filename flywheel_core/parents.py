"""The models a climb starts from: checkpoint folders taken into the store, and the parent.

On a new flywheel the recipe's base model becomes generation 0 and `production`.
"""

import shutil
import tempfile
from pathlib import Path
from typing import Any

from pydantic import Field

from flywheel_core.artifacts import (
    ArtifactRef,
    Attempt,
    Record,
    file_sha256,
    is_done,
    model_digest,
    read_manifest,
)
from flywheel_core.errors import ConfigError, PointerConflict
from flywheel_core.keys import stage_key
from flywheel_core.pointers import Pointer, PointerRecord
from flywheel_core.recipe import Recipe
from flywheel_core.stages import GUARD, PRODUCTION
from flywheel_core.store import Store
from flywheel_core.studies import MARK, checkpoint_marks

BUILTIN_TINY = Path(__file__).resolve().parent / "world" / "base_model"

SMALL_FILE_BYTES = 64 * 1024 * 1024


class Parent(Record):
    """The production model a climb starts from, and the pointer record that named it."""

    ref: ArtifactRef
    digest: str
    pointer_number: int = Field(ge=1)


def production_parent(recipe: Recipe, store: Store) -> Parent:
    """The production model; on a new flywheel, the base model becomes generation 0. `ConfigError`
    where a study made the base model and the recipe is none: it would stand in production."""
    pointer = Pointer(store, recipe.flywheel, PRODUCTION)
    newest = pointer.newest()
    if newest is None:
        _require_fit_base(recipe)
        base = import_model(recipe, store, "base", recipe.model.base)
        value = {"ref": base.model_dump(), "digest": model_digest(read_manifest(store, base))}
        newest = _start(pointer, value)
    return _parent_of(newest)


def parent_to_be(recipe: Recipe, store: Store) -> Parent:
    """`production_parent` without a write: on a new flywheel, the base model before its import,
    which is why its digest is not known."""
    newest = Pointer(store, recipe.flywheel, PRODUCTION).newest()
    if newest is not None:
        return _parent_of(newest)
    _require_fit_base(recipe)
    base = name_model(recipe, store, "base", recipe.model.base)
    return Parent(ref=base, digest="", pointer_number=1)


def _require_fit_base(recipe: Recipe) -> None:
    marks = checkpoint_marks(checkpoint_folder(recipe.model.base))
    if marks and recipe.study is None:
        raise ConfigError(
            f"model.base: {recipe.model.base!r} comes from {', '.join(marks)}, and what a study "
            "makes is unfit for release, so it cannot be generation 0 of a flywheel; give another "
            "checkpoint, or make this recipe a study too (study: {name: …, allows: […]}), whose "
            "climbs are never released"
        )


def _parent_of(record: PointerRecord) -> Parent:
    ref = ArtifactRef.model_validate(record.value["ref"])
    return Parent(ref=ref, digest=record.value["digest"], pointer_number=record.number)


def _start(pointer: Pointer, value: dict[str, Any]) -> PointerRecord:
    """Record 1 of `production`; where another run started the flywheel meanwhile, its newest."""
    try:
        return pointer.move(
            value, expected_number=0, by="flywheel", reason="generation 0: the base model"
        )
    except PointerConflict:
        newest = pointer.newest()
        if newest is None:
            raise
        return newest


def import_model(recipe: Recipe, store: Store, name: str, path: str) -> ArtifactRef:
    """Take a checkpoint folder into the store, once, as an artifact of generation 0; what a study
    made keeps its mark."""
    ref = name_model(recipe, store, name, path)
    if not is_done(store, ref):
        marks = checkpoint_marks(checkpoint_folder(path))
        _commit_folder(store, ref, _model_files(name, path), origin=path, marks=marks)
    return ref


def name_model(recipe: Recipe, store: Store, name: str, path: str) -> ArtifactRef:
    """The artifact that `import_model` makes of a checkpoint folder; writes nothing."""
    listing = [
        [
            file.name,
            file.stat().st_size,
            file_sha256(file) if file.stat().st_size < SMALL_FILE_BYTES else "",
        ]
        for file in _model_files(name, path)
    ]
    named: dict[str, Any] = {"stage": "base_model", "files": listing}
    marks = checkpoint_marks(checkpoint_folder(path))
    if marks:  # so that an import of the same files without the mark is not taken for this one
        named["marks"] = marks
    return ArtifactRef(
        flywheel=recipe.flywheel,
        generation=0,
        stage="base_model",
        key=stage_key(store, recipe.flywheel, named),
    )


def _model_files(name: str, path: str) -> list[Path]:
    field = "curation.safety.model" if name == GUARD else f"model.{name}"
    return checkpoint_files(field, path)


def checkpoint_folder(path: str) -> Path:
    """The folder that a recipe's path of a checkpoint means."""
    return BUILTIN_TINY if path == "builtin:tiny" else Path(path).expanduser()


def checkpoint_files(field: str, path: str) -> list[Path]:
    """The files of the checkpoint that a recipe's `field` names, in order."""
    folder = checkpoint_folder(path)
    if not (folder / "config.json").is_file():
        raise ConfigError(
            f"{field}: {path!r} has no config.json; give a checkpoint folder, or builtin:tiny"
        )
    return sorted(
        file for file in folder.iterdir() if file.is_file() and not file.name.startswith(".")
    )


def _commit_folder(
    store: Store, ref: ArtifactRef, files: list[Path], *, origin: str, marks: list[str]
) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        attempt = Attempt(store, ref, Path(scratch))
        for file in files:
            target = attempt.folder / "model" / file.name
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(file, target)
        attempt.commit(
            kind="model",
            stage_version=1,
            config={"origin": origin},
            metrics={MARK: marks} if marks else {},
        )
