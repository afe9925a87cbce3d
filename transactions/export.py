"""The ledger as JSON lines, for somebody who checks it without us; see `docs/ledger-proof.md`.

PostgreSQL writes the lines and hands them over a few at a time, all from one moment: memory stays
flat, and money moves on beside it.
"""

import base64
import json
from collections.abc import Iterator, Sequence
from typing import Any
from uuid import UUID

from django.db import connection, transaction

from fintech_core.database import database_time, execute, give_time, query
from transactions import checkpoints, signing
from transactions.checkpoints import Proof, moment_text
from wallet.models import Wallet

FORMAT = "fintech-core/ledger-export/1"


_MOMENT = """to_char({} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""

_CHECKPOINT = """json_build_object(
    'kind', 'checkpoint', 'number', number, 'payload', payload,
    'signature', replace(encode(signature, 'base64'), chr(10), ''),
    'key_id', key_id, 'public_key', encode(public_key, 'base64'))::text"""

_CHECKPOINTS = f"SELECT {_CHECKPOINT} FROM transactions_ledgercheckpoint ORDER BY number"  # noqa: S608

_CHECKPOINTS_AND_LEAVES = f"""
SELECT line FROM (
    SELECT number, 0 AS rank, {_CHECKPOINT} AS line FROM transactions_ledgercheckpoint
     UNION ALL
    SELECT number, 1, json_build_object(
               'kind', 'leaf', 'wallet_id', wallet_id, 'entry_count', entry_count,
               'seal', encode(seal, 'hex'))::text
      FROM transactions_checkpointleaf
) lines ORDER BY number, rank
"""  # noqa: S608

# Whatever is hashed is text, just as PostgreSQL hashed it; JSON's own numbers could lose a cent.
_TRANSACTION = f"""json_build_object(
    'kind', 'transaction',
    'id', made.id,
    'reference_id', made.reference_id,
    'type', made.type,
    'amount', made.amount::text,
    'currency', made.currency,
    'fee', made.fee::text,
    'from_user_id', made.from_user_id,
    'to_user_id', made.to_user_id,
    'parent_id', made.parent_id,
    'description', made.description,
    'metadata', made.metadata::text,
    'effect_key', made.effect_key,
    'created_at', {_MOMENT.format("made.created_at")},
    'status', made.status,
    'completed_at', {_MOMENT.format("made.completed_at")},
    'refunded_amount', made.refunded_amount::text,
    'entries', coalesce(books.entries, '[]'::json),
    'outside', (SELECT json_build_object('sequence', outside.sequence,
                                         'seal', encode(outside.seal, 'hex'))
                  FROM transactions_outsideseal outside
                 WHERE outside.transaction_id = made.id))::text"""  # noqa: S608

_BOOKS = f"""
  LEFT JOIN LATERAL (
    SELECT json_agg(json_build_object(
               'id', entry.id,
               'account', entry.account,
               'wallet_id', entry.wallet_id,
               'sequence', entry.sequence,
               'entry_type', entry.entry_type,
               'amount', entry.amount::text,
               'currency', entry.currency,
               'balance_after', entry.balance_after::text,
               'created_at', {_MOMENT.format("entry.created_at")},
               'seal', (SELECT encode(seal.seal, 'hex') FROM transactions_ledgerseal seal
                         WHERE seal.wallet_id = entry.wallet_id
                           AND seal.sequence = entry.sequence)
           ) ORDER BY entry.id) AS entries
      FROM transactions_transactionledger entry
     WHERE entry.transaction_id = made.id) books ON true
"""  # noqa: S608

_ALL_TRANSACTIONS = (
    f"SELECT {_TRANSACTION} FROM transactions_transaction made {_BOOKS} ORDER BY made.id"  # noqa: S608
)
_TRANSACTIONS_OF_ONE = f"""
SELECT {_TRANSACTION}
  FROM transactions_transactionledger mine
  JOIN transactions_transaction made ON made.id = mine.transaction_id {_BOOKS}
 WHERE mine.wallet_id = %(wallet)s
 ORDER BY mine.sequence
