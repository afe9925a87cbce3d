"""The invariants hold in PostgreSQL: for the application's own role, and for raw SQL."""

from decimal import Decimal

import pytest
from django.core.management import CommandError, call_command
from django.db import DatabaseError, IntegrityError, ProgrammingError, connection, transaction
from uuid_utils.compat import uuid7

from transactions.models import Transaction
from transactions.services import TransactionService
from transactions.tests.helpers import (
    balance,
    breaches,
    close,
    freeze,
    fund,
    person,
    refund,
    refused_by,
    send,
)
from wallet.exceptions import WalletClosed
from wallet.models import Wallet

INSERT_TRANSACTION = """
INSERT INTO transactions_transaction
    (id, reference_id, type, status, amount, currency, fee, refunded_amount, to_user_id,
     description, metadata, created_at, completed_at)
VALUES (%(id)s, %(id)s::text::varchar(32), 'deposit', 'completed', %(amount)s, 'USD', 0, 0,
        %(user)s, '', '{}', now(), now())
"""
NIL = "00000000-0000-0000-0000-000000000000"
INSERT_ENTRY = """
INSERT INTO transactions_transactionledger
    (id, transaction_id, account, wallet_id, sequence, entry_type, amount, currency,
     balance_after, created_at)
VALUES (gen_random_uuid(), %(id)s, %(account)s, %(wallet)s, %(sequence)s, %(entry_type)s,
        %(amount)s, %(currency)s, %(balance_after)s, now())
"""


def run(statement: str, **parameters: object) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters or None)


class Forgery:
    """A deposit written by hand, right unless a test makes it wrong."""

    def __init__(self, user, amount: str = "5.00") -> None:
        wallet = Wallet.objects.get(user=user)
        self.user, self.wallet, self.amount = user.pk, wallet.pk, amount
        self.id = uuid7()
        self.sequence = wallet.entry_count + 1
        self.balance_after = wallet.balance + Decimal(amount)

    def transaction(self) -> None:
        run(INSERT_TRANSACTION, id=self.id, amount=self.amount, user=self.user)

    def outside(self, **changes: object) -> None:
        run(INSERT_ENTRY, **{**self.facts_outside(), **changes})

    def inside(self, **changes: object) -> None:
        run(INSERT_ENTRY, **{**self.facts_inside(), **changes})

    def facts_outside(self) -> dict[str, object]:
        return {
            "id": self.id,
            "account": "gateway_clearing",
            "wallet": None,
            "sequence": None,
            "balance_after": None,
            "entry_type": "debit",
            "amount": self.amount,
            "currency": "USD",
        }

    def facts_inside(self) -> dict[str, object]:
        return {
            **self.facts_outside(),
            "account": "wallet",
            "wallet": self.wallet,
            "sequence": self.sequence,
            "balance_after": self.balance_after,
            "entry_type": "credit",
        }

    def balance(self) -> None:
        run(
            "UPDATE wallet_wallet SET balance = %(b)s, entry_count = %(n)s, last_entry_at = now() "
            "WHERE id = %(w)s",
            b=self.balance_after,
            n=self.sequence,
            w=self.wallet,
        )


