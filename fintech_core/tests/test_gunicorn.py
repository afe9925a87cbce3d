"""What the web server believes of a request, and how its processes live, asked of a real one."""

import json
import os
import re
import signal
import socket
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.conf import settings
from gunicorn.workers.gthread import ThreadWorker

from fintech_core import gunicorn_worker
from fintech_core.embedded.processes import free_port
from fintech_core.tests.live import Process, Web, wait_until

HTTPS = {"PUBLIC_BASE_URL": "https://api.example.com", "ALLOWED_HOSTS": "127.0.0.1"}


def status(web: Web, path: str, headers: dict[str, str]) -> int:
    connection = HTTPConnection("127.0.0.1", web.port, timeout=10)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    connection.close()
    return answer.status


@pytest.mark.parametrize(("proxies", "believed"), [("0", False), ("1", True)])
def test_given_a_word_about_tls_when_it_comes_from_here_then_only_declared_proxies_are_believed(
    tmp_path: Path, django_db_setup: None, proxies: str, believed: bool
) -> None:
    with Web(tmp_path, HTTPS | {"TRUSTED_PROXY_COUNT": proxies}) as web:
        secure = status(web, "/api/v1/users/me/", {"X-Forwarded-Proto": "https"})
        assert secure == (401 if believed else 301)
        assert status(web, "/api/v1/users/me/", {}) == 301
        for header in ("X-Forwarded-Protocol", "X-Forwarded-Ssl"):
            for value in ("ssl", "on"):
                assert status(web, "/api/v1/users/me/", {header: value}) == 301


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory, django_db_setup: None) -> Iterator[Web]:
    with Web(tmp_path_factory.mktemp("web")) as started:
        yield started


def test_given_a_start_when_the_server_speaks_of_itself_then_its_lines_are_whole(web: Web) -> None:
    assert re.search(r"\[\d+\] \[INFO\] Booting worker", web.said())
    assert "Logging error" not in web.said()


def test_given_another_path_in_a_header_when_it_comes_from_here_then_the_real_one_is_served(
    web: Web,
) -> None:
    assert status(web, "/api/health/live/", {"SCRIPT_NAME": "/api"}) == 200
    assert status(web, "/api/health/live/", {"PATH_INFO": "/admin/"}) == 200


@pytest.mark.parametrize("value", ["charset=hex", "charset=idna", "charset*=hex''a", "x*=no''%ff"])
def test_given_an_encoding_that_is_none_of_text_when_asking_then_no_failure(
    web: Web, value: str
) -> None:
    for path in ("/api/health/live/?q=%FF", "/admin/login/?q=%FF", "/api/v1/users/me/?q=%FF"):
        assert status(web, path, {"Content-Type": f"text/plain; {value}"}) < 500


def requests_counted(web: Web) -> int:
    """Of all processes together; asking is one itself, and counted before it is answered."""
    with urllib.request.urlopen(f"{web.url}/metrics", timeout=10) as answer:
        said = answer.read().decode()
    counted = re.findall(r"^django_http_requests_total_by_method_total\{.*\} (\S+)$", said, re.M)
    assert counted
    return sum(int(float(count)) for count in counted)


def test_given_a_worker_that_is_killed_when_asking_then_another_answers_and_no_count_is_lost(
    tmp_path: Path, django_db_setup: None
) -> None:
    # Given
    with Web(tmp_path, {"WEB_CONCURRENCY": "2"}) as web:
        wait_until(lambda: len(web.children()) == 2, 10, web.said)
        first, second = web.children()
        before = requests_counted(web)
        # When
        for _ in range(20):
            assert web.status("/api/health/live/") == 200
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: len(set(web.children()) - {first}) == 2, 10, web.said)
        for _ in range(20):
            assert web.status("/api/health/live/") == 200
        # Then
        assert second in web.children()
        assert requests_counted(web) == before + 41


def test_given_a_process_whose_threads_are_busy_when_others_connect_then_the_other_one_serves_them(
    tmp_path: Path, django_db_setup: None
) -> None:
    two_of_one_thread = {"WEB_CONCURRENCY": "2", "WEB_THREADS": "1"}
    with (
        Web(tmp_path, two_of_one_thread) as web,
        socket.create_connection(("127.0.0.1", web.port)) as slow,
    ):
        slow.sendall(b"GET /api/health/live/ HTTP/1.1\r\n")  # and no end of it
        for _ in range(10):
            assert status(web, "/api/health/live/", {}) == 200


