"""Tells people by mail and Slack what waits for them: a failed task, an approval, a stall.

Whom to tell is deployed, never a run parameter: the file that `FLYWHEEL_NOTIFY` names (unset:
nobody is told). `dags/notify.example.yaml` shows every field. A password and a webhook's address
are secrets: they lie in files of their own, and no log line holds them. A channel that fails
warns and never fails a task.
"""

import smtplib
import urllib.request
from email.message import EmailMessage
from json import dumps
from pathlib import Path
from typing import Any, Protocol, Self

import yaml
from airflow.sdk.bases.notifier import BaseNotifier
from pydantic import Field, ValidationError, model_validator

from flywheel_core.errors import ConfigError
from flywheel_core.recipe import describe_faults
from flywheel_core.sections import Section
from operators.config import notify_path

TIMEOUT_S = 10.0
REASON_CHARS = 600


class Log(Protocol):
    """What a task's and a trigger's logger have in common."""

    def info(self, message: str, *arguments: Any) -> Any: ...

    def warning(self, message: str, *arguments: Any) -> Any: ...


class SmtpChannel(Section):
    """Mail. With a `user`, `password_file` holds the password and nothing else."""

    host: str = Field(min_length=1)
    port: int = Field(587, ge=1, le=65535)
    starttls: bool = True
    sender: str = Field(min_length=1)
    recipients: tuple[str, ...] = Field(min_length=1)
    user: str | None = None
    password_file: Path | None = None

    @model_validator(mode="after")
    def _user_and_password(self) -> Self:
        if (self.user is None) != (self.password_file is None):
            raise ValueError("user and password_file go together: give both, or neither")
        return self


class SlackChannel(Section):
    """An incoming webhook. Its address is the secret, so a file holds it."""

    webhook_url_file: Path


class Channels(Section):
    """Whom to tell. A channel that is left out is off."""

    smtp: SmtpChannel | None = None
    slack: SlackChannel | None = None


def load_channels(path: Path) -> Channels:
    """Read and check the file; `ConfigError` names every field that is wrong."""
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        return Channels.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"notify file {path}:\n{describe_faults(error)}") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(
            f"notify file {path}: cannot be read ({error}); mend it, or unset FLYWHEEL_NOTIFY"
        ) from error


def tell(subject: str, body: str, log: Log) -> None:
    """Send to every deployed channel. Never raises: a channel that fails is a warning in `log`."""
    subject = " ".join(subject.split())  # a mail's subject is one line
    path = notify_path()
    if path is None:
        return
    try:
        channels = load_channels(path)
    except ConfigError as error:
        log.warning("nobody was told %r: %s", subject, error)
        return
    if channels.smtp is not None:
        _send("mail", _Mail(channels.smtp), subject, body, log)
    if channels.slack is not None:
        _send("Slack", _Slack(channels.slack), subject, body, log)


class _Channel(Protocol):
    def read_secret(self) -> str: ...

    def send(self, subject: str, body: str, secret: str) -> None: ...


def _send(name: str, channel: _Channel, subject: str, body: str, log: Log) -> None:
    secret = ""
    try:
        secret = channel.read_secret()
        channel.send(subject, body, secret)
    except Exception as error:  # whatever a mail server does, the task is not to fail of it
        log.warning("%s did not take %r: %s", name, subject, _without_secret(error, secret))
    else:
        log.info("told by %s: %s", name, subject)


def _without_secret(error: Exception, secret: str) -> str:
    """The kind of error, and its words where these are the network's or ours.

    Other errors may quote a part of the address they were given, and the address is a secret.
    """
    kind = type(error).__name__
    if not isinstance(error, OSError | ConfigError):
        return kind
    said = f"{kind}: {error}"
    return said.replace(secret, "***") if secret else said


class _Mail:
    def __init__(self, config: SmtpChannel) -> None:
        self._config = config

    def read_secret(self) -> str:
        file = self._config.password_file
        return file.read_text().strip() if file is not None else ""

    def send(self, subject: str, body: str, secret: str) -> None:
        message = EmailMessage()
        message["Subject"] = subject
        message["From"] = self._config.sender
        message["To"] = ", ".join(self._config.recipients)
        message.set_content(body)
        with smtplib.SMTP(self._config.host, self._config.port, timeout=TIMEOUT_S) as server:
            if self._config.starttls:
                import ssl

                server.starttls(context=ssl.create_default_context())
            if self._config.user is not None:
                server.login(self._config.user, secret)
            server.send_message(message)


class _Slack:
    def __init__(self, config: SlackChannel) -> None:
        self._config = config

    def read_secret(self) -> str:
        return self._config.webhook_url_file.read_text().strip()

    def send(self, subject: str, body: str, secret: str) -> None:
        if not secret.startswith(("https://", "http://")):
            raise ConfigError(
                f"{self._config.webhook_url_file} must hold one https address and nothing else"
            )
        # urllib and not httpx, which logs each address it calls: here the address is the secret.
        request = urllib.request.Request(
            secret,
            data=dumps({"text": f"*{subject}*\n{body}"}).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=TIMEOUT_S):
            pass


def on_failure(context: Any) -> None:
    """A task failed for good: which, why in one sentence, and where to look."""
    import logging

    ti = context["ti"]
    subject = f"failed: {ti.dag_id}.{ti.task_id} of {ti.run_id}"
    tell(subject, failure_body(context), logging.getLogger("airflow.task.notify"))


def failure_body(context: Any) -> str:
    """What an on-call engineer reads first."""
    ti = context["ti"]
    reason = " ".join(str(context.get("exception") or "it ended without an exception").split())
    return "\n".join(
        [
            reason if len(reason) <= REASON_CHARS else reason[: REASON_CHARS - 1] + "…",
            "",
            f"Task: {ti.log_url}",
            f"Log: {log_file(ti)}",
            "What red means and what to do is in the task's documentation, on that page.",
        ]
    )


def log_file(ti: Any) -> str:
    """Where Airflow keeps the task's log, below the deployment's log folder."""
    from airflow.sdk.configuration import conf
    from jinja2 import Template

    template = Template(conf.get("logging", "log_filename_template"))
    name = template.render(ti=ti, try_number=ti.try_number)
    return f"{conf.get('logging', 'base_log_folder').rstrip('/')}/{name}"


class ApprovalWaits(BaseNotifier):
    """Tells that a candidate waits for a release manager: what is asked, who may answer, where."""

    def notify(self, context: Any) -> None:
        task, ti = context["task"], context["ti"]
        may_answer = ", ".join(user["name"] for user in task.assigned_users or ())
        rejects = (
            f" Without an answer it rejects itself after {task.response_timeout}."
            if task.response_timeout
            else ""
        )
        body = f"Approve or reject ({may_answer}): {ti.log_url}\n{rejects.strip()}\n\n{task.body}"
        tell(task.subject, body, self.log)
