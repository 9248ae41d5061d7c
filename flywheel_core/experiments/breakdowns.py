"""Lifts within locales, languages, jobs, new and returning users: exploratory, all of them."""

import math

from flywheel_core.experiments.config import ReadoutConfig
from flywheel_core.experiments.fieller import critical_value
from flywheel_core.experiments.lifts import lift_of
from flywheel_core.experiments.logs import ARMS
from flywheel_core.experiments.metrics import BREADTH, DEPTH, ArmSums, arm_mean, unreadable
from flywheel_core.experiments.reading import detectable
from flywheel_core.experiments.readout import ExploratoryLift
from flywheel_core.experiments.trust import benjamini_hochberg
from flywheel_core.experiments.users import Cell, Sums, Window


def explore(
    sums: Sums, window: Window, config: ReadoutConfig, day: int
) -> tuple[ExploratoryLift, ...]:
    """Breadth and depth in every cell that both arms have, with one false discovery rate for
    all."""
    cells = sorted(
        {
            (cell.dimension, cell.value)
            for cell in sums.moments
            if cell.day == day and cell.dimension
        }
    )
    found = []
    for dimension, value in cells:
        for metric in (BREADTH, DEPTH):
            arms = [
                sums.moments.get(Cell(day, ARMS.index(arm), dimension, value))
                for arm in ("test", "control")
            ]
            if any(matrix is None for matrix in arms):
                continue
            both = [ArmSums(window.columns, matrix) for matrix in arms]
            if any(unreadable(metric, one) for one in both):
                continue
            test, control = (arm_mean(metric, one, day + 1) for one in both)
            error = math.hypot(test.standard_error, control.standard_error)
            if error == 0:
                continue
            p_value = math.erfc(abs(test.mean - control.mean) / error / math.sqrt(2))
            found.append((dimension, value, metric.name, test, control, p_value))
    stands = benjamini_hochberg([one[-1] for one in found], config.alpha)
    return tuple(
        ExploratoryLift(
            dimension=dimension,
            value=value,
            metric=name,
            test=test,
            control=control,
            lift=lift_of(test, control, critical=critical_value(config.alpha)),
            p_value=p_value,
            stands=stand,
            minimum_detectable_lift_pct=detectable(test, control, config),
        )
        for (dimension, value, name, test, control, p_value), stand in zip(
            found, stands, strict=True
        )
    )
