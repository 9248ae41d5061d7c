"""What each task's page in the Airflow UI says: what it is, what red means, what to do.

One place, so that an on-call engineer finds the same three headings everywhere. A stage's first
heading is its own summary; what differs from task to task is said here, and nothing else.
"""

from dataclasses import dataclass
from typing import Any

from airflow.sdk import BaseOperator

from flywheel_core.stages import STAGES
from operators.gates import GateTask
from operators.ray_job import RayJobOperator
from operators.wait import WaitForTraffic

HEADINGS = ("## What is this", "## What does red mean", "## What do I do")

CLEAR = (
    "Mend what the last log line names, then *Clear* this task. Finished work is found in the "
    "store by its key and is not done again."
)
NEW_CLIMB = (
    "Read the report; its path is in the log of `report`. *Clear* works the verdict out again: on "
    "the same evidence, policy and waivers it is the same. What is really wrong with the candidate "
    "is mended in the recipe or the data, and by a new run."
)


@dataclass(frozen=True)
class TaskDoc:
    """One task's page."""

    what: str
    red: str
    do: str = CLEAR

    def markdown(self) -> str:
        texts = (self.what, self.red, self.do)
        return "\n\n".join(
            f"{heading}\n\n{text}" for heading, text in zip(HEADINGS, texts, strict=True)
        )


STAGE_RED = (
    "Its Ray job failed, ran out of time, or ended without its artifact. The last log line gives "
    "the cause in one sentence, the Ray job, and where its whole log lies; *Ray job* opens the "
    "dashboard there."
)
STAGE_DO = (
    "Mend the cause, then *Clear* this task: finished shards and checkpoints are kept, and a job "
    "that still runs is attached to, never started twice. If the artifact itself is bad, run "
    "`flywheel invalidate KEY --reason …` and start a new run."
)

STAGE_HINTS: dict[str, str] = {
    "traffic": "With ingested traffic a day's file may be unreadable: bring it in again with "
    "`flywheel ingest FILE` and start a new run, because this run's plan names the bad one.",
    "curate": "“kept none of N rows” means that the rules rejected all of the traffic: look at the "
    "day's file.",
    "annotate": "A model of the pool could not be served, or the traffic gave no pairs. “n of m "
    "tasks have fewer than k reviews” is people's work in progress: when it is done, *Clear*.",
    "reward_models": "A training failed; out of memory asks for another `execution.launch`.",
    "rejection_sampling": "A model of the pool could not be served or scored.",
    "sft": "A training failed; out of memory asks for another `execution.launch`.",
    "dpo": "A training failed. With few faulty pairs it passes SFT's model on, and that is not "
    "red.",
    "rl": "A training failed, or the sampling engine did not take its weights.",
    "evaluate": "A checkpoint could not be served or scored.",
}

NIGHTLY_STAGES = {
    "traffic": "one day of chats with the production model",
    "curate": "filter, diversify and balance the one day into prompt sets",
}

GATES: dict[str, tuple[str, str]] = {
    "rm_win_rate": (
        "How often the reward models prefer the candidate to production. Too high is suspicious: "
        "the candidate may have learned the reward model's taste instead of people's (§3.1.2).",
        "A gated win rate is above the policy's limit, or too few prompts were compared.",
    ),
    "rm_divergence": (
        "Whether the internal and the user reward models agree on the candidate (§3.1.2).",
        "They disagree by more points than the policy allows, or lie on either side of 50 %.",
    ),
    "improvement": (
        "Whether the candidate is better than production at all.",
        "No gated win rate lies clearly above 50 %, or one lies clearly below.",
    ),
    "safety": (
        "Whether the candidate breaks the safety rules more often than production (§2.6).",
        "It may, by more than the policy's tolerance; or the evidence is missing, which blocks.",
    ),
    "benchmarks": (
        "Whether the candidate lost general abilities against production.",
        "A benchmark fell further than its tolerance, or one that the policy requires is missing.",
    ),
    "artifacts": (
        "Whether the candidate's style drifted: length, lists, emoji, stock phrases.",
        "A feature left the policy's band: usually a reward model that is being gamed.",
    ),
    "data": (
        "Whether training and evaluation prompts are disjoint, and enough of the traffic was "
        "served by production itself.",
        "They overlap, or too few rows are near-policy: days of another model's traffic were read.",
    ),
}

