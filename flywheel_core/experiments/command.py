"""`flywheel ab`: A/B tests from the command line."""

import math
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flywheel_core.errors import ConfigError
from flywheel_core.experiments.fieller import Z_95
from flywheel_core.terminal import (
    ByOption,
    JsonOption,
    ReasonOption,
    clear_errors,
    console,
    emit,
)

if TYPE_CHECKING:
    from flywheel_core.experiments.config import ReadoutConfig
    from flywheel_core.experiments.readout import Readout

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
    from flywheel_core.experiments.power import minimum_detectable_lift_pct
    from flywheel_core.experiments.reading import NO_VARIANCE

    with clear_errors():
        if control_mean == control_se == 0:
            raise ConfigError(
                "--control-mean 0.0 with --control-se 0: no ratio to it exists; the control arm "
                "has no engagement at all, look at its logs"
            )
        found = lift_of(
            ArmMean.model_construct(mean=test_mean, standard_error=test_se, num_users=0),
            ArmMean.model_construct(mean=control_mean, standard_error=control_se, num_users=0),
            covariance=cov,
            critical=critical,
        )
        verb = "significant" if found.significant else "not significant"
        if test_se == control_se == 0:
            verb = NO_VARIANCE
        elif not found.significant and control_mean:
            error = math.sqrt(max(0.0, test_se**2 + control_se**2 - 2 * cov))
            least = minimum_detectable_lift_pct(error, control_mean, critical=critical)
            verb += f"; a true lift of {least:.2g} % would have been found with 80 % probability"
        emit(
            found.model_dump(mode="json"),
            as_json,
            lambda: console.print(f"{found.text()}, {verb}", highlight=False, soft_wrap=True),
        )


