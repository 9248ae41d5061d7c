"""`flywheel erase`: users go on the list, and what already holds their rows is mended or retired.

In this order, each step repeatable, so that the same command finishes what was interrupted:

1. The list is extended. From here on no new plan and no ingest takes the users' rows.
2. Every artifact with a `user_id` column, and every day's quarantine, is searched.
3. A day of traffic that holds them gets a new version without them.
4. All artifacts with such rows, and all that were made from them, are retired: a tombstone says
   so, and their row files are deleted. Manifests and counts stay, as the record of what was.
5. Plans that would go on from there are stopped: their unfinished stages are retired in advance.
6. The logs of the flywheel's experiments lose their rows (`experiments`); what was summed stays.
7. Tasks and labels of retired batches in the annotation exchange are removed, or listed where this
   machine does not reach them.
8. Models are listed, not removed: those trained on such rows, and those that descend from one.
   Whether they may stay in production is for people to decide.

What cannot be checked (a damaged file) is named, and the command then fails. Reports hold counts,
keys and digests; no identifier of a user.
"""

import os
import shutil
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flywheel_core.artifacts import ArtifactRef, Manifest, is_done, model_digest
from flywheel_core.deployment import Deployment
from flywheel_core.erasure.days import Rewriter, RewrittenDay
from flywheel_core.erasure.exchanges import ExchangeFolder, remove_exchanges
from flywheel_core.erasure.experiments import ErasedExperiment, LogSurvey
from flywheel_core.erasure.survey import Survey, put_tombstone
from flywheel_core.erasure.users import Added, add_users
from flywheel_core.errors import ArtifactError, InputDataError
from flywheel_core.plan import PinnedPlan, load_plan
from flywheel_core.pointers import Pointer
from flywheel_core.store import Store


@dataclass(frozen=True)
class RetiredArtifact:
    """What was removed from one artifact."""

    artifact: str
    files_removed: int
    bytes_removed: int


@dataclass(frozen=True)
class TrainedModel:
    """A model that rows of erased users went into, at whatever remove; `named_by` are the
    pointers that name it now."""

    artifact: str
    digest: str
    how: str
    named_by: tuple[str, ...]


@dataclass(frozen=True)
class EraseReport:
    """What `flywheel erase` did. `record` is the list's record in force. `models` are those of
    everybody on the list. `users_not_found` were given and are in no artifact, day or experiment's
    log, or no longer. `cache_names` are folders to remove from other machines' caches."""

    flywheel: str
    record: int
    users_given: int
    users_new: int
    users_listed: int
    users_not_found: int
    days: tuple[RewrittenDay, ...]
    experiments: tuple[ErasedExperiment, ...]
    retired: tuple[RetiredArtifact, ...]
    stopped_plans: tuple[str, ...]
    models: tuple[TrainedModel, ...]
    local_copies_removed: int
    cache_names: tuple[str, ...]
    exchanges: tuple[ExchangeFolder, ...]
    unchecked: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def summary(self) -> str:
        """For a person."""
        lines = [
            f"{self.flywheel}: {self.users_given} users given, {self.users_new} new to the list of "
            f"{self.users_listed} (record {self.record})"
        ]
        if self.users_not_found:
            lines.append(
                f"  {self.users_not_found} of {self.users_given} users given were found in no "
                "artifact and no day, and in no experiment: unless they were erased before, "
                "compare how the ids are written in the column user_id"
            )
        lines += [
            f"  day {one.day}: version {one.version} has {one.rows_removed} rows less (key "
            f"{one.new_key}, before {one.old_key})"
            for one in self.days
        ]
        lines += [one.summary() for one in self.experiments]
        lines += [
            f"  retired {one.artifact}: {one.files_removed} files, {one.bytes_removed:,} bytes"
            for one in self.retired
        ]
        lines += [f"  stopped plan {name}: start a new run" for name in self.stopped_plans]
        for one in self.models:
            where = f"; now {', '.join(one.named_by)}" if one.named_by else ""
            lines.append(f"  model {one.artifact} ({one.digest[:12]}): {one.how}{where}")
        if self.cache_names:
            names = ", ".join(self.cache_names)
            lines.append(f"  remove from flywheel-scratch-*/cache on other machines: {names}")
        lines += [one.summary() for one in self.exchanges]
        lines += [f"  NOT CHECKED {one}" for one in self.unchecked]
        return "\n".join(lines)


def read_user_ids(path: Path) -> list[str]:
    """User ids from a file, one a line; blank lines are skipped."""
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputDataError(
            f"file: {path} cannot be read ({type(error).__name__}); give a UTF-8 text file with "
            "one user id a line"
        ) from error
    return [line.strip() for line in lines if line.strip()]


def erase_here(
    deployment: Deployment, flywheel: str, user_ids: Collection[str], *, by: str, reason: str
) -> EraseReport:
    """Erase users from a deployment's store, and from this machine's copies of it."""
    store = deployment.store()
    deployment.require_flywheel(store, flywheel)
    jobs_scratch = Path(tempfile.gettempdir()) / f"flywheel-scratch-{os.getuid()}"
    return erase(
        store,
        flywheel,
        user_ids,
        by=by,
        reason=reason,
        scratch=(deployment.scratch, jobs_scratch),
        reports=deployment.home / "reports",
    )


