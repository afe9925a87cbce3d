"""Wallets against their newest entries, their holds and their seals."""

from collections.abc import Iterator

from fintech_core.database import query
from transactions.verification.findings import Rule, Step, breaches, select_broken
from transactions.verification.ranges import ranges

CHUNK = 20_000

_THE_WALLET = "concat('wallet ', wallet.id)"
_RULES = [
    Rule(
        3,
        "wallet.balance <> coalesce(newest.balance_after, 0)",
        "concat('balance ', wallet.balance, ', its newest entry says ',"
        " coalesce(newest.balance_after, 0))",
        _THE_WALLET,
    ),
    Rule(
        3,
        "wallet.entry_count <> coalesce(newest.sequence, 0)",
        "concat('counts ', wallet.entry_count, ' entries, its newest is number ',"
        " coalesce(newest.sequence, 0))",
        _THE_WALLET,
    ),
    Rule(
        3,
        "wallet.last_entry_at IS DISTINCT FROM newest.created_at",
        "'its time is not that of its newest entry'",
        _THE_WALLET,
    ),
    Rule(
        4,
        "NOT (wallet.held >= 0 AND wallet.held <= wallet.balance AND wallet.balance < 1e13)",
        "concat('balance ', wallet.balance, ', held ', wallet.held)",
        _THE_WALLET,
    ),
    Rule(
        4,
        "wallet.held <> reserved.amount",
        "concat('held ', wallet.held, ', its active holds reserve ', reserved.amount)",
        _THE_WALLET,
    ),
    Rule(
        7,
        "coalesce(sealed.sequence, 0) <> coalesce(newest.sequence, 0)",
        "concat('has ', coalesce(sealed.sequence, 0), ' seals and ',"
        " coalesce(newest.sequence, 0), ' entries')",
        _THE_WALLET,
    ),
]

_BROKEN = select_broken(
    _RULES,
    """
  FROM wallet_wallet wallet
  LEFT JOIN LATERAL (
       SELECT sequence, balance_after, created_at FROM transactions_transactionledger
        WHERE wallet_id = wallet.id ORDER BY sequence DESC LIMIT 1) newest ON true
  LEFT JOIN LATERAL (
       SELECT sequence FROM transactions_ledgerseal
        WHERE wallet_id = wallet.id ORDER BY sequence DESC LIMIT 1) sealed ON true
  LEFT JOIN LATERAL (
       SELECT coalesce(sum(amount), 0) AS amount FROM transactions_hold
        WHERE payer_wallet_id = wallet.id AND status = 'active') reserved ON true
""",
    within="wallet.id BETWEEN %(first)s AND %(last)s",
)


def check() -> Iterator[Step]:
    for part in ranges("wallet_wallet", CHUNK):
        yield Step(part.rows, breaches(query(_BROKEN, first=part.first, last=part.last)))
