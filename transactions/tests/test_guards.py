"""Whatever the migrations put up to guard the books, `verify_ledger` misses when it is gone."""

import pytest
from django.db import connection

from transactions.tests.helpers import breaches
from transactions.verification import guards
from transactions.verification.declared import declared

pytestmark = pytest.mark.django_db(transaction=True)

OURS = "n.nspname = 'public' AND relname ~ '^(fintech_core|users|wallet|transactions|payments)_'"
TABLES = f"pg_class c JOIN pg_namespace n ON n.oid = relnamespace AND {OURS}"


def names(owner, statement):
    owner.execute(statement)
    return {row[0] for row in owner.fetchall()}


def test_given_the_migrations_when_compared_then_verify_ledger_knows_each_trigger(owner):
    made = names(
        owner,
        f"SELECT tgname FROM pg_trigger JOIN {TABLES} ON c.oid = tgrelid WHERE NOT tgisinternal",
    )
    assert made == set(guards.TRIGGERS)


def test_given_the_migrations_when_compared_then_verify_ledger_knows_each_constraint(owner):
    made = names(
        owner,
        f"SELECT conname FROM pg_constraint JOIN {TABLES} ON c.oid = conrelid"
        " WHERE contype IN ('c', 'x')",
    )
    assert made <= set(guards.constraints())


def test_given_the_migrations_when_compared_then_verify_ledger_knows_each_key(owner):
    owner.execute(
        "SELECT indrelid::regclass::text, indexrelid::regclass::text, array_agg(attname::text)"
        "  FROM pg_index CROSS JOIN LATERAL unnest(indkey) key (number)"
        "  JOIN pg_attribute ON attrelid = indrelid AND attnum = key.number"
        f" JOIN {TABLES} ON c.oid = indrelid WHERE indisunique"
        "  GROUP BY indexrelid, indrelid"
    )
    named, by_columns = set(guards.constraints()), set(guards.unique_columns())
    unknown = [
        index
        for table, index, columns in owner.fetchall()
        if index not in named and guards.key_text(table, columns) not in by_columns
    ]
    assert unknown == []


@pytest.mark.parametrize(
    ("loosen", "mend", "named"),
    [
        (
            "ALTER TABLE transactions_transferbatch DISABLE TRIGGER"
            " transactions_transferbatch_is_whole",
            "ALTER TABLE transactions_transferbatch ENABLE TRIGGER"
            " transactions_transferbatch_is_whole",
            "invariant 5: trigger transactions_transferbatch_is_whole: missing or disabled",
        ),
        (
            "ALTER TABLE wallet_walletstep DISABLE TRIGGER wallet_walletstep_follows",
            "ALTER TABLE wallet_walletstep ENABLE TRIGGER wallet_walletstep_follows",
            "beside the ledger: trigger wallet_walletstep_follows: missing or disabled",
        ),
        (
            "ALTER TABLE payments_paymentintent DISABLE TRIGGER payments_intent_credit_fits",
            "ALTER TABLE payments_paymentintent ENABLE TRIGGER payments_intent_credit_fits",
            "invariant 5: trigger payments_intent_credit_fits: missing or disabled",
        ),
        (
            "ALTER TABLE transactions_transaction DISABLE TRIGGER ALL",
            "ALTER TABLE transactions_transaction ENABLE TRIGGER ALL",
            "invariant 2: table transactions_transaction: its foreign keys are switched off",
        ),
        (
            "ALTER TABLE transactions_transferbatchleg DROP CONSTRAINT"
            " transactions_transferbatchleg_moved_or_refused",
            "ALTER TABLE transactions_transferbatchleg ADD CONSTRAINT"
            " transactions_transferbatchleg_moved_or_refused CHECK"
            " ((transaction_id IS NULL) = (error_code > ''))",
            "invariant 4: constraint transactions_transferbatchleg_moved_or_refused:"
            " missing or not validated",
        ),
        (
            "ALTER TABLE wallet_debitbucket DROP CONSTRAINT wallet_debitbucket_begins_on_the_hour",
            "ALTER TABLE wallet_debitbucket ADD CONSTRAINT wallet_debitbucket_begins_on_the_hour"
            " CHECK (hour = date_trunc('hour', hour, 'UTC'))",
            "beside the ledger: constraint wallet_debitbucket_begins_on_the_hour:"
            " missing or not validated",
        ),
        (
            "ALTER TABLE transactions_hold DROP CONSTRAINT transactions_hold_transaction_id_key",
            "ALTER TABLE transactions_hold ADD CONSTRAINT transactions_hold_transaction_id_key"
            " UNIQUE (transaction_id)",
            "invariant 4: key transactions_hold(transaction_id): not unique",
        ),
        (
            # In this database alone: a role is everybody's on the server.
            "ALTER ROLE {serving} IN DATABASE {name} SET session_replication_role = replica",
            "ALTER ROLE {serving} IN DATABASE {name} RESET session_replication_role",
            "invariant 2: role {serving}: its sessions run no triggers",
        ),
    ],
)
def test_given_a_guard_that_is_gone_when_verifying_then_it_is_named(
    owner, settings, loosen, mend, named
):
    serving, name = settings.DATABASES["default"]["USER"], settings.DATABASES["default"]["NAME"]
    assert breaches() == []
    owner.execute(loosen.format(serving=serving, name=name))
    connection.close()  # a role's settings are those of its next session
    try:
        found = [str(breach) for breach in breaches()]
    finally:
        owner.execute(mend.format(serving=serving, name=name))
        connection.close()
    assert named.format(serving=serving, name=name) in found
    assert breaches() == []


