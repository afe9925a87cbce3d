"""What holds the invariants up. A missing or disabled trigger or constraint is itself a breach.

What the models declare is read from them, of whichever app: a new constraint is guarded as soon as
it is declared. What only a migration's SQL says has to be named here.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from django.apps import apps
from django.db import connection
from django.db.models import Field, Model

from fintech_core import roles
from fintech_core.database import query
from transactions.verification.declared import Function, Trigger, declared
from transactions.verification.findings import Breach, Step

Guarded = dict[str, int | None]  # the name of what guards, and the invariant that falls without it

BESIDE_THE_LEDGER: Guarded = dict.fromkeys(
    [
        "payments_run_guard",
        "payments_run_no_delete",
        "payments_run_no_truncate",
        "payments_break_begins",
        "payments_break_guard",
        "payments_break_no_delete",
        "payments_break_no_truncate",
        "users_kycdocumentaccess_refuse_change",
        "users_kycdocumentaccess_refuse_truncate",
        "users_kycstep_check_chain",
        "users_kycstep_refuse_change",
        "users_kycstep_refuse_truncate",
        "users_kycstep_status_is_recorded",
        "users_kycsubmission_refuse_change",
        "users_kycsubmission_refuse_truncate",
        "users_user_check_step",
        "users_user_count_deactivation",
        "users_user_end_sessions",
        "users_user_kyc_status_is_recorded",
        "wallet_limitoverride_fits",
        "wallet_limitoverride_no_change",
        "wallet_limitoverride_no_truncate",
        "wallet_limitoverride_reaches_the_wallet",
        "wallet_wallet_records_agree",
        "wallet_walletstep_fits",
        "wallet_walletstep_follows",
        "wallet_walletstep_no_change",
        "wallet_walletstep_no_truncate",
        "wallet_walletstep_reaches_the_wallet",
        "wallet_debitbucket_guard",
        "payments_sandbox_order_guard",
        "payments_sandbox_order_no_delete",
        "payments_sandbox_order_no_truncate",
        "fintech_core_webhookendpoint_begins",
        "fintech_core_webhookendpoint_guard",
        "fintech_core_outgoingevent_no_change",
        "fintech_core_webhookdelivery_may_be_heard",
        "fintech_core_webhookdelivery_guard",
    ]
)
TRIGGERS: Guarded = {
    "transactions_transaction_stamp": 1,
    "transactions_ledger_no_change": 2,
    "transactions_ledger_no_truncate": 2,
    "transactions_transaction_no_delete": 2,
    "transactions_transaction_no_truncate": 2,
    "transactions_transaction_guard": 2,
    "transactions_staffrefund_no_change": 2,
    "transactions_staffrefund_no_truncate": 2,
    "transactions_transferbatch_no_change": 2,
    "transactions_transferbatch_no_truncate": 2,
    "transactions_transferbatchleg_no_change": 2,
    "transactions_transferbatchleg_no_truncate": 2,
    "wallet_wallet_balance_is_its_ledgers": 3,
    "transactions_ledger_entry_fits": 3,
    "wallet_wallet_no_delete": 3,
    "wallet_wallet_no_truncate": 3,
    "wallet_wallet_held_is_its_holds": 4,
    "transactions_hold_reaches_the_wallet": 4,
    "transactions_hold_leaves_the_wallet": 4,
    "transactions_hold_begins": 4,
    "transactions_hold_is_dated": 4,
    "fintech_core_idempotency_guard": 5,
    "fintech_core_idempotency_no_delete": 5,
    "fintech_core_idempotency_no_truncate": 5,
    "payments_intent_begins": 5,
    "payments_intent_credit_fits": 5,
    "payments_intent_guard": 5,
    "payments_intent_no_delete": 5,
    "payments_intent_no_truncate": 5,
    "payments_event_guard": 5,
    "payments_event_no_delete": 5,
    "payments_event_no_truncate": 5,
    "wallet_wallet_closes_when_refunded": 5,
    "payments_refund_begins": 5,
    "payments_refund_guard": 5,
    "payments_refund_no_delete": 5,
    "payments_refund_no_truncate": 5,
    "transactions_transaction_refund_is_ordered": 5,
    "transactions_transaction_refund_has_failed": 5,
    "transactions_transaction_refund_reaches_the_gateway": 5,
    "transactions_transaction_refund_comes_back": 5,
    "transactions_hold_guard": 5,
    "transactions_hold_no_delete": 5,
    "transactions_hold_no_truncate": 5,
    "transactions_transaction_capture_has_its_hold": 5,
    "transactions_transaction_refund_fits": 5,
    "transactions_transaction_refunds_are_its_children": 5,
    "transactions_transaction_refund_reaches_its_parent": 5,
    "transactions_adjustment_begins": 5,
    "transactions_adjustment_stamp": 5,
    "transactions_adjustment_guard": 5,
    "transactions_adjustment_no_delete": 5,
    "transactions_adjustment_no_truncate": 5,
    "transactions_transaction_adjustment_is_approved": 5,
    "transactions_ledger_adjustment_is_approved": 5,
    "transactions_staffrefund_fits": 5,
    "transactions_transferbatch_is_whole": 5,
    "transactions_transferbatchleg_fits": 5,
    "transactions_transaction_undoes_its_parent": 5,
    "transactions_transaction_withdrawal_fits": 5,
    "transactions_transaction_withdrawal_has_its_payout": 5,
    "transactions_transaction_withdrawal_settles": 5,
    "transactions_transaction_withdrawal_undone": 5,
    "wallet_wallet_closes_when_settled": 5,
    "payments_payout_begins": 5,
    "payments_payout_guard": 5,
    "payments_payout_no_delete": 5,
    "payments_payout_no_truncate": 5,
    "payments_suspense_begins": 5,
    "payments_suspense_guard": 5,
    "payments_suspense_no_delete": 5,
    "payments_suspense_no_truncate": 5,
    "wallet_wallet_guard": 6,
    "transactions_transaction_seal": 7,
    "transactions_ledgerseal_no_change": 7,
    "transactions_ledgerseal_no_truncate": 7,
    "transactions_outsideseal_no_change": 7,
    "transactions_outsideseal_no_truncate": 7,
    "transactions_ledgercheckpoint_no_change": 7,
    "transactions_ledgercheckpoint_no_truncate": 7,
    "transactions_checkpointleaf_no_change": 7,
    "transactions_checkpointleaf_no_truncate": 7,
    "transactions_checkpointleaf_fits": 7,
    "transactions_checkpointleaf_is_signed": 7,
    "transactions_checkpointnode_fits": 7,
    "transactions_ledgercheckpoint_fits": 7,
    **BESIDE_THE_LEDGER,
}
# Those that no model declares.
CONSTRAINTS: Guarded = {
    "transactions_ledgerseal_continues_the_chain": 7,
    "transactions_ledgerseal_is_a_wallets": 7,
    "transactions_ledgerseal_numbered_from_one": 7,
    "transactions_outsideseal_continues_the_chain": 7,
    "transactions_outsideseal_numbered_from_one": 7,
    "transactions_ledgercheckpoint_hashes_are_whole": 7,
    "transactions_ledgercheckpoint_numbered_from_one": 7,
    "transactions_checkpointleaf_counts_from_one": 7,
    "transactions_checkpointleaf_has_its_seal": 7,
    "transactions_transaction_has_a_moment": 7,
    "transactions_ledger_has_a_moment": 7,
    "wallet_debitbucket_begins_on_the_hour": None,
    "payments_payout_destination_is_encrypted": None,
    "fintech_core_webhookendpoint_listens": None,
    "fintech_core_webhookendpoint_secret_is_encrypted": None,
}
# What a declared constraint is about, by app.
_APPS: Guarded = {
    "fintech_core": 5,
    "users": None,
    "wallet": 4,
    "transactions": 4,
    "payments": 5,
}

_TRIGGERS_ON = """
SELECT tgname FROM pg_trigger WHERE tgenabled IN ('O', 'A') AND NOT tgisinternal
"""
_TRIGGERS_AS_THEY_ARE = """
SELECT tgname, tgrelid::regclass::text, tgfoid::regproc::text, tgtype, tgqual IS NOT NULL
  FROM pg_trigger WHERE tgenabled IN ('O', 'A') AND NOT tgisinternal
