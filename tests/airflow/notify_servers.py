"""An SMTP server and a webhook in the test's own process."""

import asyncio
import base64
import json
import secrets
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


@dataclass
class Session:
    """One message as it came."""

    authenticated: bool = False
    recipients: list[str] = field(default_factory=list)
    text: str = ""


class SmtpServer:
    """Enough of RFC 5321 for one message a session, with AUTH PLAIN."""

    def __init__(self, user: str, password: str) -> None:
        self._expected = base64.b64encode(f"\0{user}\0{password}".encode()).decode()
        self.sessions: list[Session] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        starting = asyncio.start_server(self._serve, "127.0.0.1", 0)
        self._server = asyncio.run_coroutine_threadsafe(starting, self._loop).result(10)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def close(self) -> None:
        """Stop listening."""

        async def stop() -> None:
            self._server.close()

        asyncio.run_coroutine_threadsafe(stop(), self._loop).result(10)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session = Session()
        writer.write(b"220 test\r\n")
        while line := (await reader.readline()).decode():
            verb, _, rest = line.strip().partition(" ")
            if verb.upper() == "DATA":
                writer.write(b"354 go on\r\n")
                data = (await reader.readuntil(b"\r\n.\r\n")).decode()
                session.text = data.replace("=\r\n", "").replace("=3D", "=").replace("\r\n", "\n")
                self.sessions.append(session)
            writer.write(self._answer(session, verb.upper(), rest))
            if verb.upper() == "QUIT":
                break
        writer.close()

    def _answer(self, session: Session, verb: str, rest: str) -> bytes:
        if verb == "EHLO":
            return b"250-test\r\n250 AUTH PLAIN\r\n"
        if verb == "AUTH":
            session.authenticated = rest.split()[-1] == self._expected
            return b"235 ok\r\n" if session.authenticated else b"535 no such password\r\n"
        if verb == "RCPT":
            session.recipients.append(rest.partition("<")[2].rstrip(">"))
        return b"221 bye\r\n" if verb == "QUIT" else b"250 ok\r\n"


class Webhook:
    """Takes what a Slack webhook takes; the path is the secret."""

    def __init__(self) -> None:
        self.secret = secrets.token_hex(12)
        self.status = 200
        self.bodies: list[str] = []
        handler = type("Handler", (_Handler,), {"webhook": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/services/{self.secret}"

    @property
    def told(self) -> list[str]:
        """The texts that came, oldest first."""
        return [str(json.loads(body)["text"]) for body in self.bodies]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


class _Handler(BaseHTTPRequestHandler):
    webhook: Webhook

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        if self.path == f"/services/{self.webhook.secret}" and self.webhook.status == 200:
            self.webhook.bodies.append(body)
        self.send_response(self.webhook.status)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet: pytest's output is the test's."""
