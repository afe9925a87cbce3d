"""Balances and statements: `/wallets/me/…`, for whatever reads the ledger lives in this app."""

from collections.abc import Callable
from datetime import datetime
from typing import Any, cast

from django.http import HttpResponse, HttpResponseBase, StreamingHttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, extend_schema
from rest_framework.decorators import action
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.renderers import BaseRenderer, JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import GenericViewSet

from fintech_core.schema import problems
from transactions.balances import balance_at
from transactions.serializers.statements import (
    FORMATS,
    BalanceQuerySerializer,
    StatementQuerySerializer,
    StatementSerializer,
    WalletBalanceSerializer,
    present_balance,
)
from transactions.statement_csv import as_csv
from transactions.statement_json import as_json
from transactions.statement_pdf import as_pdf
from transactions.statements import Statement, statement_of
from transactions.throttling import StatementPDFRateLimit
from users.authentication import caller_of
from wallet.models import Wallet
from wallet.queries import wallet_of


class _CSV(BaseRenderer):
    media_type = "text/csv"


class _PDF(BaseRenderer):
    media_type = "application/pdf"


class StatementNegotiation(DefaultContentNegotiation):
    """`?format=` alone decides. Whoever accepts any of the forms is answered; refusals are JSON."""

    def select_renderer(
        self, request: Request, renderers: Any, format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        super().select_renderer(request, [*renderers, _CSV(), _PDF()], format_suffix)
        return renderers[0], renderers[0].media_type


AT = OpenApiParameter(
    "at",
    OpenApiTypes.DATETIME,
    description="A moment in the past (RFC 3339, with its offset from UTC); default: now.",
    examples=[OpenApiExample("The end of a year", value="2026-12-31T23:59:59.999999Z")],
)
STATEMENT_PARAMETERS = [
    OpenApiParameter(
        "from",
        OpenApiTypes.DATE,
        required=True,
        description="The first day.",
        examples=[OpenApiExample("The first of October", value="2026-10-01")],
    ),
    OpenApiParameter(
        "to",
        OpenApiTypes.DATE,
        required=True,
        description="The day after the last one. It may lie in the future.",
        examples=[OpenApiExample("All of October", value="2026-11-01")],
    ),
    OpenApiParameter(
        "tz",
        OpenApiTypes.STR,
        default="UTC",
        description="Whose days: a time zone of the IANA database.",
        examples=[OpenApiExample("Berlin", value="Europe/Berlin")],
    ),
    OpenApiParameter("format", OpenApiTypes.STR, enum=FORMATS, default="json"),
]


class WalletLedgerViewSet(GenericViewSet[Wallet]):
    """What the ledger says about the caller's wallet."""

    serializer_class = WalletBalanceSerializer

    @extend_schema(
        operation_id="wallets_me_balance_retrieve",
        summary="Read your balance, now or at a moment",
        description=(
            "`available` is `balance` less what holds reserve; `as_of` is the time. With `at`, as "
            "it was at that moment, inclusive: what was completed at `at` counts. The answer for a "
            "moment stays the same, as long as the database's clock runs forward. A moment in the "
            "future, or before the wallet existed, is 400."
        ),
        parameters=[AT],
        responses={200: WalletBalanceSerializer, **problems(400, 401)},
    )
    @action(detail=False, url_path="me/balance")
    def balance(self, request: Request) -> Response:
        user_id, at = caller_of(request).pk, _moment_asked(request)
        shown = balance_at(user_id, at) if at else wallet_of(user_id)
        return Response(present_balance(shown))

    @extend_schema(
        operation_id="wallets_me_statement_retrieve",
        summary="Read your statement",
        description=(
            "The days [`from`, `to`) of the calendar of `tz`, oldest line first. The opening "
            "balance and the lines add up to the closing balance: that is checked while the "
            "statement is written, and one that does not add up breaks off. JSON and CSV take any "
            "number of lines; a PDF takes up to 5,000, beyond that it is 400, and you may have ten "
            "PDFs a minute. `format` decides, whatever `Accept` prefers."
        ),
        parameters=STATEMENT_PARAMETERS,
        responses={
            (200, "application/json"): StatementSerializer,
            (200, "text/csv"): OpenApiTypes.STR,
            (200, "application/pdf"): OpenApiTypes.BINARY,
            **problems(400, 401, 429),
        },
    )
    @action(
        detail=False,
        url_path="me/statement",
        renderer_classes=[JSONRenderer],
        content_negotiation_class=StatementNegotiation,
        throttle_classes=[StatementPDFRateLimit],
    )
    def statement(self, request: Request) -> HttpResponseBase:
        asked = StatementQuerySerializer(data=request.query_params.dict())
        asked.is_valid(raise_exception=True)
        made = statement_of(caller_of(request).pk, asked.to_period())
        return _ANSWERS[asked.validated_data["format"]](made)


def _json(statement: Statement) -> HttpResponseBase:
    return StreamingHttpResponse(as_json(statement), content_type="application/json")


def _csv(statement: Statement) -> HttpResponseBase:
    return StreamingHttpResponse(
        as_csv(statement),
        content_type="text/csv; charset=utf-8; header=present",
        headers={"Content-Disposition": _as_file(statement, "csv")},
    )


def _pdf(statement: Statement) -> HttpResponseBase:
    return HttpResponse(
        as_pdf(statement),
        content_type="application/pdf",
        headers={"Content-Disposition": _as_file(statement, "pdf")},
    )


def _as_file(statement: Statement, extension: str) -> str:
    period = statement.period
    name = f"statement_{period.first}_{period.end}.{extension}"
    return f'attachment; filename="{name}"'


_ANSWERS: dict[str, Callable[[Statement], HttpResponseBase]] = {
    "json": _json,
    "csv": _csv,
    "pdf": _pdf,
}


def _moment_asked(request: Request) -> datetime | None:
    """Raises ValidationError."""
    if not request.query_params:
        return None
    asked = BalanceQuerySerializer(data=request.query_params.dict())
    asked.is_valid(raise_exception=True)
    return cast(datetime | None, asked.validated_data.get("at"))
