"""`flywheel curate --in DIR --out DIR`: files of traffic become prompt sets, without a store.

`prompts.parquet` holds the chosen prompts (`records.PROMPTS`). `report.json`, written last, holds
counts by rule and phase, and what each constraint came to. A run that broke off goes on from Phase
I's first missing shard; the same command after the end finds it done.
"""

import json
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from flywheel_core.artifacts import KEY_HEX_DIGITS, digest_of, file_sha256
from flywheel_core.curation.config import SafetyConfig
from flywheel_core.curation.guard import Guard, llama_guard
from flywheel_core.curation.lint_tables import LINT_EDITS, LINT_FILE, lint_rl_prompts
from flywheel_core.curation.pipeline import (
    PHASE_ONE_VERSION,
    TrafficFiles,
    Workshop,
    curate_files,
)
from flywheel_core.engines.base import Embedder, Progress
from flywheel_core.engines.embeddings import ShardedEmbedder
from flywheel_core.engines.executor import make_executor
from flywheel_core.engines.pool import EnginePool
from flywheel_core.erasure.users import NOBODY, Erasures
from flywheel_core.errors import ConfigError, InputDataError
from flywheel_core.folders import claim, unfinished_path, write_whole
from flywheel_core.parents import checkpoint_files
from flywheel_core.recipe import Recipe
from flywheel_core.records import PROMPTS, write_table
from flywheel_core.stages import stage_named

REPORT_FILE, PROMPTS_FILE, WORK_FOLDER = "report.json", "prompts.parquet", "work"
NUM_DIGESTS_SHOWN = 5


@dataclass(frozen=True)
class FolderJob:
    """What is curated, whereto, and how. `production` is the digest of the model whose turns are
    near-policy; None where no row says which model served it. `measures` is a table of quality and
    difficulty by row (`curation/measures.py`)."""

    source: Path
    out: Path
    recipe: Recipe
    production: str | None = None
    erasures: Erasures = NOBODY
    embedder: Embedder | None = None
    measures: Path | None = None
    engines: EnginePool | None = None


def curate_folder(job: FolderJob, progress: Progress) -> dict[str, Any]:
    """Curate, and return the report."""
    files = _parquet_files(job.source)
    digests = [file_sha256(path) for path in files]
    section = job.recipe.curation
    guard_digest = _guard_digest(section.safety.model)
    engines = job.engines or EnginePool(job.recipe.execution.engine)
    embedder = job.embedder or engines.embedder(section.embedder)
    what = _identity(job, digests, guard_digest, embedder.name)
    production = _production(files, job.production)
    claim(job.out, "curate", what)
    if (job.out / REPORT_FILE).exists():
        return dict(json.loads((job.out / REPORT_FILE).read_text()))
    config = job.recipe.execution.executor
    work = job.out / WORK_FOLDER
    guard = _guard(section.safety, guard_digest, engines)
    curated = curate_files(
        TrafficFiles(files, digest_of(digests)[:KEY_HEX_DIGITS], {}),
        section,
        embedder if job.embedder else ShardedEmbedder(embedder, work / "vectors", progress),
        int(digest_of([job.recipe.seed, "curate"])[:8], 16),
        production_digest=production,
        erasures=job.erasures,
        workshop=Workshop(make_executor(config), config, work, progress, guard),
        measures=job.measures,
    )
    prompts, told = curated.prompts, curated.report
    if section.lint:
        linted = lint_rl_prompts(prompts, section.lint)
        prompts, told = linted.rows, told | {"lint": linted.report}
        _publish(job.out / LINT_FILE, linted.edits, LINT_EDITS)
    _publish(job.out / PROMPTS_FILE, prompts, PROMPTS)
    report = _report(job, prompts, told)
    write_whole(job.out / REPORT_FILE, json.dumps(report, indent=1).encode())
    shutil.rmtree(work, ignore_errors=True)
    return report


def _identity(
    job: FolderJob, digests: Sequence[str], guard_digest: str, embedder: str
) -> dict[str, Any]:
    """What the folder belongs to: the same command goes on, another is refused."""
    return {
        "inputs": digests,
        "curation": job.recipe.curation.model_dump(mode="json"),
        "seed": job.recipe.seed,
        "production": job.production,
        "erasures": job.erasures.digest,
        "version": [PHASE_ONE_VERSION, stage_named("curate").version],
        "embedder": embedder,
        "guard": guard_digest,
        "measures": _measures_digest(job.measures),
    }


def _publish(path: Path, rows: list[dict[str, Any]], schema: pa.Schema) -> None:
    """A table that appears whole."""
    unfinished = unfinished_path(path)
    write_table(unfinished, rows, schema)
    unfinished.replace(path)


def _guard(config: SafetyConfig, version: str, engines: EnginePool) -> Guard | None:
    if config.model is None:
        return None
    folder = checkpoint_files("curation.safety.model", config.model)[0].parent
    return llama_guard(config, version, folder, engines.generator, engines.close)


def _guard_digest(model: str | None) -> str:
    """Of every byte of the checkpoint: a folder goes on only with the same guard."""
    if model is None:
        return ""
    files = checkpoint_files("curation.safety.model", model)
    return digest_of([[file.name, file_sha256(file)] for file in files])


