"""The daily readout of the open experiment."""

from typing import Any

from airflow.sdk import BaseOperator

from operators.config import Site
from operators.plans import recipe_of


class ReadExperiment(BaseOperator):
    """Says whether an experiment is open, and keeps the day's readout where there are exposures."""

    ui_color = "#e8f7f3"

    def execute(self, context: Any) -> str:
        from flywheel_core.release.experiments import write_readout

        site = Site.from_environment()
        moment = context.get("logical_date") or context["dag_run"].run_after
        readout = write_readout(site.store(), recipe_of(site, context).flywheel, str(moment.date()))
        self.log.info("experiment: %s", readout.said)
        return readout.said