def erase(
    store: Store,
    flywheel: str,
    user_ids: Collection[str],
    *,
    by: str,
    reason: str,
    scratch: Sequence[Path] = (),
    reports: Path | None = None,
) -> EraseReport:
    """Erase users. `scratch` folders hold this machine's copies and unfinished work, `reports` its
    rendered reports; what of them belongs to a retired artifact is removed too."""
    given = frozenset(user_ids)
    added = add_users(store, flywheel, sorted(given), by=by, reason=reason)
    survey = Survey(store, flywheel)
    holders = survey.holders(added.erasures, given)
    rewriter = Rewriter(store, flywheel, added, given, by)
    days = rewriter.rewrite_days(holders, survey.manifests)
    logs = LogSurvey(store, flywheel, added, survey.unchecked)
    experiments = logs.erase()
    touched = survey.touched(holders)
    retired = _retire(survey, touched, added.record_number)
    stopped = _stop_plans(survey, flywheel, set(touched), added)
    gone = {*touched, *survey.tombstones, *(s.ref for plan in stopped for s in plan.stages)}
    return EraseReport(
        flywheel=flywheel,
        record=added.record_number,
        users_given=len(given),
        users_new=added.num_new,
        users_listed=len(added.erasures.hashes),
        users_not_found=len(given - survey.found - logs.found),
        days=tuple(days),
        experiments=tuple(experiments),
        retired=tuple(retired),
        stopped_plans=tuple(plan.run_id for plan in stopped),
        models=tuple(_trained_models(survey, flywheel, touched)),
        local_copies_removed=_remove_copies(survey, touched, stopped, scratch, reports),
        cache_names=tuple(
            sorted(survey.manifests[ref].digest for ref in touched if survey.rows(ref))
        ),
        exchanges=tuple(remove_exchanges(store, flywheel, gone, survey.unchecked)),
        unchecked=tuple(survey.unchecked),
    )


def _retire(
    survey: Survey, touched: Sequence[ArtifactRef], record_number: int
) -> list[RetiredArtifact]:
    retired = []
    for ref in touched:
        names = survey.retire(ref, record_number)
        sizes = {entry.name: entry.num_bytes for entry in survey.manifests[ref].files}
        if names:
            removed = sum(sizes[name] for name in names)
            retired.append(RetiredArtifact(ref.path, len(names), removed))
    return retired


def _stop_plans(
    survey: Survey, flywheel: str, touched: set[ArtifactRef], added: Added
) -> list[PinnedPlan]:
    """Retire in advance what plans pinned before this would still make from touched rows."""
    store, stopped = survey.store, []
    for path in store.list(f"{flywheel}/plans"):
        plan = load_plan(store, path)
        unfinished = [stage for stage in plan.stages if not is_done(store, stage.ref)]
        if not unfinished or plan.erasure_digest == added.erasures.digest:
            continue
        reads = {ref for stage in plan.stages for ref in (stage.ref, *stage.inputs.values())}
        makes_days = plan.stage("traffic") in unfinished and set(plan.days) - set(plan.pinned_days)
        if makes_days or reads & touched:
            for stage in unfinished:
                put_tombstone(store, stage.ref, added.record_number, (), usable=False)
                survey.remove(stage.ref, ())
            stopped.append(plan)
    return stopped


def _trained_models(
    survey: Survey, flywheel: str, touched: Sequence[ArtifactRef]
) -> list[TrainedModel]:
    """Models in `touched`, and all that descend from one, however far."""
    named = _named_models(survey.store, flywheel)
    direct = [ref for ref in touched if survey.has_weights(ref)]
    return [
        TrainedModel(
            artifact=ref.path,
            digest=_weights_digest(survey.manifests[ref]),
            how="trained on rows of erased users"
            if ref in direct
            else "descends from a model trained on them",
            named_by=tuple(sorted(named.get(ref, ()))),
        )
        for ref in survey.closure(direct, lambda ref: True)
        if survey.has_weights(ref)
    ]


def _weights_digest(manifest: Manifest) -> str:
    try:
        return model_digest(manifest)
    except ArtifactError:  # several models in one artifact: the artifact's own digest names them
        return manifest.digest


def _named_models(store: Store, flywheel: str) -> Mapping[ArtifactRef, set[str]]:
    """Models that a pointer names now."""
    named: dict[ArtifactRef, set[str]] = {}
    for name in ("production", "candidate"):
        newest = Pointer(store, flywheel, name).newest()
        if newest is not None and newest.value.get("ref"):
            ref = ArtifactRef.model_validate(newest.value["ref"])
            named.setdefault(ref, set()).add(name)
    return named


def _remove_copies(
    survey: Survey,
    touched: Sequence[ArtifactRef],
    stopped: Sequence[PinnedPlan],
    scratch: Sequence[Path],
    reports: Path | None,
) -> int:
    """Remove this machine's cached copies, unfinished work and reports of what was retired."""
    cached = [survey.manifests[ref].digest for ref in touched if survey.rows(ref)]
    refs = [*touched, *(stage.ref for plan in stopped for stage in plan.stages)]
    works = [f"{ref.flywheel}/{ref.stage}-{ref.key}" for ref in refs]
    folders = {
        path
        for folder in scratch
        for path in (
            *(folder / "cache" / name for name in cached),
            *(folder / "work" / name for name in works),
            *(folder / "attempts" / ref.key for ref in refs),
        )
        if path.is_dir()
    }
    for path in folders:
        shutil.rmtree(path)
    pages = {
        reports / f"{ref.flywheel}-gen-{ref.generation:04d}.html"
        for ref in touched
        if reports is not None and ref.stage == "evaluate"
    }
    shown = [page for page in pages if page.is_file()]
    for page in shown:
        page.unlink()
    return len(folders) + len(shown)
