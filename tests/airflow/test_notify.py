"""Mail to a real SMTP server, a message to a real webhook; and nothing where nothing is set."""

import json
import logging
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from notify_servers import SmtpServer, Webhook

from flywheel_core.errors import ConfigError
from operators.notify import ApprovalWaits, Channels, load_channels, on_failure, tell

EXAMPLE = Path(__file__).parents[2] / "dags" / "notify.example.yaml"
LOG = logging.getLogger("test")
PASSWORD = "correct horse battery"


@pytest.fixture(autouse=True)
def listen(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)


@pytest.fixture
def smtp() -> Iterator[SmtpServer]:
    with SmtpServer(user="flywheel", password=PASSWORD) as server:
        yield server


@pytest.fixture
def slack() -> Iterator[Webhook]:
    with Webhook() as server:
        yield server


def deploy(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    smtp: SmtpServer | None = None,
    slack: Webhook | None = None,
    password: str = PASSWORD,
) -> None:
    """Write the file and its secrets, and name it in the environment."""
    channels: dict[str, Any] = {}
    if smtp is not None:
        (folder / "password").write_text(f"{password}\n")
        channels["smtp"] = {
            "host": "127.0.0.1",
            "port": smtp.port,
            "starttls": False,
            "sender": "flywheel@example.org",
            "recipients": ["a@example.org", "b@example.org"],
            "user": "flywheel",
            "password_file": str(folder / "password"),
        }
    if slack is not None:
        (folder / "webhook").write_text(f"{slack.url}\n")
        channels["slack"] = {"webhook_url_file": str(folder / "webhook")}
    (folder / "notify.yaml").write_text(yaml.safe_dump(channels))
    monkeypatch.setenv("FLYWHEEL_NOTIFY", str(folder / "notify.yaml"))


def failed(reason: str) -> dict[str, Any]:
    ti = SimpleNamespace(
        dag_id="flywheel_weekly",
        task_id="rl",
        run_id="run 7",
        try_number=2,
        map_index=-1,
        log_url="http://airflow/dags/flywheel_weekly/runs/run%207/tasks/rl?try_number=2",
    )
    return {"ti": ti, "exception": RuntimeError(reason)}