@pytest.mark.django_db(transaction=True)
class TestBalanced:
    def test_given_a_right_deposit_by_hand_when_committing_then_it_stands(self):
        forgery = Forgery(person("10.00"))
        with transaction.atomic():
            forgery.transaction()
            forgery.outside()
            forgery.inside()
            forgery.balance()
        assert breaches() == []

    def test_given_no_entries_when_committing_then_refused(self):
        with refused_by("transactions_transaction_balances"), transaction.atomic():
            Forgery(person()).transaction()

    def test_given_one_entry_when_committing_then_refused(self):
        forgery = Forgery(person())
        with refused_by("transactions_transaction_balances"), transaction.atomic():
            forgery.transaction()
            forgery.inside()
            forgery.balance()

    def test_given_unequal_sides_when_committing_then_refused(self):
        forgery = Forgery(person())
        with refused_by("transactions_transaction_balances"), transaction.atomic():
            forgery.transaction()
            forgery.outside(amount="4.99")
            forgery.inside()
            forgery.balance()

    def test_given_entries_that_move_more_than_it_says_when_committing_then_refused(self):
        forgery = Forgery(person())
        with refused_by("transactions_transaction_says_what_it_moves"), transaction.atomic():
            forgery.transaction()
            forgery.outside(amount="6.00")
            forgery.inside(amount="6.00", balance_after="6.00")
            forgery.balance_after = Decimal("6.00")
            forgery.balance()

    def test_given_a_committed_transaction_when_adding_a_balanced_pair_then_refused(self):
        alice = person("10.00")
        forgery = Forgery(alice)
        forgery.id = Transaction.objects.get(to_user=alice).pk
        with refused_by("transactions_ledger_books_are_closed"), transaction.atomic():
            forgery.outside()

    def test_given_the_check_called_early_when_more_entries_join_then_refused(self):
        alice = person("10.00")
        forgery = Forgery(alice, "1000000.00")
        with refused_by("transactions_ledger_books_are_closed"), transaction.atomic():
            run(INSERT_TRANSACTION, id=forgery.id, amount="1.00", user=None)
            forgery.outside(amount="1.00")
            forgery.outside(amount="1.00", account="suspense", entry_type="credit")
            run("SET CONSTRAINTS ALL IMMEDIATE")
            run("SET CONSTRAINTS ALL DEFERRED")
            forgery.inside()
            forgery.balance()
        assert balance(alice) == Decimal("10.00")

    def test_given_a_moment_that_has_not_come_when_committing_then_refused(self):
        forgery = Forgery(person())
        moment = "now() + interval '1 day'"
        with refused_by("transactions_transaction_not_from_the_future"), transaction.atomic():
            run(
                INSERT_TRANSACTION.replace("now()", moment),
                id=forgery.id,
                amount="5",
                user=forgery.user,
            )
            run(INSERT_ENTRY.replace("now()", moment), **forgery.facts_inside())
            run(INSERT_ENTRY.replace("now()", moment), **forgery.facts_outside())
            run(
                "UPDATE wallet_wallet SET balance = 5, entry_count = 1, "
                f"last_entry_at = {moment} WHERE id = %(wallet)s",
                wallet=forgery.wallet,
            )

    def test_given_somebody_elses_wallet_when_inserting_an_entry_then_refused(self):
        forgery, bob = Forgery(person("10.00")), person()
        with refused_by("transactions_ledger_wallet_is_the_partys"), transaction.atomic():
            forgery.transaction()
            forgery.inside(wallet=bob.wallet.pk, sequence=1, balance_after="5.00")

    @pytest.mark.parametrize(
        "change",
        ["status = 'failed', type = 'withdrawal', completed_at = NULL", "refunded_amount = 1"],
    )
    def test_given_a_transaction_that_begins_failed_or_refunded_when_inserting_then_refused(
        self, change
    ):
        person("5.00")
        run("CREATE TEMPORARY TABLE forged AS SELECT * FROM transactions_transaction")
        run(
            "UPDATE forged SET id = gen_random_uuid(), reference_id = 'x', effect_key = 'x', "
            + change
        )
        with refused_by("transactions_transaction_begins_whole"):
            run("INSERT INTO transactions_transaction SELECT * FROM forged")
        run("DROP TABLE forged")

    def test_given_a_stamp_of_another_when_inserting_then_it_is_overwritten(self):
        forgery = Forgery(person())
        with transaction.atomic():
            forgery.transaction()
            run("SAVEPOINT here")
            forgery.outside()
            forgery.inside()
            forgery.balance()


INSERT_BETWEEN = INSERT_TRANSACTION.replace("to_user_id", "from_user_id, to_user_id").replace(
    "%(user)s", "%(payer)s, %(payee)s"
)