def _measures_digest(path: Path | None) -> str:
    if path is not None and not path.is_file():
        raise InputDataError(f"measures: {path}: no such file; give a Parquet table of measures")
    return "" if path is None else file_sha256(path)


def _parquet_files(source: Path) -> tuple[Path, ...]:
    files = (source,) if source.is_file() else tuple(sorted(source.glob("*.parquet")))
    if not files:
        raise InputDataError(
            f"in: {source} holds no *.parquet file; make some with "
            f"`flywheel ingest FILE --out {source}`"
        )
    return files


def _production(files: Sequence[Path], given: str | None) -> str:
    """Whose turns are near-policy. Where rows name models, it must be one of them: otherwise no
    RL prompt could be taken, without a word."""
    served = _served_by(files)
    if not served or (given is not None and given in served):
        return given or ""
    shown = ", ".join(f"{one} ({count})" for one, count in served.most_common(NUM_DIGESTS_SHOWN))
    said = "is not given" if given is None else f"{given!r} served none of the rows"
    raise ConfigError(
        f"production: {said}; RL prompts are near-policy (turns of the production model), so give "
        f"--production one of the model digests (rows): {shown}"
    )


def _served_by(files: Sequence[Path]) -> Counter[str]:
    """Rows by model digest, those without one left out."""
    served: Counter[str] = Counter()
    for path in files:
        try:
            column = pq.read_table(path, columns=["model_digest"]).column("model_digest")
        except (pa.ArrowException, OSError) as error:
            raise InputDataError(
                f"in: {path} is not a readable table of traffic ({type(error).__name__}); write it "
                "again with `flywheel ingest FILE --out`"
            ) from error
        counted = column.drop_null().value_counts().to_pylist()
        served.update({one["values"]: one["counts"] for one in counted})
    return served


def _report(job: FolderJob, prompts: list[dict[str, Any]], told: dict[str, Any]) -> dict[str, Any]:
    """Counts by phase in their order, by rule, and each surface's constraints."""
    surfaces = told["surfaces"]
    return {
        "in": str(job.source),
        "out": str(job.out),
        "recipe": job.recipe.name,
        "phases": {
            "read": told["rows"] + told["erased"],
            "after_erasure": told["rows"],
            "filtered": told["filtered"],
            "distinct": told["distinct"],
            "without_near_duplicates": told["distinct"] - told["duplicates"]["near"],
            "diverse": sum(one["diverse"] for one in surfaces.values()),
            "balanced": sum(one["balanced"]["rows"] for one in surfaces.values()),
            "final": len(prompts),
        },
        "rejected": told["rejected"],
        "privacy": told["privacy"],
        "safety": told["safety"],
        "labels": told["labels"],
        **({"lint": told["lint"]} if "lint" in told else {}),
        "duplicates": told["duplicates"] | {"row_id": told.get("repeated_row_ids", 0)},
        "prompts_by_split": dict(sorted(Counter(one["split"] for one in prompts).items())),
        "prompts_by_reason": dict(sorted(Counter(one["reason"] for one in prompts).items())),
        "pools": told["pools"],
        "constraints": surfaces,
        "splits": told["splits"],
        "data_evidence": told["data_evidence"],
    }


def summary(report: dict[str, Any]) -> str:
    """The report for a person."""
    phases = " → ".join(f"{name} {count}" for name, count in report["phases"].items())
    lines = [f"{report['in']}: {phases}"]
    lines += [f"  rejected {count}: {rule}" for rule, count in report["rejected"].items()]
    lines += [
        f"  not checked for names: {count} rows in {language}"
        for language, count in report["privacy"]["rows_not_checked_for_names_by_language"].items()
    ]
    lines += [f"  no safety verdict {n}: {why}" for why, n in report["safety"]["failures"].items()]
    lines += [f"  {name}: {_listed(found)}" for name, found in report["labels"].items() if found]
    if "lint" in report:
        lint = report["lint"]
        lines.append(
            f"  linter changed {lint['rows_changed']} of {lint['rows']} RL prompts; turns by rule: "
            f"{_listed(lint['turns_before'])}; still: {_listed(lint['turns_after'])}"
        )
        lines.append(f"  {LINT_FILE}: its edits; curation.lint_tables.restored undoes them")
    duplicates = report["duplicates"]
    lines.append(
        f"  duplicates: {duplicates['exact']} exact, {duplicates['near']} near, "
        f"{duplicates['row_id']} of a row id that came before"
    )
    for surface, told in report["constraints"].items():
        final, pruned = told["final"], told["diversity"]["pruned"]
        lines.append(
            f"  {surface}: pruned {pruned['equal_turn']} whose turn is worded like another's, "
            f"{pruned['similar_turn']} that are close to one"
        )
        lines.append(
            f"  {surface}: first turns {final['first_turn_share']:.1%}, largest character "
            f"{_share(final['largest_character_share'])}, split by {told['split_by']}"
        )
        short = {split: n for split, n in told["got"].items() if n < told["asked"][split]}
        for split, count in short.items():
            lines.append(f"    {split}: {count} of {told['asked'][split]} asked for")
    lines.append(f"  {report['out']}/{PROMPTS_FILE}: {_listed(report['prompts_by_split'])}")
    lines.append(f"  {report['out']}/{REPORT_FILE}: every constraint's limits and what it came to")
    return "\n".join(lines)


def _share(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.1%}"


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())
