"""`flywheel`: the command line. Each command is a few lines over the package that does the work."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from flywheel_core.annotation.commands import annotate_app
from flywheel_core.deployment import Deployment
from flywheel_core.errors import ArtifactError, ConfigError, InputDataError
from flywheel_core.experiments.command import ab_app
from flywheel_core.terminal import (
    ByOption,
    JsonOption,
    ReasonOption,
    RecipeOption,
    clear_errors,
    complaints,
    console,
    emit,
)

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="The CharacterFlywheel loop: climb, gate, approve, promote, again.",
)
gate_app = typer.Typer(invoke_without_command=True, help="Ask the gates about measured metrics.")
app.add_typer(gate_app, name="gate")
app.add_typer(annotate_app, name="annotate")
app.add_typer(ab_app, name="ab")


@app.command()
def plan(
    recipe: RecipeOption = "tiny_cpu",
    as_json: JsonOption = False,
) -> None:
    """What a climb would run: stages with their inputs, resources, memory and GPU-hours."""
    from flywheel_core.planning import describe_plan, show_plan

    with clear_errors():
        described = describe_plan(recipe, Deployment.from_environment())
        emit(described, as_json, lambda: show_plan(described, console))


@app.command()
def status(as_json: JsonOption = False) -> None:
    """Production, candidate, freeze switch, generations, and whether the stack is up."""
    from flywheel_core.status import describe_status, show_status

    with clear_errors():
        described = describe_status(Deployment.from_environment())
        emit(described, as_json, lambda: show_status(described, console))


@app.command()
def report(
    generation: Annotated[int, typer.Argument(help="Generation number, as in gen-0001.")],
    flywheel: Annotated[str, typer.Option(help="Name of the flywheel.")] = "tiny",
) -> None:
    """Write the HTML report of a generation and print its path."""
    from flywheel_core.report.build import write_report

    with clear_errors():
        deployment = Deployment.from_environment()
        path = write_report(
            deployment.store(),
            flywheel,
            generation,
            deployment.home / "reports",
            deployment.policy(),
        )
        typer.echo(path)


@gate_app.callback()
def gate(
    context: typer.Context,
    metrics: Annotated[Path | None, typer.Option(help="metrics.json of an evaluation.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Every gate's verdict on measured metrics, under the deployed policy; 1 if any blocks."""
    if context.invoked_subcommand:
        return
    from flywheel_core.release.gates import overall, run_gates
    from flywheel_core.release.metrics import load_metrics
    from flywheel_core.release.verdict import BLOCKING

    with clear_errors():
        if metrics is None:
            raise typer.BadParameter("give --metrics FILE, or: flywheel gate replay FILE")
        verdicts = run_gates(load_metrics(metrics), Deployment.from_environment().policy())
        outcome = overall(verdicts)
        data = {"outcome": outcome, "verdicts": [v.model_dump(mode="json") for v in verdicts]}
        emit(
            data, as_json, lambda: show_verdicts([(v.gate, v.outcome, v.reason) for v in verdicts])
        )
        raise typer.Exit(1 if outcome in BLOCKING else 0)


@gate_app.command("replay")
def gate_replay(
    tables: Annotated[Path, typer.Argument(help="The paper's tables as JSON.")],
    as_json: JsonOption = False,
) -> None:
    """What the gates would have said of the paper's launches."""
    from flywheel_core.release.replay import replay, replay_json

    with clear_errors():
        launches = replay_json(replay(tables))
        rows = [
            (f"{launch['version']} {name}", found["verdict"], found["reason"])
            for launch in launches
            for name, found in launch["gates"].items()
        ]
        emit(launches, as_json, lambda: show_verdicts(rows))


OUTCOME_STYLE = {"pass": "green", "warn": "yellow", "block": "bold red", "insufficient": "red"}


def show_verdicts(rows: list[tuple[str, str, str]]) -> None:
    """A table of gate, outcome and reason."""
    table = Table("gate", "verdict", "reason", box=None, pad_edge=False)
    for name, outcome, reason in rows:
        style = OUTCOME_STYLE.get(outcome, "")
        table.add_row(name, f"[{style}]{outcome}[/]" if style else outcome, reason)
    console.print(table)


