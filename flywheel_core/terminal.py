"""What every command of `flywheel` shares: consoles, options, and how an error is told."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from flywheel_core.errors import FlywheelError

console = Console()
complaints = Console(stderr=True)

RecipeOption = Annotated[str, typer.Option("--recipe", "-r", help="Name in dags/recipes, or path.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]
ByOption = Annotated[str, typer.Option("--by", help="Who is doing this; recorded.")]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why; recorded.")]


@contextmanager
def clear_errors() -> Iterator[None]:
    """One sentence for the errors we raise on purpose, exit code 1; Ctrl-C exits 130."""
    try:
        yield
    except FlywheelError as error:
        complaints.print(
            f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True
        )
        raise typer.Exit(1) from error
    except KeyboardInterrupt as interrupt:
        complaints.print("\ninterrupted: finished work is kept; the same command goes on from here")
        raise typer.Exit(130) from interrupt


def emit(data: Any, as_json: bool, show: Callable[[], None]) -> None:
    """JSON on standard output, or the human view."""
    if as_json:
        sys.stdout.write(json.dumps(data, indent=1) + "\n")
    else:
        show()