SLOW = """
import time


def application(environ, start_response):
    time.sleep(0.05)
    start_response("200 OK", [("Content-Length", "0")])
    return [b""]
"""


@contextmanager
def slow_web(folder: Path) -> Iterator[tuple[Process, int]]:
    """A server and its port: two processes of one thread; a request takes 50 milliseconds."""
    (folder / "slow.py").write_text(SLOW)
    port = free_port()
    environment = {
        "PYTHONPATH": str(folder),
        "PORT": str(port),
        "WEB_CONCURRENCY": "2",
        "WEB_THREADS": "1",
    }
    log = folder / "web.log"
    arguments = ["gunicorn", "slow", "--config", "fintech_core/gunicorn_conf.py"]
    with Process(*arguments, log=log, environment=environment) as web:
        wait_until(lambda: answers(port), 20, log.read_text)
        yield web, port


def answers(port: int) -> bool:
    with suppress(OSError):
        return ask(HTTPConnection("127.0.0.1", port, timeout=5)) == 200
    return False


def ask(connection: HTTPConnection) -> int:
    connection.request("GET", "/")
    response = connection.getresponse()
    response.read()
    return response.status


def test_given_clients_that_never_pause_when_others_connect_then_all_are_served(
    tmp_path: Path,
) -> None:
    served = [0] * 12

    def never_pause(number: int) -> None:
        connection = HTTPConnection("127.0.0.1", port, timeout=30)
        while time.monotonic() < until:
            ask(connection)
            served[number] += 1

    with slow_web(tmp_path) as (_, port), ThreadPoolExecutor(len(served)) as clients:
        until = time.monotonic() + 6
        list(clients.map(never_pause, range(len(served))))
    assert min(served) > max(served) / 4


def test_given_clients_that_wait_when_told_to_stop_then_they_are_answered(tmp_path: Path) -> None:
    with slow_web(tmp_path) as (web, port), ThreadPoolExecutor(24) as clients:
        asked = [
            clients.submit(lambda: ask(HTTPConnection("127.0.0.1", port, timeout=20)))
            for _ in range(24)
        ]
        time.sleep(0.2)  # all are connected, and some are served
        web.stop()
        assert [each.result() for each in asked] == [200] * 24


