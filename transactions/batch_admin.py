"""Batches, to look at: who asked for what in one call, and what became of each leg."""

from typing import Any

from django.contrib import admin
from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from unfold.contrib.filters.admin import ChoicesDropdownFilter
from unfold.decorators import display

from fintech_core.admin import NOTHING, CreatedFilter, HistoryAdmin, link, money, uuid_in
from fintech_core.parsers import is_digits
from transactions.models import TransferBatch, TransferBatchLeg
from users import queries as users_queries

STATUS_COLOURS = {
    TransferBatch.Status.COMPLETED: "success",
    TransferBatch.Status.PARTIAL: "warning",
    TransferBatch.Status.FAILED: "danger",
}
LEGS_SHOWN = 100
MODES = {
    TransferBatch.Mode.ATOMIC: "All or nothing",
    TransferBatch.Mode.INDEPENDENT: "Each for itself",
}


@admin.register(TransferBatch)
class TransferBatchAdmin(HistoryAdmin):
    # No filter by mode: without an index, a rare one would be looked for to the end.
    list_display = ["created_at", "person", "way", "state", "asked", "done", "refused", "moved"]
    list_display_links = ["created_at"]
    list_filter = [("status", ChoicesDropdownFilter), ("created_at", CreatedFilter)]
    search_help_text = (
        "Id of a batch, a transaction or a user; or the beginning of email, name or phone number"
    )
    fieldsets = [
        (None, {"fields": ["id", "person", "way", "status", "created_at"]}),
        ("Legs", {"fields": ["asked", "done", "refused", "moved"]}),
    ]
    change_form_after_template = "admin/batch_legs.html"

    related = ["user"]

    def found_by(self, text: str) -> Q:
        if key := uuid_in(text):
            legs = TransferBatchLeg.objects.filter(transaction=key)
            return Q(pk=key) | Q(user=key) | Q(pk__in=list(legs.values_list("batch_id", flat=True)))
        return Q(user__in=users_queries.found_ids(text))

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **options: Any
    ) -> HttpResponse:
        context |= _legs_of(context["original"], first=_first_leg(request))
        return super().render_change_form(request, context, *args, **options)

    @display(description="Who")
    def person(self, batch: TransferBatch) -> str:
        return link(batch.user)

    @display(description="Mode")
    def way(self, batch: TransferBatch) -> str:
        return MODES[TransferBatch.Mode(batch.mode)]

    @display(description="Status", label=STATUS_COLOURS)
    def state(self, batch: TransferBatch) -> tuple[str, str]:
        return batch.status, batch.get_status_display()

    @display(description="Legs")
    def asked(self, batch: TransferBatch) -> int:
        return batch.count

    @display(description="Done")
    def done(self, batch: TransferBatch) -> int:
        return batch.succeeded

    @display(description="Refused")
    def refused(self, batch: TransferBatch) -> int:
        return batch.failed

    @display(description="Moved")
    def moved(self, batch: TransferBatch) -> str:
        return money(batch.total, batch.currency)


def _first_leg(request: HttpRequest) -> int:
    """Where the page of legs begins; whatever is no number means the first."""
    text = request.GET.get("from", "")
    return int(text) if is_digits(text) and len(text) < 5 else 0


def _legs_of(batch: TransferBatch, *, first: int) -> dict[str, Any]:
    """A page of them, in the order and with the numbers that the customer sees."""
    end = first + LEGS_SHOWN
    legs = batch.legs.filter(index__gte=first, index__lt=end).order_by("index")
    return {
        "legs": {
            "headers": ["Leg", "Outcome", "Amount", "To", "Reference"],
            "rows": [
                [str(leg.index), *_outcome(leg)]
                for leg in legs.select_related("transaction__to_user")
            ],
        },
        "legs_before": f"?from={max(first - LEGS_SHOWN, 0)}" if first else "",
        "legs_after": f"?from={end}" if end < batch.count else "",
    }


def _outcome(leg: TransferBatchLeg) -> list[str]:
    made = leg.transaction
    if made is None:
        return [f"Refused: {leg.error_code}", NOTHING, NOTHING, NOTHING]
    return ["Done", money(made.amount, made.currency), link(made.to_user), link(made)]
