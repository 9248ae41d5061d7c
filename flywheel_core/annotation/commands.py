"""`flywheel annotate`: tasks out, labels in, agreement; works without Airflow, Ray and a climb."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.table import Table

from flywheel_core.errors import ConfigError
from flywheel_core.terminal import JsonOption, RecipeOption, clear_errors, console, emit

annotate_app = typer.Typer(no_args_is_help=True, help="Annotation tasks out, labels in.")

Format = Literal["files", "label_studio"]
FormatOption = Annotated[
    Format, typer.Option("--format", help="files: JSONL; label_studio: its JSON and page.")
]


@annotate_app.command("export")
def export(
    pairs: Annotated[Path, typer.Argument(help="Parquet or JSONL of pairs (records.DRAFTS).")],
    out: Annotated[Path, typer.Option(help="Folder for the batch.")],
    file_format: FormatOption = "files",
    workflow: Annotated[
        Literal["static", "interactive", "steerability"],
        typer.Option(help="How the replies came about; steerability highlights instructions."),
    ] = "static",
    seed: Annotated[int, typer.Option(help="Draws which reply stands on the left.")] = 0,
    recipe: RecipeOption = "tiny_cpu",
    as_json: JsonOption = False,
) -> None:
    """Filter pairs and write one task each, without the names of policies."""
    from flywheel_core.annotation.folder import export_tasks
    from flywheel_core.recipe import load_recipe

    with clear_errors():
        section = load_recipe(recipe).annotation
        done = export_tasks(pairs, out, file_format, workflow, section, seed)
        dropped = ", ".join(f"{name} {count}" for name, count in sorted(done.dropped.items()))
        emit(
            done.to_json(),
            as_json,
            lambda: console.print(
                f"{done.num_tasks} tasks in {done.tasks}; pairs dropped: {dropped or 'none'}\n"
                f"Keep {out / 'private'} from annotators: it names the policies.",
                highlight=False,
                soft_wrap=True,
            ),
        )


@annotate_app.command("import")
def import_(
    batch: Annotated[Path, typer.Argument(help="Folder of `annotate export`.")],
    labels: Annotated[Path, typer.Argument(help="labels.jsonl, or Label Studio's JSON export.")],
    out: Annotated[Path, typer.Option(help="Folder for pairs, reviews and the report.")],
    file_format: FormatOption = "files",
    recipe: RecipeOption = "tiny_cpu",
    as_json: JsonOption = False,
) -> None:
    """Check labels, measure agreement, and write pairs to train on."""
    from flywheel_core.annotation.folder import import_labels
    from flywheel_core.recipe import load_recipe

    with clear_errors():
        section = load_recipe(recipe).annotation
        report = import_labels(batch, labels, out, file_format, section)
        emit(report, as_json, lambda: _show_import(report, out))


UrlOption = Annotated[str, typer.Option(help="Of the Label Studio server.")]
TokenOption = Annotated[Path, typer.Option("--token-file", help="File with an API token.")]
PushedArgument = Annotated[Path, typer.Argument(help="Folder with tasks.json and its page.")]


@annotate_app.command("push")
def push(
    batch: PushedArgument,
    url: UrlOption,
    token_file: TokenOption,
    title: Annotated[str | None, typer.Option(help="Of the project; the batch's name.")] = None,
    recipe: RecipeOption = "tiny_cpu",
) -> None:
    """Make a Label Studio project of a batch, or of the splits in its adjudication/. Again, it
    sends what is missing: splits that joined since become a project of their own."""
    from flywheel_core.annotation.files import ADJUDICATION_FOLDER
    from flywheel_core.annotation.label_studio_server import LabelStudioServer
    from flywheel_core.recipe import load_recipe

    with clear_errors():
        folder, annotators = batch.resolve(), load_recipe(recipe).annotation.num_annotators
        name = folder.name
        if name == ADJUDICATION_FOLDER:
            name, annotators = f"{folder.parent.name} {name}", 1
        pushed = LabelStudioServer(url, _token(token_file)).push(folder, title or name, annotators)
        for one in pushed.projects:
            console.print(
                f"{pushed.url}/projects/{one.number}: {len(one.task_ids)} tasks", highlight=False
            )


@annotate_app.command("pull")
def pull(batch: PushedArgument, url: UrlOption, token_file: TokenOption) -> None:
    """Fetch the labels of a pushed batch into its folder."""
    from flywheel_core.annotation.label_studio_server import LabelStudioServer

    with clear_errors():
        labels = LabelStudioServer(url, _token(token_file)).pull(batch)
        console.print(str(labels), highlight=False, soft_wrap=True)


def _token(path: Path) -> str:
    try:
        token = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"--token-file: {path} cannot be read ({error}); put the token there, for you alone"
        ) from error
    if not token or any(character.isspace() for character in token):
        raise ConfigError(f"--token-file: {path} must hold one token and nothing else; mend it")
    return token


@annotate_app.command("agreement")
def agreement(
    reviews: Annotated[list[Path], typer.Argument(help="reviews.parquet, the oldest first.")],
    as_json: JsonOption = False,
) -> None:
    """Agreement, and each annotator against the others, over one or more batches."""
    from flywheel_core.annotation.folder import agreement_over_batches

    with clear_errors():
        report = agreement_over_batches(reviews)
        emit(report, as_json, lambda: _show_batches(report))


def _show_import(report: dict[str, Any], out: Path) -> None:
    lost = {**report["dropped_reviews"], **report["dropped_pairs"]}
    lines = [f"{report['pairs']} pairs from {report['reviews']} labels in {out}"]
    lines += [f"dropped: {name} {count}" for name, count in lost.items()]
    lines += [f"look at: {name} {count}" for name, count in report["remarks"].items()]
    if report["waiting_for_adjudication"]:
        lines.append(
            f"{report['waiting_for_adjudication']} splits wait in the batch's adjudication/ folder "
            "(for Label Studio, push it; again, when more have joined)"
        )
    flagged = [name for name, one in report["features_chosen_rejected"].items() if one["flagged"]]
    lines.append(f"features that set chosen and rejected apart: {', '.join(flagged) or 'none'}")
    console.print("\n".join(lines), highlight=False, soft_wrap=True)
    _show_agreement(report)


def _show_batches(report: dict[str, Any]) -> None:
    for name, count in report["dropped_reviews"].items():
        console.print(f"dropped: {name} {count}", highlight=False)
    _show_agreement(report)


def _show_agreement(report: dict[str, Any]) -> None:
    questions = Table("question", "alpha", "kappa", "unanimous", "tasks", box=None, pad_edge=False)
    for name, one in report["agreement"].items():
        questions.add_row(
            name,
            _number(one["alpha"]),
            _number(one["kappa"]),
            _number(one["share_unanimous"]),
            str(one["num_tasks"]) + (f" ({one['missing']})" if one["missing"] else ""),
        )
    console.print(questions)
    people = Table(
        "annotator", "labels", "agrees", "late - early", "left", box=None, pad_edge=False
    )
    for one in report["annotators"]:
        drift, left = one["drift"], one["left_share"]
        mark = " [bold red]drifts[/]" if one["drifted"] else ""
        people.add_row(
            one["annotator_id"],
            str(one["num_reviews"]),
            _number(one["agreement"]),
            (_interval(drift) if drift else "") + mark,
            _interval(left) if left else "",
        )
    console.print(people)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _interval(found: dict[str, float]) -> str:
    return f"{found['estimate']:+.2f} \\[{found['lower']:.2f}, {found['upper']:.2f}]"