class Client:
    """A connection whose client has sent so many requests, and a worker of two threads for it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, sent: int) -> None:
        self.served = 0
        self.kept: object = True
        self.sock, self.theirs = socket.socketpair()
        self.theirs.sendall(b"." * sent)
        worker: Any = object.__new__(gunicorn_worker.FairWorker)
        worker.__dict__ |= {
            "cfg": SimpleNamespace(threads=2), "alive": True, "nr_conns": 2,
            "keepalived_conns": [], "pending_conns": [], "_accepting": False,
            "_looked_at": time.monotonic(),
        }  # fmt: skip
        self.worker = worker
        monkeypatch.setattr(gunicorn_worker, "PATIENCE_SECONDS", 60.0)
        monkeypatch.setattr(ThreadWorker, "handle", lambda _worker, _conn: self.serve())

    def serve(self) -> object:
        self.served += 1
        self.sock.recv(1)
        return self.kept

    def handled(self) -> int:
        assert self.worker.handle(self) is self.kept
        return self.served


def test_given_a_client_that_asks_again_when_nobody_waits_then_its_thread_serves_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert Client(monkeypatch, sent=3).handled() == 3


def test_given_a_free_thread_when_a_client_asks_again_then_newcomers_are_seen_without_a_look(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = Client(monkeypatch, sent=3)
    client.worker.__dict__ |= {"_accepting": True, "_looked_at": float("-inf")}
    assert client.handled() == 3


@pytest.mark.parametrize(
    "change",
    [
        {"nr_conns": 3},  # one waits for a thread
        {"alive": False},
        {"_looked_at": 0.0},  # the main thread has not looked for long
    ],
)
def test_given_a_client_that_asks_again_when_others_wait_then_it_takes_its_turn(
    monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    client = Client(monkeypatch, sent=3)
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0)
    client.worker._looked_at = 1000.0
    client.worker.__dict__ |= change
    assert client.handled() == 1


@pytest.mark.parametrize("kept", [False, object()])
def test_given_a_connection_that_is_over_when_answered_then_nobody_asks_it_again(
    monkeypatch: pytest.MonkeyPatch, kept: object
) -> None:
    client = Client(monkeypatch, sent=3)
    client.kept = kept
    assert client.handled() == 1


def answer_to(web: Web, body: bytes, path: str = "/api/v1/auth/login/") -> tuple[int, str]:
    """Status and code, for a body that is sent in chunks and ends with the connection."""
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", web.port), timeout=10) as client:
        client.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + body)
        client.shutdown(socket.SHUT_WR)
        answer = HTTPResponse(client)
        answer.begin()
        assert answer.headers["Content-Type"] == "application/problem+json"
        return answer.status, json.loads(answer.read())["code"]


LOGIN = b'{"email":"nobody@example.com","password":"no"}'


def test_given_a_body_in_chunks_when_asking_then_it_is_read_like_any_other(web: Web) -> None:
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in (LOGIN[:7], LOGIN[7:]))
    assert answer_to(web, chunks + b"0\r\n\r\n") == (401, "invalid_credentials")
    too_long = b"%x\r\n" % (settings.BODY_LIMIT + 1) + b" " * (settings.BODY_LIMIT + 1)
    assert answer_to(web, too_long + b"\r\n0\r\n\r\n") == (413, "payload_too_large")


@pytest.mark.parametrize("body", [b"", b"5\r\n", b"x\r\n", b"2\r\n{}\r\n", b"2\r\n{}0\r\n\r\n"])
def test_given_chunks_that_break_off_when_asking_then_nothing_is_taken_for_empty(
    web: Web, body: bytes
) -> None:
    assert answer_to(web, body) == (400, "parse_error")


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ("GET /api/health/live/?q=%s HTTP/1.1\r\n" % ("x" * 5000), (414, "payload_too_large")),
        ("GET /api/health/live/ HTTP/1.1\r\nA: %s\r\n" % ("x" * 9000), (431, "payload_too_large")),
        ("GET /api/health/live/ HTTP/1.1\r\nContent-Length: 1e1\r\n", (400, "parse_error")),
        ("POST / HTTP/1.1\r\nIdempotency-Key: a\x7fb\r\n", (400, "parse_error")),
        ("GET /api/health/live/\r\n", (400, "parse_error")),
        ("no HTTP\r\n", (400, "parse_error")),
    ],
    ids=["long line", "long header", "no length", "DEL in a header", "no version", "nothing of it"],
)
def test_given_what_is_no_request_when_it_comes_then_refused_like_everything_else(
    web: Web, sent: str, expected: tuple[int, str]
) -> None:
    with socket.create_connection(("127.0.0.1", web.port), timeout=10) as client:
        client.sendall(f"{sent}\r\n".encode())
        answer = HTTPResponse(client)
        answer.begin()
        problem = json.loads(answer.read())
    assert (answer.status, problem["code"]) == expected
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["X-Request-ID"] == problem["request_id"]
    assert (problem["status"], problem["instance"]) == (answer.status, None)


@pytest.mark.parametrize(
    "sent",
    [
        "POST /api/v1/auth/login/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        "GET /api/health/live/ HTTP/1.1\r\nHost: a\r\n{}",
        "GET /api/health/live/?token={} HTTP 1.1",
    ],
    ids=["as a chunk's length", "as a header", "in the first line"],
)
def test_given_a_secret_in_the_wrong_place_when_refused_then_it_is_not_in_the_log(
    web: Web, sent: str
) -> None:
    said_before = len(web.said())
    with socket.create_connection(("127.0.0.1", web.port), timeout=10) as client:
        client.sendall(sent.format("hunter2secret").encode() + b"\r\n\r\n")
        answer = HTTPResponse(client)
        answer.begin()
    assert answer.status == 400
    wait_until(lambda: len(web.said()) > said_before, 10)
    assert "hunter2" not in web.said()


def test_given_an_answer_already_when_the_rest_of_the_body_is_nothing_then_it_stays_the_only_one(
    web: Web,
) -> None:
    asked = "OPTIONS / HTTP/1.1\r\nHost: a\r\nOrigin: https://a\r\nTransfer-Encoding: chunked\r\n"
    asked += "Access-Control-Request-Method: GET\r\n\r\n"
    with socket.create_connection(("127.0.0.1", web.port), timeout=10) as client:
        client.sendall(asked.encode() + b"no length\r\n")
        with client.makefile("rb") as answers:
            assert answers.read().count(b"HTTP/1.1") == 1