@app.command()
def ingest(
    file: Annotated[Path, typer.Argument(help="Parquet, JSONL or Topical-Chat file.")],
    file_format: Annotated[
        str, typer.Option("--format", help="flywheel, or topical-chat")
    ] = "flywheel",
    flywheel: Annotated[
        str, typer.Option(help="Name of the flywheel; its erasure list applies with --out too.")
    ] = "tiny",
    day: Annotated[
        str | None, typer.Option(help="Day of rows that carry none, YYYY-MM-DD.")
    ] = None,
    max_history_turns: Annotated[
        int | None, typer.Option(min=1, help="Topical-Chat: turns of history to keep.")
    ] = None,
    max_words: Annotated[
        int | None, typer.Option(min=1, help="Topical-Chat: longest row, in words.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="A folder of days instead of the store.")] = None,
    replace: Annotated[
        bool, typer.Option(help="Take a day in even where it lacks rows of its version in force.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Take logged traffic in as day partitions; bad rows are quarantined, none is dropped."""
    from flywheel_core.erasure.users import read_erasures
    from flywheel_core.ingest.folder import FolderReport, ingest_to_folder
    from flywheel_core.ingest.ingest import IngestReport
    from flywheel_core.ingest.ingest import ingest as take_in
    from flywheel_core.ingest.topical_chat import HistoryLimits
    from flywheel_core.progress import TerminalProgress

    with clear_errors():
        store = Deployment.from_environment().store()
        progress = TerminalProgress()
        done: IngestReport | FolderReport
        if replace and out is not None:
            raise ConfigError("replace: a folder has no versions; leave out --replace or --out")
        if out is None:
            done = take_in(
                file,
                file_format,
                store,
                flywheel,
                day=day,
                max_history_turns=max_history_turns,
                max_words=max_words,
                replace=replace,
                on_rows=lambda rows: progress(rows, 0, "rows read"),
            )
        else:
            done = ingest_to_folder(
                file,
                file_format,
                out,
                day=day,
                limits=HistoryLimits(max_history_turns, max_words),
                erasures=read_erasures(store, flywheel),
                erasures_of=flywheel,
                on_rows=lambda rows: progress(rows, 0, "rows read"),
            )
        emit(done.to_json(), as_json, lambda: console.print(done.summary(), highlight=False))
        if isinstance(done, IngestReport) and done.refused:
            raise InputDataError(
                f"{len(done.refused)} days were not taken in, because rows of the version in force "
                "would be lost; give whole days, or --replace"
            )


@app.command()
def curate(
    source: Annotated[Path, typer.Option("--in", help="Folder of `ingest --out`, or a file.")],
    out: Annotated[Path, typer.Option(help="Folder for prompts and report.")],
    recipe: RecipeOption = "tiny_cpu",
    production: Annotated[
        str | None, typer.Option(help="Digest of the model whose turns are near-policy.")
    ] = None,
    measures: Annotated[
        Path | None,
        typer.Option(help="Parquet of row_id with quality and difficulty, or reward scores."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Filter, diversify, balance and split traffic into prompt sets; goes on where it broke off."""
    from flywheel_core.curation.folder import FolderJob, curate_folder, summary
    from flywheel_core.erasure.users import read_erasures
    from flywheel_core.progress import TerminalProgress
    from flywheel_core.recipe import load_recipe

    with clear_errors():
        loaded = load_recipe(recipe)
        erasures = read_erasures(Deployment.from_environment().store(), loaded.flywheel)
        report = curate_folder(
            FolderJob(source, out, loaded, production, erasures, measures=measures),
            TerminalProgress(),
        )
        emit(
            report, as_json, lambda: console.print(summary(report), highlight=False, soft_wrap=True)
        )


@app.command()
def invalidate(
    key: Annotated[str, typer.Argument(help="The artifact's key.")],
    reason: ReasonOption,
    by: ByOption,
    flywheel: Annotated[str, typer.Option(help="Name of the flywheel.")] = "tiny",
) -> None:
    """Record that an artifact is bad; the next climb makes it, and what follows, anew."""
    from flywheel_core.keys import invalidate as record_invalid

    with clear_errors():
        store = Deployment.from_environment().store()
        record = record_invalid(store, flywheel, key, by=by, reason=reason)
        console.print(
            f"{key} is invalid from record {record.number} on; the next climb makes it anew"
        )


@app.command()
def erase(
    reason: ReasonOption,
    by: ByOption,
    user: Annotated[
        list[str] | None,
        typer.Option(help="A user id; may be repeated. It shows in the shell's history: --file."),
    ] = None,
    file: Annotated[Path | None, typer.Option(help="User ids, one a line.")] = None,
    flywheel: Annotated[str, typer.Option(help="Name of the flywheel.")] = "tiny",
    as_json: JsonOption = False,
) -> None:
    """Erase users: from every later artifact, from the days there are, and list trained models."""
    from flywheel_core.erasure.erase import erase_here, read_user_ids

    with clear_errors():
        user_ids = [*(user or ()), *(read_user_ids(file) if file else ())]
        done = erase_here(Deployment.from_environment(), flywheel, user_ids, by=by, reason=reason)
        emit(done.to_json(), as_json, lambda: console.print(done.summary(), highlight=False))
        if done.unchecked:
            raise ArtifactError(
                f"{len(done.unchecked)} artifacts could not be checked for rows of erased users; "
                "mend or delete them, then run this again"
            )


@app.command()
def rollback(
    reason: ReasonOption,
    by: ByOption,
    flywheel: Annotated[str, typer.Option(help="Name of the flywheel.")] = "tiny",
) -> None:
    """Move production back to the model before; works with Airflow down."""
    from flywheel_core.release.promotion import rollback as move_back

    with clear_errors():
        record = move_back(Deployment.from_environment().store(), flywheel, by=by, reason=reason)
        console.print(f"production is record {record.number}: {record.reason}")


@app.command()
def freeze(
    reason: ReasonOption,
    by: ByOption,
    lift: Annotated[bool, typer.Option("--lift", help="Allow promotions again.")] = False,
    flywheel: Annotated[str, typer.Option(help="Name of the flywheel.")] = "tiny",
) -> None:
    """Refuse every promotion until the freeze is lifted; works with Airflow down."""
    from flywheel_core.release.promotion import set_freeze

    with clear_errors():
        set_freeze(
            Deployment.from_environment().store(), flywheel, frozen=not lift, by=by, reason=reason
        )
        console.print("promotions are allowed again" if lift else "promotions are frozen")


@app.command()
def doctor(
    recipes: Annotated[
        bool, typer.Option("--recipes", help="Only parse every recipe and policy.")
    ] = False,
) -> None:
    """Check this machine and this deployment; one line a check, the next step where it fails."""
    from flywheel_core.doctor import examine

    with clear_errors():
        findings = examine(Deployment.from_environment(), only_recipes=recipes)
        for finding in findings:
            mark = "[green]ok  [/]" if finding.ok else "[bold red]FAIL[/]"
            console.print(f"{mark} {finding.check}: {finding.said}", highlight=False)
        raise typer.Exit(0 if all(finding.ok for finding in findings) else 1)


@app.command()
def pretrain(
    output: Annotated[Path, typer.Argument(help="Folder for the checkpoint.")],
) -> None:
    """Make the tiny base model from scratch, as the one that ships was made."""
    from flywheel_core.training.pretrain import PretrainConfig
    from flywheel_core.training.pretrain import pretrain as train

    with clear_errors():
        console.print(train(PretrainConfig(), output))


@app.command()
def up() -> None:
    """Start Airflow and a local Ray head on 127.0.0.1; Ctrl-C stops both."""
    from flywheel_core.climbing import run_stack

    with clear_errors():
        run_stack(Deployment.from_environment(), console)


@app.command()
def climb(
    recipe: RecipeOption = "tiny_cpu",
    generations: Annotated[int, typer.Option(min=1, help="How many climbing steps.")] = 1,
    approve_as: Annotated[
        str | None,
        typer.Option(
            help="Approve as this user, with that user's password; recorded as automated."
        ),
    ] = None,
    local: Annotated[
        bool, typer.Option("--local", help="In this process, without Airflow and Ray Jobs.")
    ] = False,
    seed: Annotated[int | None, typer.Option(help="Instead of the recipe's.")] = None,
    start_from: Annotated[
        str | None, typer.Option(help="First stage that may run; earlier ones must be there.")
    ] = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(help="Artifact with a model, in the place of the models before --start-from."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would run, and what it costs.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Climb: trigger flywheel_weekly, watch each task, stop at the approval."""
    from flywheel_core.climbing import climb_locally, climb_through_airflow, preview_climb
    from flywheel_core.start_at import StartAt

    with clear_errors():
        deployment = Deployment.from_environment()
        shown = complaints if as_json else console
        start_at = StartAt(start_from=start_from, checkpoint=checkpoint)
        if dry_run:
            seen = preview_climb(deployment, recipe, start_at, seed=seed)
            lines = "\n".join(seen.lines())
            emit(seen.model_dump(mode="json"), as_json, lambda: console.print(lines, markup=False))
            return
        if local:
            ended = climb_locally(deployment, recipe, generations, seed, shown, start_at)
        else:
            ended = climb_through_airflow(
                deployment, recipe, generations, approve_as, shown, start_at
            )
        if as_json:
            sys.stdout.write(json.dumps([end.to_json() for end in ended], indent=1) + "\n")
        raise typer.Exit(0 if all(end.as_asked for end in ended) else 1)


@app.command()
def demo() -> None:
    """One climbing step through Airflow to a promoted generation, then stop everything."""
    from flywheel_core.climbing import run_demo

    with clear_errors():
        ended = run_demo(Deployment.from_environment(), console)
        raise typer.Exit(0 if ended.as_asked else 1)


if __name__ == "__main__":
    app()
