"""The sandbox's hosted pages: where a developer decides what becomes of an order.

They exist where `PAYMENTS_SANDBOX` is true. Whoever has a page's address may use it: as with any
gateway's checkout, the address is the secret.
"""

from typing import Any

from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render

from fintech_core.exceptions import InvalidState, plain_problem
from payments.gateways.sandbox import SandboxGateway
from payments.models import PaymentIntent, SandboxOrder, WebhookEvent
from payments.sandbox import orders, scenarios

METHODS = ("GET", "HEAD", "POST")


def order_page(request: HttpRequest, page: str, reference: str, token: str) -> HttpResponseBase:
    """The page of an order: what can be done with it, and what was. POST: do it."""
    order = orders.find_by_page(page, reference, token) if SandboxGateway.from_settings() else None
    if order is None:
        raise Http404
    if request.method not in METHODS:
        refusal = plain_problem(405).as_response(request)
        refusal["Allow"] = ", ".join(METHODS)
        return refusal
    return _play(request, order) if request.method == "POST" else _show(request, order)


def _play(request: HttpRequest, order: SandboxOrder) -> HttpResponse:
    """Redirects back, so that loading the page again sends nothing again."""
    name = request.POST.get("scenario", "")
    if name not in scenarios.of(order):
        return _show(request, order, "Choose one of the buttons.", status=400)
    try:
        scenarios.play(order, name)
    except InvalidState as refusal:
        return _show(request, order, refusal.detail, status=409)
    return redirect(request.path)


def _show(
    request: HttpRequest, order: SandboxOrder, fault: str = "", *, status: int = 200
) -> HttpResponse:
    deliveries = list(order.deliveries.order_by("-pk")[: scenarios.DELIVERIES_MAX])
    made = _what_we_made([each.event_id for each in deliveries])
    context: dict[str, Any] = {
        "order": order,
        "fault": fault,
        "intent": _our_intent(order),
        "scenarios": scenarios.of(order),
        "deliveries": [(each, made.get(each.event_id)) for each in deliveries],
    }
    return render(request, "payments/sandbox/order.html", context, status=status)


def _our_intent(order: SandboxOrder) -> PaymentIntent | None:
    """What we think of it, for the developer to compare."""
    return PaymentIntent.objects.filter(
        gateway=SandboxGateway.name, gateway_reference=order.reference
    ).first()


def _what_we_made(event_ids: list[str]) -> dict[str, WebhookEvent]:
    events = WebhookEvent.objects.filter(gateway=SandboxGateway.name, event_id__in=event_ids)
    return {event.event_id: event for event in events.defer("body", "headers")}
