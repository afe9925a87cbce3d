"""Money for tests: it arrives by a posted deposit and leaves by a real transfer."""

import itertools
import threading
from collections.abc import Callable
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from django.db import connections
from rest_framework.test import APIClient

from fintech_core.idempotency import Answer, IdempotentCall
from transactions.models import Hold, Transaction
from transactions.services import Reservation, TransactionService, Transfer
from transactions.verification import Breach, verify
from users.models import User
from users.tests.factories import StaffFactory, UserFactory
from wallet import services as wallets

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


def guardian() -> User:
    """One member of staff for all wallets of a test."""
    email = "guardian@staff.example.com"
    found: User | None = User.objects.filter(email=email).first()
    permissions = [wallets.STATUS_PERMISSION, wallets.LIMITS_PERMISSION]
    return found or StaffFactory.create(email=email, permissions=permissions)


def freeze(user: User) -> None:
    wallets.freeze(wallet_id=user.wallet.pk, actor=guardian(), reason="Under review.")


def unfreeze(user: User) -> None:
    wallets.unfreeze(wallet_id=user.wallet.pk, actor=guardian(), reason="Reviewed.")


def close(user: User) -> None:
    """At zero alone."""
    wallets.close(wallet_id=user.wallet.pk, actor=guardian(), reason="The customer left.")


def set_limits(user: User, **chosen: Any) -> None:
    """Amounts as texts; what is not named is the tier's."""
    typed: dict[str, Any] = {
        name: Decimal(most) if isinstance(most, str) else most for name, most in chosen.items()
    }
    wallets.override_limits(
        wallet_id=user.wallet.pk,
        actor=guardian(),
        reason="Agreed with the customer.",
        chosen=wallets.ChosenLimits(**typed),
    )


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


def call_by(user: User, key: str | None = None, **asked: Any) -> IdempotentCall:
    return IdempotentCall.internal(
        user_id=user.pk, operation="test call", key=key or str(uuid4()), asked=asked
    )


def reserve(payer: User, recipient: User, amount: str, *, seconds: int = 604_800) -> Answer:
    """A hold as a view makes it, without HTTP."""
    reservation = Reservation(
        recipient=str(recipient.pk),
        amount=Decimal(amount),
        currency="USD",
        expires_in=timedelta(seconds=seconds),
    )
    return TransactionService.create_hold(
        payer=payer, reservation=reservation, idempotency=call_by(payer)
    )


def hold_of(answer: Answer) -> Hold:
    return Hold.objects.get(pk=answer.content["id"])


def capture(recipient: User, hold: Hold, amount: str | None = None) -> Answer:
    return TransactionService.capture_hold(
        caller=recipient,
        hold_id=hold.pk,
        amount=Decimal(amount) if amount else None,
        idempotency=call_by(recipient),
    )


def refund(recipient: User, transaction_id: Any, amount: str | None = None) -> Answer:
    return TransactionService.refund(
        caller=recipient,
        transaction_id=transaction_id,
        amount=Decimal(amount) if amount else None,
        reason="",
        idempotency=call_by(recipient),
    )


def let_time_pass(owner: Any, hold: Hold) -> None:
    """Make the hold due, as if it had been made a month ago."""
    owner.execute("SET session_replication_role = replica")
    owner.execute(
        "UPDATE transactions_hold SET created_at = created_at - interval '31 days',"
        " expires_at = expires_at - interval '31 days' WHERE id = %s",
        [str(hold.pk)],
    )
    owner.execute("SET session_replication_role = origin")


def balance(user: User) -> Decimal:
    return type(user.wallet).objects.get(user=user).balance


def held(user: User) -> Decimal:
    return type(user.wallet).objects.get(user=user).held


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