@pytest.mark.django_db(transaction=True)
class TestSaysWhatItMoves:
    """Whatever was approved, held or left to refund is compared with the amount alone."""

    def test_given_a_fee_when_more_moves_than_the_amount_then_refused(self):
        forgery = Forgery(person(), "10.00")
        statement = INSERT_TRANSACTION.replace("'USD', 0, 0,", "'USD', 9.00, 0,")
        with refused_by("transactions_transaction_says_what_it_moves"), transaction.atomic():
            run(statement, id=forgery.id, amount="1.00", user=forgery.user)
            forgery.outside()
            forgery.inside()
            forgery.balance()

    def test_given_a_fee_when_it_goes_elsewhere_then_refused(self):
        forgery = Forgery(person(), "1.00")
        statement = INSERT_TRANSACTION.replace("'USD', 0, 0,", "'USD', 9.00, 0,")
        with refused_by("transactions_transaction_says_what_it_moves"), transaction.atomic():
            run(statement, id=forgery.id, amount="1.00", user=forgery.user)
            forgery.outside(amount="10.00")
            forgery.outside(amount="9.00", account="fees", entry_type="credit")
            forgery.inside()
            forgery.balance()

    def test_given_a_part_for_the_wallet_when_committing_then_refused(self):
        forgery = Forgery(person(), "4.00")
        with refused_by("transactions_transaction_says_what_it_moves"), transaction.atomic():
            run(INSERT_TRANSACTION, id=forgery.id, amount="5.00", user=forgery.user)
            forgery.outside(amount="5.00")
            forgery.outside(amount="1.00", account="suspense", entry_type="credit")
            forgery.inside()
            forgery.balance()

    @pytest.mark.parametrize(
        ("kind", "named"),
        [
            ("transfer", "payee"),
            ("transfer", "both"),
            ("deposit", "both"),
            ("deposit", "payer"),
            ("withdrawal", "payee"),
            ("reversal", "both"),
        ],
    )
    def test_given_one_wallet_when_the_kind_or_the_parties_say_otherwise_then_refused(
        self, kind, named
    ):
        bob, forgery = person(), Forgery(person())
        payee = None if named == "payer" else forgery.user
        payer = None if named == "payee" else bob.pk
        statement = INSERT_BETWEEN.replace("'deposit'", f"'{kind}'")
        with refused_by("transactions_transaction_moves_its_parties"), transaction.atomic():
            run(statement, id=forgery.id, amount="5.00", payer=payer, payee=payee)
            forgery.outside()
            if payee:
                forgery.inside()
                forgery.balance()
            else:
                forgery.outside(entry_type="credit")

    @pytest.mark.parametrize(
        ("moment", "rule"),
        [
            ("now() - interval '61 seconds'", "transactions_transaction_not_from_the_past"),
            ("'-infinity'::timestamptz", "transactions_transaction_has_a_moment"),
        ],
    )
    def test_given_an_earlier_moment_when_committing_then_refused(self, moment, rule):
        forgery = Forgery(person())
        with refused_by(rule), transaction.atomic():
            statement = INSERT_TRANSACTION.replace("now()", moment)
            run(statement, id=forgery.id, amount="5.00", user=forgery.user)
            for facts in (forgery.facts_outside(), forgery.facts_inside()):
                run(INSERT_ENTRY.replace("now()", moment), **facts)
            run(
                f"UPDATE wallet_wallet SET balance = 5, entry_count = 1, last_entry_at = {moment}"
                " WHERE id = %(wallet)s",
                wallet=forgery.wallet,
            )