def test_nobody_is_told_where_nothing_is_set(
    smtp: SmtpServer, slack: Webhook, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    deploy(tmp_path, monkeypatch, smtp=smtp, slack=slack)
    for unset in ("", None):
        monkeypatch.delenv("FLYWHEEL_NOTIFY", raising=False)
        if unset is not None:
            monkeypatch.setenv("FLYWHEEL_NOTIFY", unset)
        tell("subject", "body", LOG)
        on_failure(failed("out of memory"))
    deploy(tmp_path, monkeypatch)
    tell("subject", "body", LOG)
    assert (smtp.sessions, slack.told) == ([], [])


def test_a_failure_is_told_with_its_reason_link_and_log(
    smtp: SmtpServer,
    slack: Webhook,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    deploy(tmp_path, monkeypatch, smtp=smtp, slack=slack)
    on_failure(failed("rl (key 01):\n out of memory on rank 3"))
    (session,) = smtp.sessions
    assert session.authenticated
    assert session.recipients == ["a@example.org", "b@example.org"]
    (message,) = slack.told
    for text in (session.text, message):
        assert "failed: flywheel_weekly.rl of run 7" in text
        assert "rl (key 01): out of memory on rank 3" in text
        assert "http://airflow/dags/flywheel_weekly/runs/run%207/tasks/rl?try_number=2" in text
        assert "/dag_id=flywheel_weekly/run_id=run 7/task_id=rl/attempt=2.log" in text
    assert_no_secret(caplog, slack)


def assert_no_secret(caplog: pytest.LogCaptureFixture, slack: Webhook) -> None:
    assert caplog.text
    assert PASSWORD not in caplog.text
    assert slack.secret not in caplog.text


def test_a_channel_that_fails_warns_and_the_other_is_told(
    smtp: SmtpServer,
    slack: Webhook,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    deploy(tmp_path, monkeypatch, smtp=smtp, slack=slack)
    slack.status = 404
    tell("stalled", "rl makes no progress", LOG)
    assert [session.text.count("rl makes no progress") for session in smtp.sessions] == [1]
    assert "Slack did not take 'stalled': HTTPError: HTTP Error 404" in caplog.text
    slack.status = 200
    deploy(tmp_path, monkeypatch, smtp=smtp, slack=slack, password="wrong")
    tell("sta\nlled", "still none", LOG)
    assert "mail did not take 'sta lled': SMTPAuthenticationError" in caplog.text
    assert any("still none" in text for text in slack.told)
    smtp.close()
    tell("stalled", "and now", LOG)
    assert "ConnectionRefusedError" in caplog.text
    assert_no_secret(caplog, slack)


def test_a_webhook_file_with_something_else_says_so_without_showing_it(
    slack: Webhook,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    deploy(tmp_path, monkeypatch, slack=slack)
    (tmp_path / "webhook").write_text(f"SLACK={slack.url}")
    tell("subject", "body", LOG)
    assert "must hold one https address" in caplog.text
    (tmp_path / "webhook").write_text(f"{slack.url} and more")
    tell("subject", "body", LOG)
    assert "Slack did not take 'subject': InvalidURL" in caplog.text
    (tmp_path / "webhook").unlink()
    tell("subject", "body", LOG)
    assert "FileNotFoundError" in caplog.text
    assert_no_secret(caplog, slack)


def test_the_example_is_a_file_that_loads() -> None:
    channels = load_channels(EXAMPLE)
    assert channels.smtp is not None
    assert channels.slack is not None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("slak: {}", "slak: unknown key"),
        ("slack: {webhook_url: https://secret}", "slack.webhook_url_file: missing"),
        ("smtp: {host: h, sender: s, recipients: []}", "smtp.recipients"),
        ("smtp: {host: h, sender: s, recipients: [r], user: u}", "give both, or neither"),
        ("a: [", "cannot be read"),
    ],
)
def test_a_wrong_file_warns_and_never_raises(
    text: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = tmp_path / "notify.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=said):
        load_channels(path)
    monkeypatch.setenv("FLYWHEEL_NOTIFY", str(path))
    tell("subject", "body", LOG)
    assert "nobody was told 'subject'" in caplog.text
    monkeypatch.setenv("FLYWHEEL_NOTIFY", str(tmp_path / "none.yaml"))
    tell("subject", "body", LOG)
    assert "none.yaml: cannot be read" in caplog.text


def test_an_empty_file_is_a_deployment_that_tells_nobody(tmp_path: Path) -> None:
    path = tmp_path / "notify.yaml"
    path.write_text("# nobody yet\n")
    assert load_channels(path) == Channels()


def test_a_waiting_approval_is_told(
    slack: Webhook, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    deploy(tmp_path, monkeypatch, slack=slack)
    task = SimpleNamespace(
        subject="Release generation 3 of tiny?",
        body="| gate | verdict |",
        assigned_users=[{"id": "rm", "name": "rm"}],
        response_timeout=timedelta(hours=120),
    )
    ApprovalWaits().notify({"task": task, "ti": failed("")["ti"]})
    (text,) = slack.told
    assert "Release generation 3 of tiny?" in text
    assert "Approve or reject (rm): http://airflow/dags/flywheel_weekly/runs/run%207" in text
    assert "rejects itself after 5 days" in text
    assert "| gate | verdict |" in text


def test_the_message_is_what_slack_takes(
    slack: Webhook, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    deploy(tmp_path, monkeypatch, slack=slack)
    tell('a "quoted" subject', "line one\nline two", LOG)
    assert json.loads(slack.bodies[0]) == {"text": '*a "quoted" subject*\nline one\nline two'}
    assert threading.active_count() < 20
