"""Money for tests: it arrives by a posted deposit and leaves by a real transfer."""

import itertools
import threading
from collections.abc import Callable
from contextlib import contextmanager
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from django.db import connections
from rest_framework.test import APIClient

from fintech_core.idempotency import Answer, IdempotentCall
from transactions.models import Transaction
from transactions.services import TransactionService, Transfer
from transactions.verification import Breach, verify
from users.models import User
from users.tests.factories import UserFactory

_numbers = itertools.count(1)


def fund(user: User, amount: str) -> Transaction:
    return TransactionService.add_money(
        wallet_id=user.wallet.pk,
        amount=Decimal(amount),
        currency=user.wallet.currency,
        effect_key=f"test:{next(_numbers)}:{uuid4()}",
    )


def person(funded: str | None = None, **facts: Any) -> User:
    """An approved customer, with money if asked for."""
    user = UserFactory(**{"kyc": "approved", **facts})
    if funded:
        fund(user, funded)
    return user


def send(sender: User, recipient: User | str, amount: str, key: str | None = None) -> Answer:
    """A transfer as a view makes it, without HTTP."""
    to = recipient if isinstance(recipient, str) else str(recipient.pk)
    transfer = Transfer(recipient=to, amount=Decimal(amount), currency="USD")
    call = IdempotentCall.internal(
        user_id=sender.pk,
        operation="test transfer",
        key=key or str(uuid4()),
        asked={"to": to, "amount": amount},
    )
    return TransactionService.transfer_money(sender=sender, transfer=transfer, idempotency=call)


def balance(user: User) -> Decimal:
    return type(user.wallet).objects.get(user=user).balance


def breaches() -> list[Breach]:
    """Whatever `verify_ledger` would name."""
    return [breach for step in verify() for breach in step.breaches]


def client_of(user: User) -> APIClient:
    """A client that is signed in without the cost of a login."""
    client = APIClient()
    client.force_authenticate(user)
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

    threads = [
        threading.Thread(target=run, args=(position, job)) for position, job in enumerate(jobs)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert not any(thread.is_alive() for thread in threads), "a thread hangs"
    return results


@contextmanager
def refused_by(constraint: str) -> Any:
    """The database refuses, and names the rule."""
    from django.db import IntegrityError

    with pytest.raises(IntegrityError) as refusal:
        yield
    diagnosis = refusal.value.__cause__.diag
    assert diagnosis.constraint_name == constraint
