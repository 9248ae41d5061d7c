"""The ledger as a picture: one panel a preference model and workflow, laid out as Table 8 is.

Rows are models by generation, columns data batches and, last, all batches together. Geometry
here, drawing in `templates/ledger.svg.jinja`; coordinates are SVG user units, y downwards.
"""

from dataclasses import dataclass

from markupsafe import Markup

from flywheel_core.evaluation.statistics import Interval, wilson_interval
from flywheel_core.report.environment import environment
from flywheel_core.rewards.ledger import Cell, Family, Ledger

LABEL_WIDTH, CELL_WIDTH, CELL_HEIGHT, GAP, MARGIN = 92.0, 86.0, 44.0, 40.0, 20.0
TITLE_HEIGHT, HEAD_HEIGHT, PANEL_GAP = 74.0, 52.0, 34.0
CHANCE, TOP = 0.5, 0.95
"""Where the shading of a cell begins and ends: guessing, and better than any noise allows."""


@dataclass(frozen=True)
class CellBox:
    """One cell: `shade` in 0..1; `kind` is trained, diagonal or zero_shot."""

    x: float
    y: float
    shade: float
    kind: str
    regressed: bool
    text: str
    interval: str
    title: str


@dataclass(frozen=True)
class Label:
    """A row's or a column's name."""

    at: float
    text: str


@dataclass(frozen=True)
class Panel:
    """One preference model on one workflow; boxes are relative to (x, y)."""

    x: float
    y: float
    width: float
    title: str
    rows: tuple[Label, ...]
    columns: tuple[Label, ...]
    boxes: tuple[CellBox, ...]


@dataclass(frozen=True)
class LedgerChart:
    """The whole picture."""

    width: float
    height: float
    cell_width: float
    cell_height: float
    panels: tuple[Panel, ...]
    generation: int


def render_ledger(ledger: Ledger, *, standalone: bool = True) -> Markup:
    """The picture as SVG, without a script or a request: a document, or a part of a page."""
    template = environment().get_template("ledger.svg.jinja")
    return Markup(template.render(chart=ledger_chart(ledger), standalone=standalone))


def ledger_chart(ledger: Ledger) -> LedgerChart:
    """Panels of one family side by side, families below each other."""
    panels: list[Panel] = []
    y, width = TITLE_HEIGHT, 2 * MARGIN + 440.0
    for family in ledger.families:
        x, tallest = MARGIN, 0.0
        for workflow in family.workflows:
            panel = _panel(family, workflow, ledger.generation, x, y)
            panels.append(panel)
            x += panel.width + GAP
            tallest = max(tallest, HEAD_HEIGHT + len(panel.rows) * CELL_HEIGHT)
        width = max(width, x - GAP + MARGIN)
        y += tallest + PANEL_GAP if tallest else 0.0
    return LedgerChart(width, y, CELL_WIDTH, CELL_HEIGHT, tuple(panels), ledger.generation)


def _panel(family: Family, workflow: str, generation: int, x: float, y: float) -> Panel:
    cells = [cell for cell in family.cells if cell.workflow == workflow]
    models = sorted({cell.model_generation for cell in cells})
    batches = sorted({cell.batch_generation for cell in cells})
    fallen = {
        (one.model_generation, one.batch_generation)
        for one in family.comparisons
        if one.workflow == workflow
        and one.change == "regressed"
        and one.batch_generation < one.model_generation
    }
    boxes = [
        _box(cell, models.index(cell.model_generation), batches.index(cell.batch_generation),
             (cell.model_generation, cell.batch_generation) in fallen)
        for cell in cells
    ]  # fmt: skip
    for row, model in enumerate(models):
        mine = [cell for cell in cells if cell.model_generation == model]
        if len(mine) == len(batches) and len(batches) > 1:
            boxes.append(_all_box(mine, row, len(batches)))
    columns = [*(f"batch {batch}" for batch in batches), *(["all"] if len(batches) > 1 else [])]
    return Panel(
        x=x,
        y=y,
        width=LABEL_WIDTH + CELL_WIDTH * len(columns),
        title=f"{family.model.replace('_', ', ')} data, {workflow} chats",
        rows=tuple(
            Label(HEAD_HEIGHT + CELL_HEIGHT * (row + 0.5), f"model {model}")
            for row, model in enumerate(models)
        ),
        columns=tuple(
            Label(LABEL_WIDTH + CELL_WIDTH * (column + 0.5), text)
            for column, text in enumerate(columns)
        ),
        boxes=tuple(boxes),
    )


def _box(cell: Cell, row: int, column: int, regressed: bool) -> CellBox:
    kind = "trained"
    if cell.zero_shot:
        kind = "zero_shot"
    elif cell.batch_generation == cell.model_generation:
        kind = "diagonal"
    what = f"model {cell.model_generation} on batch {cell.batch_generation}"
    return _place(cell.accuracy, cell.num_pairs, row, column, kind, regressed, what)


def _all_box(cells: list[Cell], row: int, column: int) -> CellBox:
    """All batches together, pair by pair, as Table 8's last column has it."""
    pairs = sum(cell.num_pairs for cell in cells)
    right = sum(cell.accuracy.estimate * cell.num_pairs for cell in cells)
    what = f"model {cells[0].model_generation} on all batches"
    return _place(wilson_interval(min(right, pairs), pairs), pairs, row, column, "all", False, what)


def _place(
    accuracy: Interval,
    num_pairs: int,
    row: int,
    column: int,
    kind: str,
    regressed: bool,
    what: str,
) -> CellBox:
    share = (accuracy.estimate - CHANCE) / (TOP - CHANCE)
    return CellBox(
        x=LABEL_WIDTH + CELL_WIDTH * column,
        y=HEAD_HEIGHT + CELL_HEIGHT * row,
        shade=round(min(max(share, 0.0), 1.0), 3),
        kind=kind,
        regressed=regressed,
        text=f"{accuracy.estimate:.3f}",
        interval=f"{accuracy.lower:.2f}–{accuracy.upper:.2f}",
        title=f"{what}: {accuracy.estimate:.3f} [{accuracy.lower:.3f}, {accuracy.upper:.3f}], "
        f"{num_pairs:,} pairs{', regressed' if regressed else ''}",
    )
