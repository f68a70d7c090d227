"""A server on this machine that answers as a broker's, and fails in the ways that theirs do."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit


class Asked(NamedTuple):
    """One request."""

    method: str
    path: str
    query: str
    """What was signed: of the URL and of a form."""
    form: dict[str, str]
    body: Any
    headers: dict[str, str]


class Answer(NamedTuple):
    """What is sent back."""

    status: int
    body: Any
    headers: Mapping[str, str] = MappingProxyType({})


class Fault(NamedTuple):
    """What goes wrong with the next request of a method and path."""

    method: str
    path: str
    kind: str
    """"lose": done, and the line dropped before the answer; "late": dropped first, and done after
    `seconds`; "refuse": dropped and never done; "slow": answered after `seconds`; "status": not
    done, `answer` instead; "after": done, and `answer` instead."""
    answer: Answer | None = None
    seconds: float = 0.0


class Loopback:
    """Serve `answer(asked)` of a subclass at `url`, until the `with` block is left."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.faults: list[Fault] = []
        self.books = threading.RLock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def answer(self, asked: Asked) -> Answer:
        raise NotImplementedError

    def fail(self, method: str, path: str, kind: str, answer: Answer | None = None, seconds=0.0):
        self.faults.append(Fault(method, path, kind, answer, seconds))

    def count(self, method: str, path: str) -> int:
        return sum(each.method == method and each.path == path for each in self.asked)

    def take(self, asked: Asked) -> Fault | None:
        with self.books:
            self.asked.append(asked)
            for fault in self.faults:
                if (fault.method, fault.path) == (asked.method, asked.path):
                    self.faults.remove(fault)
                    return fault
        return None

    def serve(self, asked: Asked) -> Answer | None:
        """The answer to a request; None where the line drops."""
        fault = self.take(asked)
        kind = "" if fault is None else fault.kind
        if kind == "refuse":
            return None
        if kind == "late":
            threading.Timer(fault.seconds, self.locked, [asked]).start()
            return None
        if kind == "status":
            return fault.answer
        answer = self.locked(asked)
        if kind == "slow":
            time.sleep(fault.seconds)
        return None if kind == "lose" else fault.answer if kind == "after" else answer

    def locked(self, asked: Asked) -> Answer:
        with self.books:
            return self.answer(asked)

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, args=[0.02], daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def _handler(loopback: Loopback) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do(self) -> None:
            parts = urlsplit(self.path)
            text = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            json_body = self.headers.get("Content-Type", "").startswith("application/json")
            query = "&".join(part for part in (parts.query, "" if json_body else text) if part)
            answer = loopback.serve(
                Asked(
                    method=self.command,
                    path=parts.path,
                    query=query,
                    form=dict(parse_qsl(query)),
                    body=json.loads(text) if json_body and text else None,
                    headers={name.lower(): value for name, value in self.headers.items()},
                )
            )
            if answer is None:
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
            else:
                self.reply(answer)

        def reply(self, answer: Answer) -> None:
            content = answer.body if isinstance(answer.body, str) else json.dumps(answer.body)
            self.send_response(answer.status)
            given = {"Content-Type": "application/json", **answer.headers}
            for name, value in given.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content.encode())))
            self.end_headers()
            self.wfile.write(content.encode())

        do_GET = do_POST = do_DELETE = do  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    return Handler