"""
_FUNCTIONS = """
SELECT proname, prosrc, coalesce(proconfig, '{}'), prosecdef, proisstrict
  FROM pg_proc
 WHERE pronamespace = 'public'::regnamespace AND proname = ANY(%(names)s)
"""
_REFERENCES_OFF = """
SELECT DISTINCT tgrelid::regclass::text FROM pg_trigger WHERE tgenabled = 'D' AND tgisinternal
"""
_VALID = """
SELECT conname FROM pg_constraint WHERE convalidated
 UNION ALL
SELECT indexrelid::regclass::text FROM pg_index WHERE indisvalid AND indisunique
"""
_UNIQUE = """
SELECT indrelid::regclass::text, array_agg(attname::text)
  FROM pg_index
 CROSS JOIN LATERAL unnest(indkey) WITH ORDINALITY AS key (number, position)
  JOIN pg_attribute ON attrelid = indrelid AND attnum = key.number
 WHERE indisunique AND indisvalid AND indpred IS NULL AND key.position <= indnkeyatts
 GROUP BY indexrelid, indrelid
"""
_REFERENCES = """
SELECT conrelid::regclass::text, attname
  FROM pg_constraint JOIN pg_attribute ON attrelid = conrelid AND attnum = conkey[1]
 WHERE contype = 'f' AND convalidated AND cardinality(conkey) = 1