"""  # noqa: S608

_WALLET = """json_build_object(
    'kind', 'wallet', 'id', id, 'user_id', user_id, 'currency', currency, 'status', status,
    'balance', balance::text, 'held', held::text, 'entry_count', entry_count)::text"""
_WALLETS = f"SELECT {_WALLET} FROM wallet_wallet ORDER BY id"  # noqa: S608
_WALLET_OF_ONE = f"SELECT {_WALLET} FROM wallet_wallet WHERE id = %(wallet)s"  # noqa: S608


class NotInCheckpoint(Exception):
    """There is nothing to prove: no such checkpoint, or no entry of the wallet in it."""


def lines(wallet_id: UUID | None = None, proved_in: Sequence[int] = ()) -> Iterator[str]:
    """The whole ledger, or what concerns one wallet, with proofs of it in the newest checkpoint and
    in those numbered `proved_in`. Raises Wallet.DoesNotExist and NotInCheckpoint.
    """
    with transaction.atomic(durable=True):
        execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        give_time()
        execute("SET LOCAL idle_in_transaction_session_timeout = 0")
        count = 1
        for line in _body(wallet_id, proved_in):
            yield line
            count += 1
        yield json.dumps({"kind": "end", "lines": count})


def line_count() -> int:
    """About how many lines a whole export has; an estimate, for a progress bar."""
    tables = ["transactions_transaction", "transactions_checkpointleaf", "wallet_wallet"]
    rows = query(
        "SELECT coalesce(sum(greatest(reltuples, 0)), 0) FROM pg_class "
        "WHERE oid = ANY(%(tables)s::regclass[])",
        tables=tables,
    )
    return int(rows[0][0])


def _body(wallet_id: UUID | None, proved_in: Sequence[int]) -> Iterator[str]:
    if wallet_id is not None:
        Wallet.objects.only("pk").get(pk=wallet_id)
    yield _header(wallet_id)
    if wallet_id is None:
        yield from _stream(_CHECKPOINTS_AND_LEAVES)
        yield from _stream(_ALL_TRANSACTIONS)
        yield from _stream(_WALLETS)
    else:
        yield from _stream(_CHECKPOINTS)
        yield from _proofs(wallet_id, proved_in)
        yield from _stream(_TRANSACTIONS_OF_ONE, wallet=wallet_id)
        yield from _stream(_WALLET_OF_ONE, wallet=wallet_id)


def _header(wallet_id: UUID | None) -> str:
    keys = [
        {"key_id": signing.key_id(key), "public_key": base64.b64encode(key).decode()}
        for key in sorted(signing.own_public_keys())
    ]
    return json.dumps(
        {
            "kind": "header",
            "format": FORMAT,
            "exported_at": moment_text(database_time()),
            "wallet_id": str(wallet_id) if wallet_id else None,
            "public_keys": keys,
        }
    )


def _proofs(wallet_id: UUID, proved_in: Sequence[int]) -> Iterator[str]:
    """In the order of their checkpoints. None at all of a wallet that is in no checkpoint yet."""
    newest = checkpoints.prove(wallet_id)
    for number in sorted(set(proved_in) - {newest.checkpoint.number if newest else 0}):
        older = checkpoints.prove_in(number, wallet_id)
        if older is None:
            raise NotInCheckpoint(f"Checkpoint {number} has no entry of this wallet.")
        yield _proof(older)
    if newest:
        yield _proof(newest)


def _proof(proof: Proof) -> str:
    return json.dumps(
        {
            "kind": "proof",
            "number": proof.checkpoint.number,
            "wallet_id": str(proof.leaf.wallet_id),
            "entry_count": proof.leaf.entry_count,
            "seal": proof.leaf.seal.hex(),
            "siblings": [sibling.hex() for sibling in proof.siblings],
        }
    )


def _stream(statement: str, **parameters: Any) -> Iterator[str]:
    """One column of text, through a cursor on the server."""
    with connection.chunked_cursor() as cursor:
        cursor.execute(statement, parameters or None)
        for row in cursor:
            yield row[0]