@pytest.mark.django_db(transaction=True)
class TestAppendOnly:
    @pytest.mark.parametrize(
        "statement",
        [
            "UPDATE transactions_transactionledger SET amount = amount + 1",
            "UPDATE transactions_transactionledger SET balance_after = 999",
            "UPDATE transactions_transactionledger SET created_at = now()",
            "DELETE FROM transactions_transactionledger",
            "TRUNCATE transactions_transactionledger",
            "TRUNCATE transactions_transaction CASCADE",
            "TRUNCATE wallet_wallet CASCADE",
            "DELETE FROM transactions_transaction",
            "DELETE FROM wallet_wallet",
            "DELETE FROM fintech_core_idempotencyrecord",
            "DELETE FROM transactions_staffrefund",
            "DELETE FROM django_admin_log",
            "UPDATE django_admin_log SET change_message = ''",
            "ALTER TABLE transactions_transactionledger DISABLE TRIGGER ALL",
            "DROP TRIGGER transactions_ledger_no_change ON transactions_transactionledger",
            "SET session_replication_role = replica",
            "DROP FUNCTION transactions_append_only() CASCADE",
            "CREATE OR REPLACE FUNCTION transactions_append_only() RETURNS trigger "
            "LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$",
            "ALTER TABLE wallet_wallet DROP CONSTRAINT wallet_wallet_balance_not_negative",
        ],
    )
    def test_given_the_serving_role_when_it_tries_then_refused(self, statement):
        person("10.00")
        with pytest.raises((ProgrammingError, IntegrityError, DatabaseError)):
            run(statement)
        assert breaches() == []

    @pytest.mark.parametrize(
        ("statement", "rule"),
        [
            ("UPDATE transactions_transactionledger SET amount = 1", "transactionledger"),
            ("DELETE FROM transactions_transactionledger", "transactionledger"),
            ("TRUNCATE transactions_transactionledger CASCADE", "transactionledger"),
            ("DELETE FROM transactions_transaction", "transaction"),
        ],
    )
    def test_given_the_owner_when_it_tries_then_a_trigger_refuses(self, owner, statement, rule):
        person("10.00")
        with pytest.raises(Exception, match="is history") as refusal:
            owner.execute(statement)
        assert refusal.value.diag.constraint_name == f"transactions_{rule}_is_append_only"

    @pytest.mark.parametrize(
        ("change", "rule"),
        [
            ("amount = 1", "is_frozen"),
            ("currency = 'EUR'", "is_frozen"),
            ("description = 'x'", "is_frozen"),
            ("to_user_id = NULL", "is_frozen"),
            ("created_at = now()", "is_frozen"),
            ("posted_in = pg_current_xact_id()", "is_frozen"),
            ('metadata = \'{"a": "b"}\'', "is_frozen"),
            ("status = 'pending'", "status_forward"),
            ("completed_at = now() + interval '1 day'", "status_forward"),
        ],
    )
    def test_given_a_transaction_when_rewriting_it_then_refused(self, change, rule):
        person("10.00")
        with refused_by(f"transactions_transaction_{rule}"):
            run(f"UPDATE transactions_transaction SET {change}")

    def test_given_a_number_in_metadata_when_spelling_it_anew_then_refused(self):
        """Equal as JSON, but not in the text that the seal covers."""
        wallet = person().wallet
        TransactionService.add_money(
            wallet_id=wallet.pk,
            amount=Decimal("10.00"),
            currency="USD",
            effect_key="gateway:1",
            metadata={"rate": 1.5},
        )
        with refused_by("transactions_transaction_is_frozen"):
            run("UPDATE transactions_transaction SET metadata = '{\"rate\": 1.500}'")
        assert breaches() == []

    def test_given_refunds_when_moving_them_down_or_above_the_amount_then_refused(self):
        alice, bob = person("10.00"), person()
        refund(bob, send(alice, bob, "10.00").content["id"], "4.00")
        with refused_by("transactions_transaction_refunds_upward"):
            run("UPDATE transactions_transaction SET refunded_amount = 3.99 WHERE type='transfer'")
        with refused_by("transactions_transaction_refunds_within_amount"):
            run("UPDATE transactions_transaction SET refunded_amount = 10.01 WHERE type='transfer'")