"""


def check() -> Iterator[Step]:
    yield Step(
        0,
        [
            *_missing("trigger", TRIGGERS, _names(_TRIGGERS_ON), "missing or disabled"),
            *_misplaced(),
            *_rewritten(),
            *_missing("constraint", constraints(), _names(_VALID), "missing or not validated"),
            *_missing("key", unique_columns(), _unique_found(), "not unique"),
            *_missing("column", references(), _references_found(), "refers to nothing"),
            *_switched_off(),
            *_excessive_rights(),
        ],
    )


def _misplaced() -> Iterator[Breach]:
    """A name is there, but on another table, for other events, on a condition, or to no effect."""
    found = query(_TRIGGERS_AS_THEY_ARE)
    names = {row[0] for row in found}
    there = {(name, Trigger(*facts)) for name, *facts in found}
    for name, trigger in declared().triggers.items():
        if name in names and (name, trigger) not in there:
            yield Breach(TRIGGERS.get(name), f"trigger {name}", "is not what the migrations made")


def _rewritten() -> Iterator[Breach]:
    """A function that triggers or postings call, and that does something else by now."""
    wanted = declared().functions
    found: dict[str, list[Function]] = {}
    for name, body, settings, *facts in query(_FUNCTIONS, names=list(wanted)):
        found.setdefault(name, []).append(Function(body, frozenset(settings), *facts))
    for name, function in wanted.items():
        if found.get(name) != [function]:
            detail = "is not what the migrations made"
            yield Breach(_invariant_of(name), f"function {name}", detail)


def _invariant_of(function: str) -> int | None:
    """The first that falls without it; one that no trigger calls by itself may hold up any."""
    called_by = [name for name, one in declared().triggers.items() if one.function == function]
    found = {TRIGGERS.get(name) for name in called_by}
    numbered = [invariant for invariant in found if invariant is not None]
    return min(numbered, default=None if found else 1)


def constraints() -> Guarded:
    """The names of all constraints: those that models declare, and those that migrations add."""
    declared = {
        name: invariant
        for model, invariant in _models()
        for name in [
            *(constraint.name for constraint in model._meta.constraints),
            *(
                f"{model._meta.db_table}_{field.column}_check"  # PostgreSQL's name for a column's
                for field in _columns(model)
                if field.db_parameters(connection)["check"]
            ),
        ]
    }
    return declared | CONSTRAINTS


def unique_columns() -> Guarded:
    """`table(column, …)` of each key and each unique column; Django makes up their names."""
    return {
        key_text(model._meta.db_table, columns): invariant
        for model, invariant in _models()
        for columns in [
            [str(field.column) for field in model._meta.pk_fields],
            *([str(field.column)] for field in _columns(model) if field.unique),
            *(_columns_of(model, names) for names in model._meta.unique_together),
        ]
    }


def references() -> Guarded:
    """`table(column)` of each foreign key that PostgreSQL enforces."""
    return {
        key_text(model._meta.db_table, [str(field.column)]): invariant
        for model, invariant in _models()
        for field in _columns(model)
        if field.remote_field and getattr(field, "db_constraint", False)
    }


def _models() -> Iterator[tuple[type[Model], int | None]]:
    for label, invariant in _APPS.items():
        for model in apps.get_app_config(label).get_models(include_auto_created=True):
            yield model, invariant


def _columns(model: type[Model]) -> Iterable["Field[Any, Any]"]:
    return model._meta.local_concrete_fields


def _columns_of(model: type[Model], names: Iterable[str]) -> list[str]:
    return [str(field.column) for field in _columns(model) if field.name in names]


def key_text(table: str, columns: Iterable[str]) -> str:
    """One spelling, whatever the order of the columns."""
    return f"{table}({', '.join(sorted(columns))})"


def _names(statement: str) -> set[str]:
    return {row[0] for row in query(statement)}


def _unique_found() -> set[str]:
    return {key_text(table, columns) for table, columns in query(_UNIQUE)}


def _references_found() -> set[str]:
    return {key_text(table, [column]) for table, column in query(_REFERENCES)}


def _missing(kind: str, wanted: Guarded, found: set[str], detail: str) -> Iterator[Breach]:
    for name, invariant in wanted.items():
        if name not in found:
            yield Breach(invariant, f"{kind} {name}", detail)


def _switched_off() -> Iterator[Breach]:
    """Triggers that are there, and do not run."""
    for table in sorted(_names(_REFERENCES_OFF)):
        yield Breach(2, f"table {table}", "its foreign keys are switched off")
    if query("SHOW session_replication_role") != [("origin",)]:
        name = connection.settings_dict["USER"]
        yield Breach(2, f"role {name}", "its sessions run no triggers")


def _excessive_rights() -> Iterator[Breach]:
    """The serving role must not be able to do what the triggers are there to refuse."""
    role = roles.serving_role()
    if role is None:
        return
    if query("SELECT 1 FROM pg_roles WHERE rolname = %(role)s AND rolsuper", role=role):
        yield Breach(2, f"role {role}", "is a superuser")
    yield from _rights(role, roles.APPEND_ONLY, "UPDATE, DELETE, TRUNCATE, TRIGGER")
    yield from _rights(role, roles.READ_ONLY, "INSERT, UPDATE, DELETE, TRUNCATE, TRIGGER")


def _rights(role: str, tables: Iterable[str], too_much: str) -> Iterator[Breach]:
    rights = "SELECT has_table_privilege(%(role)s, %(table)s, %(rights)s)"
    for table in sorted(tables):
        if query(rights, role=role, table=table, rights=too_much)[0][0]:
            yield Breach(2, f"role {role}", f"may rewrite {table}")
