"""`flywheel ab`: A/B tests from the command line."""

from typing import Annotated

import typer

from flywheel_core.experiments.fieller import Z_95
from flywheel_core.terminal import JsonOption, clear_errors, console, emit

ab_app = typer.Typer(no_args_is_help=True, help="A/B tests: lifts one can defend.")


@ab_app.command()
def lift(
    test_mean: Annotated[float, typer.Option(help="Mean of the test arm.")],
    test_se: Annotated[float, typer.Option(help="Standard error of that mean.")],
    control_mean: Annotated[float, typer.Option(help="Mean of the control arm.")],
    control_se: Annotated[float, typer.Option(help="Standard error of that mean.")],
    cov: Annotated[float, typer.Option(help="Covariance of the two means.")] = 0.0,
    critical: Annotated[
        float, typer.Option(help="Critical value; the default is the normal one for 95 %.")
    ] = Z_95,
    as_json: JsonOption = False,
) -> None:
    """The percentage lift with Fieller's confidence set (paper, Eq. 14-18)."""
    from flywheel_core.experiments.lifts import ArmMean, lift_of

    with clear_errors():
        found = lift_of(
            ArmMean.model_construct(mean=test_mean, standard_error=test_se, num_users=0),
            ArmMean.model_construct(mean=control_mean, standard_error=control_se, num_users=0),
            covariance=cov,
            critical=critical,
        )
        verb = "significant" if found.significant else "not significant"
        emit(
            found.model_dump(mode="json"),
            as_json,
            lambda: console.print(f"{found.text()}, {verb}", highlight=False),
        )
