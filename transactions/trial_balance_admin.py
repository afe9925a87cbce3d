"""The trial balance as a page of the admin, to look at."""

from typing import Any

from django import forms
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db import OperationalError
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from unfold.widgets import UnfoldAdminTextInputWidget

from fintech_core.admin import NOTHING
from fintech_core.database import sqlstate
from fintech_core.moments import parse_moment
from fintech_core.money import format_amount, total
from transactions.trial_balance import AccountBalance, TrialBalance, trial_balance

VIEW_PERMISSION = "transactions.view_transaction"
_CANCELED = "57014"  # PostgreSQL's query_canceled: the statement took longer than a page may
TOO_LONG = (
    "The books are too large to be summed up within a page's time: run `manage.py trial_balance`."
)


class MomentForm(forms.Form):
    at = forms.CharField(
        label="As of",
        required=False,
        max_length=40,
        widget=UnfoldAdminTextInputWidget(attrs={"placeholder": "2026-12-31T23:59:59Z"}),
        help_text="A moment (RFC 3339), inclusive. Empty: now.",
    )

    books: TrialBalance | None = None

    def clean(self) -> None:
        if "at" in self.errors:
            return
        text = self.cleaned_data["at"].strip()
        try:
            self.books = trial_balance(parse_moment(text) if text else None)
        except ValueError as refusal:
            self.add_error("at", str(refusal))
        except OperationalError as exc:
            if sqlstate(exc) != _CANCELED:
                raise
            self.add_error(None, TOO_LONG)


def trial_balance_page(request: HttpRequest) -> HttpResponse:
    """For whoever may see transactions. It reads and changes nothing."""
    if not request.user.has_perm(VIEW_PERMISSION):
        raise PermissionDenied
    form = MomentForm(request.GET)
    form.is_valid()
    books = form.books
    context = admin.site.each_context(request) | {
        "title": "Trial balance",
        "form": form,
        "books": books,
        "tables": [(currency, _table(books, currency)) for currency in books.currencies]
        if books
        else [],
    }
    return TemplateResponse(request, "admin/trial_balance.html", context)


def _table(books: TrialBalance, currency: str) -> dict[str, Any]:
    rows = books.of(currency)
    debits = format_amount(total(row.debit for row in rows))
    credits = format_amount(total(row.credit for row in rows))
    return {
        "headers": ["Account", "Debit", "Credit"],
        "rows": [*(_row(row) for row in rows), ["Total", debits, credits]],
    }


def _row(row: AccountBalance) -> list[str]:
    """On one side or the other, as accountants write it."""
    return [
        "Wallets" if row.account == row.account.WALLET else str(row.account.label),
        format_amount(row.debit) if row.balance < 0 else NOTHING,
        format_amount(row.credit) if row.balance >= 0 else NOTHING,
    ]
