"""The trial balance: every system account and the sum of all wallets, which add up to zero."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from django.conf import settings
from django.db import connection

from fintech_core.database import database_time
from fintech_core.money import total
from transactions.models import Account

ZERO = Decimal("0.00")


class MomentInFuture(ValueError):
    """Nothing is known about it yet."""


@dataclass(frozen=True)
class AccountBalance:
    """What an account held, in major units: credits less debits, as a customer's wallet counts."""

    account: Account
    currency: str
    balance: Decimal

    @property
    def debit(self) -> Decimal:
        return max(-self.balance, ZERO)

    @property
    def credit(self) -> Decimal:
        return max(self.balance, ZERO)


@dataclass(frozen=True)
class TrialBalance:
    at: datetime
    accounts: list[AccountBalance]

    @property
    def currencies(self) -> list[str]:
        return sorted({row.currency for row in self.accounts})

    def of(self, currency: str) -> list[AccountBalance]:
        return [row for row in self.accounts if row.currency == currency]

    def difference(self, currency: str) -> Decimal:
        """What is missing (or too much) for the currency to add up; zero in true books."""
        return total(row.balance for row in self.of(currency))

    @property
    def is_zero(self) -> bool:
        return not any(self.difference(currency) for currency in self.currencies)


# One statement, so one snapshot: of every transaction it sees all sides or none. A system account
# is a range of an index that holds all that is summed; a wallet is one look-up in another.
_BALANCES = """
SELECT account, currency,
       sum(CASE entry_type WHEN 'credit' THEN amount ELSE -amount END)
  FROM transactions_transactionledger
 WHERE wallet_id IS NULL AND account = ANY(%(accounts)s) AND created_at <= %(at)s
 GROUP BY account, currency
 UNION ALL
SELECT 'wallet', wallet.currency, sum(newest.balance_after)
  FROM wallet_wallet wallet
  JOIN LATERAL (
        SELECT balance_after FROM transactions_transactionledger
         WHERE wallet_id = wallet.id AND created_at <= %(at)s
         ORDER BY created_at DESC, sequence DESC LIMIT 1
       ) newest ON true
 GROUP BY wallet.currency
"""


def trial_balance(at: datetime | None = None) -> TrialBalance:
    """The books as of the moment `at`, inclusive (default: now, by the database's clock).

    A movement that is being written right now is on neither side. Raises MomentInFuture.
    """
    now = database_time()
    if at is not None and at > now:
        raise MomentInFuture("The moment lies in the future.")
    moment = at or now
    found = _balances(moment)
    currencies = sorted({currency for _account, currency in found} or {settings.DEFAULT_CURRENCY})
    rows = [
        AccountBalance(account, currency, found.get((account, currency), ZERO))
        for currency in currencies
        for account in Account
    ]
    return TrialBalance(moment, rows)


def _balances(at: datetime) -> dict[tuple[str, str], Decimal]:
    accounts = [account.value for account in Account if account != Account.WALLET]
    with connection.cursor() as cursor:
        cursor.execute(_BALANCES, {"accounts": accounts, "at": at})
        return {(account, currency): balance for account, currency, balance in cursor.fetchall()}
