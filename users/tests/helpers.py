"""What this app's tests say often."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import IntegrityError, connections, transaction
from rest_framework.test import APIClient

from fintech_core.database import violated_constraint
from users.tests.factories import PASSWORD


def refusal(response: Any) -> tuple[int, str]:
    """Status and code of a problem document."""
    assert response["Content-Type"] == "application/problem+json", response.content
    return response.status_code, response.json()["code"]


def wrong_fields(response: Any) -> list[str]:
    """The fields that a 400 names."""
    assert refusal(response) == (400, "validation_error")
    return [error["field"] for error in response.json()["errors"]]


def post(path: str, body: Any = None, client: APIClient | None = None, **options: Any) -> Any:
    return (client or APIClient()).post(f"/api/v1/{path}", body, **options)


def get(path: str, client: APIClient | None = None, **query: Any) -> Any:
    return (client or APIClient()).get(f"/api/v1/{path}", query)


def patch(path: str, body: Any, client: APIClient) -> Any:
    return client.patch(f"/api/v1/{path}", body)


def login(email: str, password: str = PASSWORD, **options: Any) -> Any:
    return post("auth/login/", {"email": email, "password": password}, **options)


def bearer(access: str) -> APIClient:
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {access}")
    return client


def at_once(*jobs: Callable[[], Any]) -> list[Any]:
    """Run the jobs in real threads that start together; their results or exceptions, in order."""
    barrier = threading.Barrier(len(jobs))
    results: list[Any] = [None] * len(jobs)

    def run(position: int, job: Callable[[], Any]) -> None:
        barrier.wait()
        try:
            results[position] = job()
        except Exception as exc:
            results[position] = exc
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert not any(thread.is_alive() for thread in threads), "a thread hangs"
    return results


@contextmanager
def refused_by(constraint: str) -> Iterator[None]:
    """The database refuses, at the statement or at commit, and names the rule."""
    with pytest.raises(IntegrityError) as caught, transaction.atomic():  # noqa: PT012
        yield
        connections["default"].check_constraints()
    assert violated_constraint(caught.value) == constraint