@pytest.mark.django_db(transaction=True)
class TestWalletAgreesWithItsLedger:
    @pytest.mark.parametrize(
        "change",
        ["balance = balance + 1", "entry_count = entry_count + 1", "last_entry_at = now()"],
    )
    def test_given_a_wallet_when_changing_it_by_hand_then_refused(self, change):
        person("10.00")
        with refused_by("wallet_wallet_balance_is_its_ledgers"):
            run(f"UPDATE wallet_wallet SET {change} WHERE balance = 10")

    def test_given_the_owner_when_changing_a_balance_by_hand_then_refused(self, owner):
        person("10.00")
        with pytest.raises(Exception, match="its ledger says"):
            owner.execute("UPDATE wallet_wallet SET balance = 1000 WHERE balance = 10")

    def test_given_entries_when_the_wallet_is_not_changed_then_refused(self):
        forgery = Forgery(person("10.00"))
        with refused_by("wallet_wallet_balance_is_its_ledgers"), transaction.atomic():
            forgery.transaction()
            forgery.outside()
            forgery.inside()

    @pytest.mark.parametrize(
        ("changes", "rule"),
        [
            ({"sequence": 3}, "transactions_ledger_numbered_without_gaps"),
            ({"sequence": 0}, "transactions_ledger_numbered_without_gaps"),
            ({"sequence": -1}, "transactions_ledger_numbered_without_gaps"),
            ({"balance_after": "15.01"}, "transactions_ledger_running_balance"),
            ({"balance_after": "5.00"}, "transactions_ledger_running_balance"),
            ({"currency": "EUR"}, "transactions_ledger_agrees_with_transaction"),
            ({"sequence": 1, "balance_after": "5.00"}, "transactions_ledger_one_number_per_wallet"),
            ({"account": "fees"}, "transactions_ledger_wallet_entries_are_numbered"),
            ({"account": "casino"}, "transactions_ledger_account_known"),
            (
                {"entry_type": "gift", "balance_after": "5.00"},
                "transactions_ledger_entry_type_known",
            ),
            ({"amount": "NaN", "balance_after": "NaN"}, "transactions_ledger_amount_positive"),
            ({"amount": "0", "balance_after": "10.00"}, "transactions_ledger_amount_positive"),
            ({"amount": "-5", "balance_after": "5.00"}, "transactions_ledger_amount_positive"),
        ],
    )
    def test_given_an_entry_that_does_not_follow_when_inserting_then_refused(self, changes, rule):
        forgery = Forgery(person("10.00"))
        with refused_by(rule), transaction.atomic():
            forgery.transaction()
            forgery.inside(**changes)

    def test_given_a_wallet_in_another_currency_when_inserting_an_entry_then_refused(self, owner):
        bob = person()
        owner.execute("ALTER TABLE wallet_wallet DISABLE TRIGGER wallet_wallet_guard")
        owner.execute(
            "UPDATE wallet_wallet SET currency = 'EUR' WHERE id = %s", [str(bob.wallet.pk)]
        )
        owner.execute("ALTER TABLE wallet_wallet ENABLE TRIGGER wallet_wallet_guard")
        forgery = Forgery(bob)
        with refused_by("transactions_ledger_currency_is_the_wallets"), transaction.atomic():
            forgery.transaction()
            forgery.inside()

    @pytest.mark.parametrize("value", ["'NaN'", "-0.01", "1e13"])
    def test_given_no_proper_number_when_writing_it_then_refused(self, value):
        person("10.00")
        for column in ("balance", "held"):
            with pytest.raises(DatabaseError):
                run(f"UPDATE wallet_wallet SET {column} = {value} WHERE balance = 10")

    def test_given_a_hold_above_the_balance_when_writing_it_then_refused(self):
        person("10.00")
        with refused_by("wallet_wallet_held_within_balance"):
            run("UPDATE wallet_wallet SET held = 10.01 WHERE balance = 10")

    @pytest.mark.parametrize(
        ("change", "rule"),
        [
            ("currency = 'EUR'", "wallet_wallet_identity_is_frozen"),
            ("created_at = now()", "wallet_wallet_identity_is_frozen"),
            ("status = 'closed'", "wallet_wallet_closed_is_empty"),
            ("status = 'lost'", "wallet_wallet_status_known"),
        ],
    )
    def test_given_a_wallet_when_changing_what_is_fixed_then_refused(self, change, rule):
        person("10.00")
        with refused_by(rule):
            run(f"UPDATE wallet_wallet SET {change} WHERE balance = 10")

    def test_given_a_closed_wallet_when_reopening_it_then_refused(self):
        close(person())
        with refused_by("wallet_wallet_closed_is_final"):
            run("UPDATE wallet_wallet SET status = 'active' WHERE status = 'closed'")

    def test_given_a_temporary_table_of_the_same_name_when_forging_then_still_refused(self):
        forgery = Forgery(person("10.00"))
        with refused_by("transactions_transaction_balances"), transaction.atomic():
            run(
                "CREATE TEMPORARY TABLE transactions_transactionledger "
                "(LIKE public.wallet_wallet) ON COMMIT DROP"
            )
            forgery.transaction()


