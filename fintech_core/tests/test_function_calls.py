"""How much Python a request runs: a bound, so that it does not grow unnoticed.

Functions of Python that are called between the server's call and the last byte of the answer. A
layer that is passed through again shows here; what it costs, `docs/performance.md` says.
"""

import json
import sys
from collections import Counter
from collections.abc import Iterator
from io import BytesIO
from types import FrameType
from typing import Any
from uuid import uuid4

import pytest

from conftest import empty_tables
from fintech_core.wsgi import application
from transactions.tests.helpers import person
from users.tests.factories import sign_in

# A tenth above what was counted with Python 3.11; other versions differ a little.
MOST = {"transfer": 920, "balance": 605, "history": 605}
WARM = 5


@pytest.fixture(autouse=True)
def committed(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    with django_db_blocker.unblock():
        yield
        empty_tables()


def asked(token: str, method: str, path: str, **body: str) -> dict[str, Any]:
    raw = json.dumps(body).encode() if body else b""
    return {
        "REQUEST_METHOD": method,
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_HOST": "localhost",
        "HTTP_AUTHORIZATION": f"Bearer {token}",
        "HTTP_IDEMPOTENCY_KEY": str(uuid4()),
        "CONTENT_TYPE": "application/json",
        "CONTENT_LENGTH": str(len(raw)),
        "wsgi.input": BytesIO(raw),
        "wsgi.url_scheme": "http",
    }


def answer(environ: dict[str, Any]) -> str:
    said: list[str] = []
    response = application(environ, lambda status, _headers, _exc=None: said.append(status))
    b"".join(response)
    response.close()
    return said[0]


def calls_of(environ: dict[str, Any]) -> Counter[str]:
    called: Counter[str] = Counter()

    def count(frame: FrameType, event: str, _argument: Any) -> None:
        if event == "call":
            called[f"{frame.f_code.co_filename}:{frame.f_code.co_qualname}"] += 1

    sys.setprofile(count)
    try:
        answer(environ)
    finally:
        sys.setprofile(None)
    return called


@pytest.mark.parametrize("kind", MOST)
def test_given_a_request_like_many_before_when_answering_then_few_functions_are_called(
    kind: str,
) -> None:
    payer, payee = person("100.00"), person()
    token = sign_in(payer).access

    def compose() -> dict[str, Any]:
        if kind == "transfer":
            path = "/api/v1/transactions/transfer/"
            return asked(token, "POST", path, recipient=payee.email, amount="0.01")
        path = "wallets/me/balance/" if kind == "balance" else "transactions/history/"
        return asked(token, "GET", f"/api/v1/{path}")

    for _ in range(WARM):
        assert answer(compose())[0] == "2"
    called = min((calls_of(compose()) for _ in range(3)), key=Counter.total)
    assert called.total() <= MOST[kind], called.most_common(40)
