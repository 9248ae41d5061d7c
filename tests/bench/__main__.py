"""Run the groups, print each row as it comes, and write `bench.json`."""

import argparse
import importlib
import json
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.bench import Row

GROUPS = ("climb", "chaos", "curation", "rewards", "experiments")
OUTPUT = Path("bench.json")


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure; writes bench.json.")
    parser.add_argument("--only", choices=GROUPS, help="one group")
    only = parser.parse_args().only
    console = Console()
    rows: list[Row] = []
    for group in [only] if only else GROUPS:
        for row in importlib.import_module(f"tests.bench.{group}").rows():
            console.print(f"{row.name}: {row.value} {row.unit}", highlight=False)
            rows.append(row)
            OUTPUT.write_text(json.dumps([asdict(one) for one in rows], indent=1) + "\n")
    table = Table("name", "value", "unit", "goal", "holds", "how")
    for row in rows:
        value = "" if row.value is None else f"{row.value:.4g}"
        holds = {True: "yes", False: "NO", None: ""}[row.holds]
        table.add_row(row.name, value, row.unit, row.goal, holds, row.how)
    console.print(table)


if __name__ == "__main__":
    main()
