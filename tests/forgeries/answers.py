"""Attacks on the approval: who answered, what, when, and to which question."""

from datetime import UTC, datetime, timedelta

from flywheel_core.errors import InputDataError, StackError
from flywheel_core.release.decision import (
    AutomatedNotAllowed,
    DigestMismatch,
    NoResponse,
    NotApproved,
    ResponderNotAllowed,
    ResponseOutdated,
    SelfApprovalNotAllowed,
)
from tests.forgeries.attacks import attack
from tests.forgeries.scene import MANAGER, Scene

# -- nothing was answered, or not "Approve" --------------------------------------------------------


@attack(NoResponse, "nobody has answered")
def the_approval_is_marked_success_before_it_was_asked(scene: Scene) -> None:
    scene.detail = None


@attack(NoResponse, "nobody has answered")
def the_approval_is_marked_success_while_it_waits(scene: Scene) -> None:
    scene.answer(
        response_received=False, responded_at=None, responded_by_user=None, chosen_options=None
    )


@attack(NoResponse, "nobody has answered")
def an_answer_without_a_time(scene: Scene) -> None:
    scene.answer(responded_at=None)


@attack(NotApproved, "['Reject']")
def a_rejection_is_marked_success(scene: Scene) -> None:
    scene.answer(chosen_options=["Reject"])


@attack(NotApproved, "must be exactly")
def both_options_at_once(scene: Scene) -> None:
    scene.answer(chosen_options=["Approve", "Reject"])


@attack(NotApproved, "must be exactly")
def the_option_twice(scene: Scene) -> None:
    scene.answer(chosen_options=["Approve", "Approve"])


@attack(NotApproved, "must be exactly")
def the_option_in_small_letters(scene: Scene) -> None:
    scene.answer(chosen_options=["approve"])


@attack(NotApproved, "must be exactly")
def the_option_with_a_space(scene: Scene) -> None:
    scene.answer(chosen_options=["Approve "])


@attack(NotApproved, "must be exactly")
def the_option_as_text(scene: Scene) -> None:
    scene.answer(chosen_options="Approve")


@attack(NotApproved, "must be exactly")
def no_option(scene: Scene) -> None:
    scene.answer(chosen_options=[])


# -- somebody else answered ------------------------------------------------------------------------


@attack(ResponderNotAllowed, "'on_call'")
def another_user_answered(scene: Scene) -> None:
    scene.answer(responded_by_user={"id": "on_call", "name": "on_call"})


@attack(ResponderNotAllowed, "'admin'")
def an_administrator_under_the_managers_display_name(scene: Scene) -> None:
    scene.answer(responded_by_user={"id": "admin", "name": MANAGER})


@attack(ResponderNotAllowed, "None")
def nobody_in_particular_answered(scene: Scene) -> None:
    scene.answer(responded_by_user=None)


@attack(ResponderNotAllowed, "''")
def an_empty_user_id(scene: Scene) -> None:
    scene.answer(responded_by_user={"id": "", "name": MANAGER})


@attack(ResponderNotAllowed, "'Release_Manager'")
def the_managers_id_in_other_letters(scene: Scene) -> None:
    scene.answer(responded_by_user={"id": "Release_Manager", "name": MANAGER})


@attack(ResponderNotAllowed, "'release_manager '")
def the_managers_id_with_a_space(scene: Scene) -> None:
    scene.answer(responded_by_user={"id": "release_manager ", "name": MANAGER})


@attack(InputDataError, "is not a record")
def the_user_as_text(scene: Scene) -> None:
    scene.answer(responded_by_user=MANAGER)


# -- four eyes -------------------------------------------------------------------------------------


@attack(SelfApprovalNotAllowed, "the same user")
def the_manager_triggered_the_run(scene: Scene) -> None:
    scene.dag_run = {"run_type": "manual", "triggering_user_name": MANAGER}


@attack(SelfApprovalNotAllowed, "the same user")
def the_manager_triggered_the_run_in_other_letters(scene: Scene) -> None:
    scene.dag_run = {"run_type": "manual", "triggering_user_name": MANAGER.upper()}


@attack(SelfApprovalNotAllowed, "the same user")
def the_manager_triggered_the_run_by_display_name(scene: Scene) -> None:
    scene.dag_run = {"run_type": "manual", "triggering_user_name": "Release Manager"}