@pytest.fixture
def as_made(owner):
    """The functions and triggers of the ledger as they were, whatever a test does to them."""
    owner.execute(
        "SELECT pg_get_functiondef('transactions_append_only'::regproc),"
        " pg_get_functiondef('transactions_transaction_seal'::regproc),"
        " pg_get_triggerdef(oid) FROM pg_trigger WHERE tgname = 'transactions_ledger_no_change'"
    )
    [(append_only, seal, trigger)] = owner.fetchall()
    yield
    owner.execute(append_only)
    owner.execute(seal)
    owner.execute("DROP TABLE IF EXISTS elsewhere")
    owner.execute(
        "DROP TRIGGER IF EXISTS transactions_ledger_no_change ON transactions_transactionledger"
    )
    owner.execute(trigger)
    assert breaches() == []


NO_CHANGE = "TRIGGER transactions_ledger_no_change"
ON_LEDGER = "ON transactions_transactionledger FOR EACH ROW"


@pytest.mark.usefixtures("as_made")
class TestSameNames:
    """A guard's name is still there; what it stood for is not."""

    def test_given_a_function_that_refuses_nothing_when_verifying_then_it_is_named(self, owner):
        owner.execute(
            "CREATE OR REPLACE FUNCTION transactions_append_only() RETURNS trigger"
            " LANGUAGE plpgsql AS $$ BEGIN RETURN coalesce(NEW, OLD); END $$"
        )
        detail = "function transactions_append_only: is not what the migrations made"
        assert [str(breach) for breach in breaches()] == [f"invariant 2: {detail}"]

    @pytest.mark.parametrize(
        "change",
        [
            "RESET search_path",
            "SET search_path = pg_temp, public",
            "SET row_security = off",
            "RESET enable_seqscan",
            "SET enable_seqscan = on",
            "SECURITY INVOKER",
            "STRICT",
        ],
    )
    def test_given_a_function_in_other_surroundings_when_verifying_then_it_is_named(
        self, owner, change
    ):
        owner.execute(f"ALTER FUNCTION transactions_transaction_seal() {change}")
        detail = "function transactions_transaction_seal: is not what the migrations made"
        assert [str(breach) for breach in breaches()] == [f"invariant 7: {detail}"]

    @pytest.mark.parametrize(
        "instead",
        [
            f"CREATE {NO_CHANGE} BEFORE UPDATE OR DELETE ON elsewhere FOR EACH ROW"
            " EXECUTE FUNCTION transactions_append_only()",
            f"CREATE {NO_CHANGE} BEFORE UPDATE {ON_LEDGER}"
            " EXECUTE FUNCTION transactions_append_only()",
            f"CREATE {NO_CHANGE} AFTER UPDATE OR DELETE {ON_LEDGER}"
            " EXECUTE FUNCTION transactions_append_only()",
            f"CREATE {NO_CHANGE} BEFORE UPDATE OR DELETE {ON_LEDGER} WHEN (false)"
            " EXECUTE FUNCTION transactions_append_only()",
            f"CREATE {NO_CHANGE} BEFORE UPDATE OR DELETE {ON_LEDGER}"
            " EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        ],
    )
    def test_given_another_trigger_of_its_name_when_verifying_then_it_is_named(
        self, owner, instead
    ):
        owner.execute("CREATE TABLE elsewhere (id int)")
        owner.execute(f"DROP {NO_CHANGE} ON transactions_transactionledger")
        owner.execute(instead)
        detail = "trigger transactions_ledger_no_change: is not what the migrations made"
        assert [str(breach) for breach in breaches()] == [f"invariant 2: {detail}"]

    def test_given_the_migrations_when_read_then_they_declare_each_trigger(self):
        assert set(declared().triggers) == set(guards.TRIGGERS)
        assert {one.function for one in declared().triggers.values()} <= set(declared().functions)


def test_given_a_foreign_key_that_is_gone_when_verifying_then_it_is_named(owner):
    owner.execute(
        "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE contype = 'f' AND"
        " conrelid = 'transactions_hold'::regclass"
        " AND confrelid = 'transactions_transaction'::regclass"
    )
    [(name, definition)] = owner.fetchall()
    owner.execute(f"ALTER TABLE transactions_hold DROP CONSTRAINT {name}")
    try:
        found = [str(breach) for breach in breaches()]
    finally:
        owner.execute(f"ALTER TABLE transactions_hold ADD CONSTRAINT {name} {definition}")
    assert found == ["invariant 4: column transactions_hold(transaction_id): refers to nothing"]