@pytest.mark.django_db(transaction=True)
class TestDeposits:
    def test_given_one_cause_when_adding_money_twice_then_it_is_credited_once(self):
        alice = person()
        facts = {"wallet_id": alice.wallet.pk, "amount": Decimal("5.00"), "currency": "USD"}
        first = TransactionService.add_money(**facts, effect_key="gateway:1")
        again = TransactionService.add_money(**facts, effect_key="gateway:1")
        assert first.pk == again.pk
        assert balance(alice) == Decimal("5.00")

    def test_given_a_frozen_wallet_when_money_arrives_then_it_is_credited(self):
        alice = person()
        freeze(alice)
        fund(alice, "5.00")
        assert balance(alice) == Decimal("5.00")

    def test_given_a_closed_wallet_when_money_arrives_then_refused(self):
        alice = person()
        close(alice)
        with pytest.raises(WalletClosed):
            fund(alice, "5.00")

    def test_given_the_same_cause_in_raw_sql_when_inserting_then_refused(self):
        person("1.00")
        with refused_by("transactions_transaction_one_effect_per_cause"):
            run(
                "INSERT INTO transactions_transaction (id, reference_id, type, status, amount, "
                "currency, fee, refunded_amount, description, metadata, created_at, completed_at, "
                "effect_key) SELECT gen_random_uuid(), 'other', type, status, amount, currency, "
                "fee, 0, '', '{}', now(), now(), effect_key FROM transactions_transaction"
            )


def tamper(owner, *statements: str) -> None:
    """As a superuser with every trigger off: what the database can no longer refuse."""
    owner.execute("SET session_replication_role = replica")
    for statement in statements:
        owner.execute(statement)
    owner.execute("SET session_replication_role = origin")


@pytest.mark.django_db(transaction=True)
class TestVerifyLedger:
    @pytest.mark.parametrize(
        ("statement", "named"),
        [
            ("UPDATE transactions_transactionledger SET amount = 41 WHERE sequence = 2", 1),
            ("UPDATE transactions_transaction SET amount = 41 WHERE type = 'transfer'", 2),
            ("DELETE FROM transactions_transactionledger WHERE sequence = 1", 3),
            ("DELETE FROM transactions_transactionledger WHERE sequence = 2", 3),
            ("UPDATE wallet_wallet SET balance = balance + 1 WHERE balance > 0", 3),
            ("UPDATE wallet_wallet SET held = 1 WHERE balance > 1", 4),
            ("UPDATE transactions_transactionledger SET currency = 'EUR' WHERE sequence = 2", 6),
            ("DELETE FROM transactions_transaction WHERE type = 'transfer'", 2),
            ("UPDATE transactions_transaction SET to_user_id = NULL WHERE type = 'transfer'", 2),
            ("UPDATE transactions_transactionledger SET sequence = 0 WHERE sequence = 1", 3),
            ("UPDATE wallet_wallet SET last_entry_at = NULL", 3),
            ("UPDATE transactions_transactionledger SET created_at = now()", 2),
            ("UPDATE transactions_transaction SET refunded_amount = 1 WHERE amount = 40", 4),
            (f"UPDATE transactions_transaction SET from_user_id = '{NIL}' WHERE amount = 100", 2),
            (f"UPDATE transactions_transaction SET id = '{NIL}' WHERE amount = 40", 1),
        ],
    )
    def test_given_a_superuser_who_tampers_when_verifying_then_it_is_named(
        self, owner, statement, named
    ):
        alice, bob = person("100.00"), person()
        send(alice, bob, "40.00")
        send(bob, alice, "10.00")
        assert breaches() == []
        tamper(owner, statement)
        assert named in {breach.invariant for breach in breaches()}

    def test_given_a_disabled_trigger_when_verifying_then_it_is_named(self, owner):
        owner.execute("ALTER TABLE transactions_transaction DISABLE TRIGGER USER")
        try:
            subjects = {breach.subject for breach in breaches()}
        finally:
            owner.execute("ALTER TABLE transactions_transaction ENABLE TRIGGER USER")
        assert "trigger transactions_transaction_seal" in subjects
        assert "trigger transactions_transaction_guard" in subjects

    def test_given_sound_books_when_running_the_command_then_it_says_so(self, capsys):
        send(person("5.00"), person(), "1.00")
        call_command("verify_ledger", "--no-progress")
        assert "The ledger is sound" in capsys.readouterr().out

    def test_given_a_breach_when_running_the_command_then_it_names_it_and_fails(
        self, owner, capsys
    ):
        alice = person("5.00")
        tamper(owner, "UPDATE wallet_wallet SET balance = 6 WHERE balance = 5")
        with pytest.raises(CommandError) as failure:
            call_command("verify_ledger", "--no-progress")
        assert failure.value.returncode == 1
        assert f"wallet {alice.wallet.pk}" in capsys.readouterr().err
