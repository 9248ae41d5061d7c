"""The open experiment's day: read, ask where the window is over, follow the answer."""

import datetime
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator, Param
from airflow.sdk.exceptions import AirflowSkipException

from operators.approval import AskReleaseManagers
from operators.asked import scheduled_for
from operators.config import Site
from operators.plans import RECIPE_PARAM, recipe_of

if TYPE_CHECKING:
    from flywheel_core.airflow_client import AirflowClient
    from flywheel_core.release.experiments import Experiment

AB_TEST_PARAMS = {
    "recipe": RECIPE_PARAM,
    "day": Param(
        None,
        type=["null", "string"],
        format="date",
        title="Day",
        description="Read the experiment to the end of this day; a day that was decided is only "
        "told again. Empty: a scheduled run reads the day before its date, a run by hand the "
        "newest one logged, and with the simulated world the next day that is not decided.",
    ),
}


class OpenExperiment:
    """What every task of a run works on: the experiment, and the day, decided once for a run."""

    def __init__(self, context: Any) -> None:
        from flywheel_core.release.experiments import read_open_experiment

        self.site = Site.from_environment()
        self.store = self.site.store()
        self.recipe = recipe_of(self.site, context)
        self.flywheel = self.recipe.flywheel
        self.experiment = read_open_experiment(self.store, self.flywheel)
        self.context = context

    @property
    def opened(self) -> "Experiment":
        """The experiment, where there is one."""
        if self.experiment is None:
            raise AirflowSkipException("no experiment is open: nothing is to be done")
        return self.experiment

    @property
    def is_simulated(self) -> bool:
        return bool(self.recipe.traffic.source == "world")

    def asked_day(self) -> datetime.date:
        """The day this run reads, kept under its run id when it is first worked out: a run whose
        first task has decided its day must not go on to the next one."""
        from flywheel_core.release.experiment_days import day_of_run

        return day_of_run(
            self.store,
            self.flywheel,
            self.opened,
            str(self.context["run_id"]),
            given=self.context["params"].get("day"),
            scheduled_for=scheduled_for(self.context),
            simulated=self.is_simulated,
            today=self.today(),
        )

    def airflow(self) -> "AirflowClient":
        """Airflow's own records, by the read-only account; asks nothing until it has to."""
        from flywheel_core.airflow_client import AirflowClient
        from flywheel_core.stack.secrets import read_service_credentials

        account = read_service_credentials(self.site.service_credentials)
        return AirflowClient(self.site.airflow_api, account.username, account.password)

    def today(self) -> datetime.date | None:
        """The date of real traffic; a simulated day is over when it is read."""
        return None if self.is_simulated else datetime.datetime.now(datetime.UTC).date()

    def read(self) -> Any:
        """The day's run without an answer; running it again changes nothing."""
        from flywheel_core.experiments.config import ReadoutConfig
        from flywheel_core.release.experiment_answers import proof_by
        from flywheel_core.release.ramping import run_day

        policy = self.site.policy()
        with self.airflow() as airflow:
            return run_day(
                self.store,
                self.flywheel,
                self.opened,
                self.asked_day(),
                ReadoutConfig.under(policy.experiment),
                proof=proof_by(airflow, policy),
                today=self.today(),
            )

    def page(self) -> Any:
        from flywheel_core.report.experiment_page import experiment_page

        reports = self.site.home / "reports"
        return experiment_page(reports, self.flywheel, self.opened.experiment_id)

    def write_page(self, run: Any) -> None:
        """Write the page of what was read, with what was decided on it."""
        from flywheel_core.report.experiment_page import write_experiment_page

        if run.readout is not None:
            write_experiment_page(self.store, self.flywheel, run, self.page())


class ReadExperiment(BaseOperator):
    """Reads the experiment to the end of the run's day and acts where nobody has to be asked: goes
    on, rolls back on a lost guardrail, takes the ramp's next step. Writes the page."""

    ui_color = "#e8f7f3"

    def execute(self, context: Any) -> str:
        opened = OpenExperiment(context)
        if opened.experiment is None:
            self.log.info("experiment: none open")
            return "none open"
        if opened.is_simulated:
            from flywheel_core.world.experiment_day import log_world_day

            rule = opened.site.policy().experiment
            log_world_day(
                opened.store, opened.flywheel, opened.experiment, rule, opened.asked_day()
            )
        run = opened.read()
        opened.write_page(run)
        if run.readout is not None:
            self.log.info("%s", run.readout.sentence)
            self.log.info("page: %s", opened.page())
        tell = self.log.warning if run.action.kind == "wait" else self.log.info
        tell("experiment %s, %s: %s", run.experiment_id, run.day, run.said)
        if run.since:
            self.log.info("while that waits: %s", run.since.reason)
        return str(run.said)


class RampApproval(AskReleaseManagers):
    """Asks on the window's last day; skipped on every other one, and in the daily runs that read on
    while another run's question about the same figures waits for its answer."""

    question = "Ramp this candidate?"

    def execute(self, context: Any) -> Any:
        from flywheel_core.release.experiment_answers import asked_elsewhere, experiment_question

        opened = OpenExperiment(context)
        if opened.experiment is None:
            raise AirflowSkipException("no experiment is open: there is nothing to ask")
        run = opened.read()
        if run.action.kind != "ask":
            raise AirflowSkipException(f"nothing is to be asked: {run.said}")
        policy = opened.site.policy()
        asked = experiment_question(opened.experiment, run, policy, opened.page())
        with opened.airflow() as airflow:
            elsewhere = asked_elsewhere(
                airflow, asked, dag_id=str(context["ti"].dag_id), task_id=str(self.task_id)
            )
        if elsewhere is not None and elsewhere != str(context["run_id"]):
            since = f"; {run.since.reason}" if run.since else ""
            said = f"the same is asked in run {elsewhere!r} and waits for its answer{since}"
            self.log.info("%s", said)
            raise AirflowSkipException(said)
        return self.ask(asked.subject, asked.body, policy, context)


class SettleExperiment(BaseOperator):
    """Follows the answer, read over REST from Airflow's own record; never XCom, never a task's
    state. A rejection is an answer too, so it runs after a red approval as well."""

    ui_color = "#dff3df"

    def __init__(self, *, approval_task_id: str, **kwargs: Any) -> None:
        super().__init__(**{"trigger_rule": "all_done", **kwargs})
        self.approval_task_id = approval_task_id

    def execute(self, context: Any) -> str:
        opened = OpenExperiment(context)
        if opened.experiment is None:
            raise AirflowSkipException(
                "no experiment is open: nothing is to be done; if this run asked about one, it was "
                "ended since, and an answer moves nothing"
            )
        task = (str(context["ti"].dag_id), str(context["run_id"]))
        with opened.airflow() as airflow:
            # Whatever made it skipped, this run asked nothing, so it has no answer to follow.
            asked_nothing = airflow.task_states(*task).get(self.approval_task_id) == "skipped"
            run = opened.read() if asked_nothing else self._settle(opened, airflow, *task)
        opened.write_page(run)
        self.log.info("experiment %s, %s: %s", run.experiment_id, run.day, run.said)
        return str(run.said)

    def _settle(
        self, opened: OpenExperiment, airflow: "AirflowClient", dag_id: str, run_id: str
    ) -> Any:
        from flywheel_core.release.experiment_answers import settle

        return settle(
            opened.store,
            opened.flywheel,
            opened.opened,
            opened.asked_day(),
            opened.site.policy(),
            airflow,
            dag_id=dag_id,
            run_id=run_id,
            task_id=self.approval_task_id,
            today=opened.today(),
        )