TASKS: dict[str, TaskDoc] = {
    "resolve": TaskDoc(
        "Decides once what this run reads and makes, and commits it as the run's plan: the "
        "production model, the days' versions, every stage's key. Its log says what is there "
        "already. On a dry run it says what would run and what that costs, and skips the rest.",
        "The recipe, the policy or a param is wrong; with `start_from`, a stage before it is not "
        "in the store, and the sentence lists which.",
        "A wrong param: start a new run with the right one. A wrong recipe or policy: mend the "
        "deployed file, then *Clear* this task. A plan that was pinned is never changed.",
    ),
    "publish": TaskDoc(
        "Names the night's traffic, so that the week's climb finds it. A day that is named "
        "already with the same content is left as it is; other content is a new version.",
        "The store could not be written.",
    ),
    "report": TaskDoc(
        "Writes the generation's report, whatever the gates said; its log has the path. A run "
        "that ended before its evaluation has nothing to report on, and skips it.",
        "The evaluation could not be read, or the page not written. No release depends on it.",
        "*Clear* this task, or run `flywheel report GENERATION`.",
    ),
    "approval": TaskDoc(
        "Asks the policy's release managers; *Required Actions* shows every verdict. Yellow means "
        "that a person is awaited: it is no fault.",
        "“Rejected by …”: that was somebody's decision. A timeout: nobody answered in the "
        "policy's time, and it rejected itself.",
        "Rejected: nothing; the next climb starts from production as it is. Timeout: *Clear* this "
        "task to ask again, and tell a release manager. Never mark it a success: `promote` "
        "believes only an answer.",
    ),
    "promote": TaskDoc(
        "Moves the pointer to the candidate, if Airflow's own record of the approval holds for "
        "exactly what would be promoted.",
        "It does not, and nothing was moved; the sentence says which check failed: no answer, not "
        "a release manager, other evidence, production moved meanwhile, or releases are frozen.",
        "No answer: *Clear* `approval` and have it answered. Production moved: start a new run. "
        "Frozen: ask whoever froze (`flywheel status`), then *Clear* this task.",
    ),
    "readout": TaskDoc(
        "Reads the open experiment to the end of the run's day, writes its page, and acts where "
        "nobody has to be asked; “none open” where no candidate meets users.",
        "The store could not be read, or the day's logs are malformed. A day that is missing is "
        "not red: the log says which, and nothing moves until it is there.",
    ),
    "ramp_approval": TaskDoc(
        "Asks the policy's release managers on the experiment's last day; on every other day it "
        "is skipped. *Required Actions* shows the lifts and the guardrails.",
        "“Rejected by …”: that was somebody's decision, and `ramp` rolls the candidate back. A "
        "timeout: nobody answered in the policy's time.",
        "Rejected: nothing. Timeout: *Clear* this task to ask again, and tell a release manager. "
        "Never mark it a success: `ramp` believes only an answer.",
    ),
    "ramp": TaskDoc(
        "Follows the answer, if Airflow's own record of it holds for exactly these figures: ramps "
        "to 50 %, or rolls back. The step to 100 % is the next day's, without another question.",
        "It does not hold, and nothing was moved; the sentence says which check failed. Or "
        "production moved meanwhile.",
        "No answer: *Clear* `ramp_approval` and have it answered. Other figures: the logs changed "
        "since; *Clear* `ramp_approval`. Production moved: end the experiment, climb anew.",
    ),
}


def document(dag: Any) -> None:
    """Give every task of a flow its page."""
    for task in dag.tasks:
        task.doc_md = task_doc(task).markdown()


def task_doc(task: BaseOperator) -> TaskDoc:
    """The page of one task, by what it is; a task that has none is a `KeyError` at once."""
    if isinstance(task, GateTask):
        what, red = GATES[task.gate]
        return TaskDoc(what, f"{red} The last log line is the reason, with its numbers.", NEW_CLIMB)
    if isinstance(task, RayJobOperator):
        return _stage_doc(task.stage, nightly=task.nightly)
    if isinstance(task, WaitForTraffic):
        return _wait_doc("day" if task.nightly else "week")
    return TASKS[task.task_id]


def _stage_doc(stage: str, *, nightly: bool) -> TaskDoc:
    what = NIGHTLY_STAGES[stage] if nightly else STAGES[stage].summary
    return TaskDoc(
        f"{what[0].upper()}{what[1:]}; it runs as one Ray job.",
        f"{STAGE_RED} {STAGE_HINTS[stage]}",
        STAGE_DO,
    )


def _wait_doc(what: str) -> TaskDoc:
    return TaskDoc(
        f"Waits, without a worker, until the {what}'s traffic has been ingested. Its log names "
        "the days that are missing. With the simulated world there is nothing to wait for.",
        "Days of traffic did not come in time; the last log line names them.",
        "Run `flywheel ingest FILE` for these days, then *Clear* this task: it goes on as soon as "
        "they are there. To go on without them, start a run by hand that names no date: it reads "
        "the newest days there are.",
    )
