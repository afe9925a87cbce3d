"""The trial balance: of any moment, adding up to zero, or saying that it does not."""

import io
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client

from fintech_core.database import database_time
from transactions.models import Account
from transactions.tests.helpers import fund, person, send
from transactions.tests.test_adjustments import approve, propose
from transactions.trial_balance import _BALANCES, MomentInFuture, trial_balance
from users.tests.factories import StaffFactory

PAGE = "/admin/transactions/transaction/trial-balance/"
pytestmark = pytest.mark.django_db(transaction=True)


def shown(at: Any = None) -> dict[str, Decimal]:
    books = trial_balance(at)
    assert books.is_zero
    return {row.account: row.balance for row in books.of("USD") if row.balance}


def forge(owner: Any) -> None:
    owner.execute("SET session_replication_role = replica")
    owner.execute(
        "UPDATE transactions_transactionledger SET amount = amount + 1 WHERE wallet_id IS NULL"
    )
    owner.execute("SET session_replication_role = origin")


class TestBooks:
    def test_given_nothing_when_summed_then_every_account_is_there_with_zero(self):
        books = trial_balance()
        assert books.currencies == ["USD"]
        assert [row.account for row in books.accounts] == list(Account)
        assert books.is_zero

    def test_given_movements_when_summed_then_each_side_once(self):
        alice, bob = person("100.00"), person("5.00")
        send(alice, bob, "30.00")
        approve(propose(alice, "2.50"))
        assert shown() == {
            "wallet": Decimal("107.50"),
            "gateway_clearing": Decimal("-105.00"),
            "adjustments": Decimal("-2.50"),
        }

    def test_given_a_moment_when_summed_then_the_books_as_they_were_inclusive(self):
        alice = person("100.00")
        at = alice.wallet.entries.get().created_at
        fund(alice, "11.00")
        assert shown(at) == {"wallet": Decimal("100.00"), "gateway_clearing": Decimal("-100.00")}
        assert shown(at - timedelta(microseconds=1)) == {}
        assert shown()["wallet"] == Decimal("111.00")

    def test_given_the_future_when_summed_then_refused(self):
        with pytest.raises(MomentInFuture):
            trial_balance(database_time() + timedelta(minutes=1))

    def test_given_several_currencies_when_summed_then_each_adds_up_alone(self, owner):
        person("100.00")
        other = person()
        owner.execute("SET session_replication_role = replica")
        owner.execute("UPDATE wallet_wallet SET currency = 'EUR' WHERE user_id = %s", [other.pk])
        owner.execute("SET session_replication_role = origin")
        other.wallet.refresh_from_db()
        fund(other, "7.00")
        books = trial_balance()
        assert books.currencies == ["EUR", "USD"]
        assert books.is_zero
        assert {row.account: row.balance for row in books.of("EUR") if row.balance} == {
            "wallet": Decimal("7.00"),
            "gateway_clearing": Decimal("-7.00"),
        }

    def test_given_a_forged_entry_when_summed_then_it_does_not_add_up(self, owner):
        person("100.00")
        forge(owner)
        books = trial_balance()
        assert not books.is_zero
        assert books.difference("USD") == Decimal("-1.00")

    def test_given_a_large_ledger_when_summed_then_by_indexes_alone(self, owner):
        alice = person("100.00")
        fund(alice, "1.00")
        # What an earlier test left in the statistics must not decide.
        owner.execute("VACUUM ANALYZE transactions_transactionledger, wallet_wallet")
        with connection.cursor() as cursor:
            # A table this small is read whole, or by bitmaps; a large one is not.
            cursor.execute("SET enable_seqscan = off")
            cursor.execute("SET enable_bitmapscan = off")
            parameters = {
                "accounts": [a.value for a in Account if a != Account.WALLET],
                "at": database_time(),
            }
            cursor.execute(f"EXPLAIN {_BALANCES}", parameters)
            plan = "\n".join(row[0] for row in cursor.fetchall())
            cursor.execute("RESET enable_seqscan")
            cursor.execute("RESET enable_bitmapscan")
        assert "Index Only Scan using transactions_ledger_account" in plan
        assert "transactions_ledger_moment" in plan
        assert "Seq Scan on transactions_transactionledger" not in plan


class TestCommand:
    def run(self, *args: str) -> str:
        out = io.StringIO()
        call_command("trial_balance", *args, stdout=out)
        return out.getvalue()

    def test_given_true_books_when_run_then_a_table_and_success(self):
        alice, bob = person("100.00"), person()
        send(alice, bob, "30.00")
        lines = [line.split() for line in self.run().splitlines()]
        assert ["wallet", "100.00"] in lines
        assert ["gateway_clearing", "100.00"] in lines
        assert ["fees", "0.00"] in lines
        assert ["difference", "0.00"] in lines

    def test_given_a_moment_when_run_then_of_that_moment(self):
        alice = person("100.00")
        at = alice.wallet.entries.get().created_at
        fund(alice, "11.00")
        written = self.run("--at", at.isoformat())
        assert "100.00" in written
        assert "111.00" not in written
        assert at.isoformat().replace("+00:00", "Z") in written

    def test_given_false_books_when_run_then_exit_1(self, owner):
        person("100.00")
        forge(owner)
        with pytest.raises(CommandError, match="do not add up") as refusal:
            self.run()
        assert refusal.value.returncode == 1

    @pytest.mark.parametrize("at", ["", "yesterday", "2026-01-01", "2900-01-01T00:00:00Z"])
    def test_given_no_moment_of_the_past_when_run_then_exit_2(self, at):
        with pytest.raises(CommandError, match="--at") as refusal:
            self.run("--at", at)
        assert refusal.value.returncode == 2


class TestPage:
    def client(self, *permissions: str) -> Client:
        client = Client()
        client.force_login(StaffFactory(permissions=list(permissions)))
        return client

    def test_given_the_permission_when_opened_then_the_books_and_a_link_in_the_sidebar(self):
        person("100.00")
        client = self.client("transactions.view_transaction")
        response = client.get(PAGE)
        html = response.content.decode()
        assert response.status_code == 200
        assert "The books add up to zero." in html
        assert "100.00" in html
        assert PAGE in client.get("/admin/").content.decode()
        assert b"<script>" not in response.content

    def test_given_a_moment_when_opened_then_of_that_moment(self):
        alice = person("100.00")
        at = alice.wallet.entries.get().created_at
        fund(alice, "11.00")
        html = (
            self.client("transactions.view_transaction")
            .get(PAGE, {"at": at.isoformat()})
            .content.decode()
        )
        assert "111.00" not in html
        assert "100.00" in html

    @pytest.mark.parametrize("at", ["yesterday", "2900-01-01T00:00:00Z", "\x00", "2" * 41])
    def test_given_nonsense_when_opened_then_the_form_says_so_and_shows_no_books(self, at):
        response = self.client("transactions.view_transaction").get(PAGE, {"at": at})
        assert response.status_code == 200
        assert response.context["form"].errors["at"]
        assert response.context["books"] is None

    def test_given_false_books_when_opened_then_it_says_so(self, owner):
        person("100.00")
        forge(owner)
        html = self.client("transactions.view_transaction").get(PAGE).content.decode()
        assert "do not add up" in html

    def test_given_no_permission_when_opened_then_403_and_no_link(self):
        client = self.client()
        assert client.get(PAGE).status_code == 403
        assert PAGE not in client.get("/admin/").content.decode()

    def test_given_nobody_when_opened_then_they_must_sign_in(self):
        assert Client().get(PAGE).status_code == 302