@ab_app.command()
def analyze(
    exposures: Annotated[Path, typer.Option(help="Folder of the exposure log (Parquet).")],
    events: Annotated[Path, typer.Option(help="Folder of the events (Parquet).")],
    first_day: Annotated[
        str | None, typer.Option(help="First day, YYYY-MM-DD; default: of the first exposure.")
    ] = None,
    through: Annotated[
        str | None, typer.Option(help="Last day to read; default: the last one logged.")
    ] = None,
    policy: Annotated[
        Path | None,
        typer.Option(
            help="Read by the experiment rule of this release policy, as its flow does; the "
            "options below take its place where they are given."
        ),
    ] = None,
    num_days: Annotated[
        int | None, typer.Option(min=1, help="Days of the readout window; default: 7.")
    ] = None,
    test_share: Annotated[
        float | None, typer.Option(help="Planned share of users in test; default: 0.1.")
    ] = None,
    control_share: Annotated[
        float | None, typer.Option(help="Planned share in control; default: 0.1.")
    ] = None,
    guardrail: Annotated[
        list[str] | None,
        typer.Option(help="Column of the events and its bad direction, as reports:up; repeat."),
    ] = None,
    max_sends_per_day: Annotated[
        int | None,
        typer.Option(min=1, help="Users who send more are left out as programs; default: 1000."),
    ] = None,
    delta: Annotated[bool, typer.Option("--delta", help="Add delta-method intervals.")] = False,
    bootstrap: Annotated[bool, typer.Option("--bootstrap", help="Add bootstrap ones.")] = False,
    page: Annotated[Path | None, typer.Option(help="Also write the HTML page here.")] = None,
    scratch: Annotated[
        Path | None,
        typer.Option(help="Folder for the spill.", exists=True, file_okay=False, writable=True),
    ] = None,
    ray_folder: Annotated[
        Path | None,
        typer.Option(help="Aggregate over Ray Data, with this work folder, shared by all nodes."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Read an experiment: lifts, trust, guardrails, day by day. Exit code 1 if it cannot be."""
    from functools import partial

    from flywheel_core.experiments.aggregate import aggregate
    from flywheel_core.experiments.analyze import analyze as read
    from flywheel_core.experiments.spread import spread_over_ray
    from flywheel_core.experiments.tables import show_readout

    with clear_errors():
        config = readout_config(
            policy,
            first_day=first_day,
            through=through,
            num_days=num_days,
            test_share=test_share,
            control_share=control_share,
            guardrails=[_guardrail(one) for one in guardrail] if guardrail else None,
            max_sends_per_day=max_sends_per_day,
            with_delta=delta,
            with_bootstrap=bootstrap,
        )
        if page is not None:
            _require_writable(page)
        one_machine = partial(aggregate, scratch=scratch)
        aggregator = one_machine if ray_folder is None else spread_over_ray(ray_folder)
        found = read(exposures, events, config, aggregator=aggregator)
        if page is not None:
            _write_page(found, config, page)
        emit(found.model_dump(mode="json"), as_json, lambda: show_readout(found, console))
        raise typer.Exit(0 if found.newest.status == "ok" else 1)


def readout_config(policy: Path | None, **given: Any) -> "ReadoutConfig":
    """The configuration, or the first thing that is wrong with it: the policy's experiment rule (or
    the defaults), with what is `given` and not None in its place."""
    from pydantic import ValidationError

    from flywheel_core.experiments.config import ReadoutConfig
    from flywheel_core.release.policy import load_policy

    rule = {} if policy is None else load_policy(policy).experiment.model_dump()
    explicit = {name: value for name, value in given.items() if value is not None}
    try:
        return ReadoutConfig.model_validate({**rule, **explicit})
    except ValidationError as error:
        fault = error.errors()[0]
        field = ".".join(str(part) for part in fault["loc"])
        said = fault["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{field or 'readout'}: got {fault['input']!r}; {said}") from error


def _guardrail(text: str) -> dict[str, str]:
    column, _, harm = text.partition(":")
    return {"column": column, "harm": harm or "up"}


def _write_page(found: "Readout", config: "ReadoutConfig", page: Path) -> None:
    from flywheel_core.report.experiment_page import render_experiment

    page.write_text(render_experiment(found, config), encoding="utf-8")


def _require_writable(page: Path) -> None:
    """Make the page's folder, or say that it cannot be written: before the logs are read."""
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
        if page.exists():
            page.open("r+b").close()
        else:
            TemporaryFile(dir=page.parent).close()
    except OSError as error:
        raise ConfigError(
            f"--page {page}: cannot be written ({error.strerror}); give a file in a folder that "
            "you may write to"
        ) from error


@ab_app.command()
def power(
    mean: Annotated[float, typer.Option(help="Control's mean.")],
    sd: Annotated[float, typer.Option(help="Standard deviation of one user's value.")],
    lift_pct: Annotated[float | None, typer.Option(help="True lift to find, in percent.")] = None,
    users_per_arm: Annotated[int | None, typer.Option(help="Users in each arm.")] = None,
    alpha: Annotated[float, typer.Option(help="Two-sided error rate.")] = 0.05,
    target_power: Annotated[float, typer.Option(help="Probability to find the lift.")] = 0.8,
    as_json: JsonOption = False,
) -> None:
    """Users for a lift, or the lift that a number of users can find."""
    from flywheel_core.experiments.power import plan_power

    with clear_errors():
        found = plan_power(
            mean,
            sd,
            lift_pct=lift_pct,
            users_per_arm=users_per_arm,
            alpha=alpha,
            target_power=target_power,
        )
        emit(
            found.model_dump(mode="json"),
            as_json,
            lambda: console.print(
                f"{found.users_per_arm:,} users an arm find a lift of {found.lift_pct:+.3g} % with "
                f"probability {found.power:.3f}; the least they find with {found.target_power:g} "
                f"is {found.minimum_detectable_lift_pct:.3g} %",
                highlight=False,
            ),
        )


@ab_app.command()
def assign(
    users: Annotated[list[str], typer.Argument(help="User ids.")],
    experiment: Annotated[str | None, typer.Option(help="The experiment's id.")] = None,
    layer: Annotated[str, typer.Option(help="Salt of the layer of experiments.")] = "flywheel",
    test_share: Annotated[float, typer.Option(help="Of all users, in test.")] = 0.10,
    control_share: Annotated[float, typer.Option(help="Of all users, in control.")] = 0.10,
    first_bucket: Annotated[int, typer.Option(help="First of the experiment's buckets.")] = 0,
    num_buckets: Annotated[int, typer.Option(help="How many of the layer's 10,000.")] = 10_000,
    layer_file: Annotated[
        Path | None,
        typer.Option(help="The whole layer as JSON (salt, allocations), in place of the options."),
    ] = None,
    locale: Annotated[str | None, typer.Option(help="The users' locale, for eligibility.")] = None,
    language: Annotated[str | None, typer.Option(help="The users' language.")] = None,
    days_since_joined: Annotated[int | None, typer.Option(help="How long they are users.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Which arm each user is in: the same answer on every machine and every day.

    A layer file holds all experiments that exclude each other, with who may be in them; one in
    which two share buckets is refused.
    """
    from pydantic import ValidationError

    from flywheel_core.experiments.assignment import Allocation, Layer
    from flywheel_core.experiments.assignment import assign as place
    from flywheel_core.experiments.eligibility import Person

    with clear_errors():
        if (experiment is None) == (layer_file is None):
            raise ConfigError("give --experiment with its shares, or --layer-file; exactly one")
        known = {"locale": locale, "language": language, "days_since_joined": days_since_joined}
        try:
            if layer_file is not None:
                within = Layer.model_validate_json(layer_file.read_bytes())
            else:
                allocation = Allocation(
                    experiment_id=str(experiment),
                    first_bucket=first_bucket,
                    num_buckets=num_buckets,
                    test_share=test_share,
                    control_share=control_share,
                )
                within = Layer(salt=layer, allocations=(allocation,))
            people = [Person.model_validate({"user_id": user, **known}) for user in users]
        except OSError as error:
            raise ConfigError(f"layer-file: {layer_file} cannot be read: {error}") from error
        except ValidationError as error:
            fault = error.errors()[0]
            said = fault["msg"].removeprefix("Value error, ")
            raise ConfigError(f"{'.'.join(map(str, fault['loc'])) or 'shares'}: {said}") from error
        placed = [place(within, one) for one in people]
        emit(
            [one.model_dump(mode="json") for one in placed],
            as_json,
            lambda: console.print(
                "\n".join(f"{one.user_id}: {one.arm or one.reason}" for one in placed),
                highlight=False,
            ),
        )


@ab_app.command("end")
def end_open(
    reason: ReasonOption,
    by: ByOption,
    flywheel: Annotated[str, typer.Option(help="Name of the flywheel.")] = "tiny",
) -> None:
    """Roll the open experiment's candidate back; works with Airflow down."""
    from flywheel_core.deployment import Deployment
    from flywheel_core.release.releasing import end_experiment

    with clear_errors():
        store = Deployment.from_environment().store()
        end_experiment(store, flywheel, by=by, reason=reason)
        console.print(f"the experiment of {flywheel} is closed; nobody meets its candidate")