@attack(SelfApprovalNotAllowed, "the same user")
def the_manager_started_a_backfill(scene: Scene) -> None:
    scene.dag_run = {"run_type": "backfill", "triggering_user_name": MANAGER}


@attack(SelfApprovalNotAllowed, "does not say who")
def nobody_is_recorded_to_have_triggered_the_run(scene: Scene) -> None:
    scene.dag_run = {"run_type": "manual", "triggering_user_name": None}


@attack(SelfApprovalNotAllowed, "does not say who")
def another_flow_triggered_the_run(scene: Scene) -> None:
    scene.dag_run = {"run_type": "operator_triggered", "triggering_user_name": None}


@attack(InputDataError, "dagRuns: is not a record")
def the_record_of_the_run_lacks_its_user(scene: Scene) -> None:
    scene.dag_run = {"run_type": "scheduled"}


@attack(StackError, "does not answer")
def airflow_cannot_be_read(scene: Scene) -> None:
    scene.unreadable = True


# -- a program answered ----------------------------------------------------------------------------


def _wants_a_person(scene: Scene) -> None:
    scene.policy = scene.policy.model_copy(update={"automated_approval_allowed": False})
    scene.ask_again()


@attack(AutomatedNotAllowed, "let a program answer", alone=True)
def a_program_answered_where_a_person_must(scene: Scene) -> None:
    _wants_a_person(scene)
    scene.answer(params_input={"automated": True})


@attack(AutomatedNotAllowed, "let a program answer", alone=True)
def a_program_answered_and_spelt_false_as_text(scene: Scene) -> None:
    _wants_a_person(scene)
    scene.answer(params_input={"automated": "false"})


# -- at another time, to another try ---------------------------------------------------------------


@attack(ResponseOutdated, "another try")
def the_answer_of_an_earlier_try(scene: Scene) -> None:
    scene.try_number = 2


@attack(ResponseOutdated, "another try")
def the_answer_of_a_later_try(scene: Scene) -> None:
    scene.answer(task_instance={"try_number": 2})


@attack(NoResponse, "nobody has answered")
def approved_then_cleared_then_marked_success(scene: Scene) -> None:
    if scene.detail is not None:
        scene.tries = [scene.detail]
    scene.try_number, scene.detail = 2, None


@attack(ResponseOutdated, "120 h after")
def an_expired_approval(scene: Scene) -> None:
    asked = datetime.now(UTC) - timedelta(days=10)
    scene.answer(
        created_at=asked.isoformat(), responded_at=(asked + timedelta(hours=120.1)).isoformat()
    )


@attack(ResponseOutdated, "before the question was asked")
def an_answer_before_the_question(scene: Scene) -> None:
    asked = datetime.now(UTC) - timedelta(hours=1)
    scene.answer(
        created_at=asked.isoformat(), responded_at=(asked - timedelta(hours=1)).isoformat()
    )


@attack(ResponseOutdated, "in the future")
def an_answer_from_the_future(scene: Scene) -> None:
    now = datetime.now(UTC)
    scene.answer(created_at=now.isoformat(), responded_at=(now + timedelta(hours=2)).isoformat())


@attack(InputDataError, "is not a record")
def a_time_without_a_zone(scene: Scene) -> None:
    scene.answer(responded_at="2026-11-24T03:05:00")


# -- to another question ---------------------------------------------------------------------------


@attack(DigestMismatch, "what was approved is not")
def a_question_without_a_digest(scene: Scene) -> None:
    scene.answer(body="Release this candidate?")


@attack(DigestMismatch, "what was approved is not")
def no_question_at_all(scene: Scene) -> None:
    scene.answer(body=None)


@attack(DigestMismatch, "what was approved is not")
def the_digest_above_the_last_line(scene: Scene) -> None:
    if scene.detail is not None and scene.detail["body"]:
        scene.detail["body"] += "\nsigned"


@attack(DigestMismatch, "what was approved is not")
def a_digest_of_zeros(scene: Scene) -> None:
    scene.answer(body="decision digest: " + "0" * 64)


@attack(DigestMismatch, "what was approved is not")
def only_the_beginning_of_the_digest(scene: Scene) -> None:
    if scene.detail is not None and scene.detail["body"]:
        scene.detail["body"] = scene.detail["body"][:-1]
