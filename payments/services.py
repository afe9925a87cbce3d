"""`PaymentService`: the only door to intents, payouts and the inbox of gateway events."""

import logging
from collections.abc import Iterable, Mapping
from decimal import Decimal
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models.functions import Now

from fintech_core.database import retry_on_conflict
from fintech_core.exceptions import InvalidState
from fintech_core.idempotency import Answer, IdempotentCall
from payments import gateways, inbox, intents, payouts, polling, queries, refunds, suspense
from payments.exceptions import GatewayRefused, GatewayUnavailable, NotFound
from payments.gateways.base import Gateway, Outcome
from payments.gateways.sandbox import SandboxGateway
from payments.models import (
    DepositRefund,
    PaymentIntent,
    Payout,
    SuspendedDeposit,
    WebhookAttempt,
)
from payments.refunds import RefundOrder
from users.models import User
from wallet import limits
from wallet.exceptions import CurrencyMismatch, LimitExceeded, WalletFrozen
from wallet.models import Wallet

logger = logging.getLogger(__name__)

SWEEP_SECONDS_MAX = 12.0  # less than between two sweeps in CELERY_BEAT_SCHEDULE
POLL_SECONDS_MAX = 45.0  # likewise
REFUND_SECONDS_MAX = 40.0  # likewise
EXPIRY_BATCH = 500
EXPIRY_BATCHES_MAX = 100


class PaymentService:
    """Money comes in and goes out through here. No method holds a lock while a gateway is asked."""

    @staticmethod
    def create_payment_intent(
        *, user: User, amount: Decimal, currency: str, gateway: str, idempotency: IdempotentCall
    ) -> Answer:
        """Begin a top-up of the user's wallet, once per idempotency key.

        `amount` is in major units. The intent is committed first, then the gateway is asked with a
        key derived from it, then its answer is stored: a retry after a crash goes on with the same
        intent. With status 422, remembered: CurrencyMismatch, WalletFrozen (for a closed wallet:
        a frozen one takes money), LimitExceeded, also for what the gateway will not collect: the
        intent has failed then. Raises NotFound for a gateway that is not there and
        GatewayUnavailable for one that does not answer.
        """
        gateways.gateway_named(gateway)
        begun = idempotency.begin(lambda: _new_intent(user, amount, currency, gateway))
        if isinstance(begun, Answer):
            return begun
        try:
            created = intents.ask(PaymentIntent.objects.get(pk=begun))
        except GatewayUnavailable:
            idempotency.release()
            raise
        except GatewayRefused as refusal:
            reason = LimitExceeded(f"The gateway will not collect this: {refusal.failure_code}.")
            return idempotency.refuse(reason, lambda: intents.fail(begun))
        return idempotency.finish(lambda: intents.attach(begun, created))

    @staticmethod
    @transaction.atomic
    def cancel_payment_intent(*, user: User, intent_id: UUID) -> PaymentIntent:
        """Call off a top-up that nobody has paid yet. Raises NotFound and InvalidState."""
        intent = (
            queries.intents_of(user.pk).select_for_update(no_key=True).filter(pk=intent_id).first()
        )
        if intent is None:
            raise NotFound
        if intent.status != PaymentIntent.Status.REQUIRES_PAYMENT:
            raise InvalidState(f"The payment is {intent.status}; it can no longer be cancelled.")
        intent.status = PaymentIntent.Status.CANCELED
        intent.save(update_fields=["status", "updated_at"])
        return intent

    @staticmethod
    def create_payout(
        *, user: User, order: payouts.NewOrder, idempotency: IdempotentCall
    ) -> Answer:
        """Send money of the user's wallet to a bank account, once per idempotency key.

        Payout and withdrawal are committed first, then the gateway is asked with a key derived from
        the payout, then its answer is stored: a retry after a crash goes on with the same payout,
        and so does the poller. The first that applies is raised, or, with status 422, remembered:
        KYCRequired, CurrencyMismatch, WalletFrozen, InsufficientFunds, LimitExceeded. Raises
        NotFound for a gateway that is not there and GatewayUnavailable for one that does not
        answer; the money has left the wallet then. One that refuses gives it back at once: the
        answer is a payout that has failed.
        """
        return payouts.create(user, order, idempotency)

    @staticmethod
    def name_payout_reference(*, payout_id: UUID, by: User, reference: str) -> Payout:
        """Staff found at the gateway what a payout is called there; it is asked about from now on.

        For a payout that got no reference for so long that asking again might pay it twice. Raises
        PermissionDenied without `payments.settle_payout`, NotFound, InvalidState, also if the
        gateway contradicts, and GatewayUnavailable.
        """
        return payouts.name_reference(payout_id, by=by, reference=reference)

    @staticmethod
    def give_up_payout(*, payout_id: UUID, by: User) -> Payout:
        """Staff made sure that the gateway never had a payout: it fails, the money comes back.

        Raises as `name_payout_reference` does.
        """
        return payouts.give_up(payout_id, by=by)

    @staticmethod
    def resolve_suspense(*, suspended_id: UUID, by: User, note: str) -> SuspendedDeposit:
        """Staff say what became of money that came for a closed wallet; once, and for good.

        Raises PermissionDenied without `payments.resolve_suspense`, NotOnOneself, NotFound,
        InvalidState once it is resolved, and ValidationError for an empty note.
        """
        return suspense.resolve(suspended_id, by=by, note=note)

    @staticmethod
    def poll_gateways() -> int:
        """Ask about orders that stay open for too long; how many. Safe to run at once."""
        return polling.poll_due(seconds_max=POLL_SECONDS_MAX)

    @staticmethod
    def order_refund(*, staff: User, asked: RefundOrder) -> DepositRefund:
        """Take a deposit's money out of the wallet, for its gateway to send back.

        Ask the gateway by `send_refund` once this is committed. Raises what `refunds.order` says.
        """
        return retry_on_conflict(lambda: refunds.order(staff, asked))

    @staticmethod
    def send_refund(refund_id: UUID) -> DepositRefund:
        """Ask the gateway about an ordered refund, if that is due; the refund as it is then.

        Call it outside a database transaction. A gateway that does not answer, or not as it
        should, is asked again later: what was ordered stands.
        """
        refunds.send(refund_id)
        return DepositRefund.objects.get(pk=refund_id)

    @staticmethod
    def refund_to_source(*, staff: User, asked: RefundOrder, idempotency: IdempotentCall) -> Answer:
        """Send a deposit back through its gateway, whole or in part, once per idempotency key.

        The answer is the refund as it is once the gateway was asked: `pending`, or `failed` if it
        refused at once, in which case the money is back in the wallet. With status 422,
        remembered: AmountExceedsRemaining, WalletFrozen (frozen or closed) and InsufficientFunds.
        Raises PermissionDenied, NotFound and InvalidState as `refunds.order` says.
        """
        begun = idempotency.begin(lambda: refunds.order(staff, asked))
        if isinstance(begun, Answer):
            return begun
        refund = PaymentService.send_refund(begun)
        return idempotency.finish(lambda: refund)

    @staticmethod
    def sweep_refunds() -> int:
        """Ask the gateways about refunds that wait for an answer. Safe to run at once."""
        return refunds.sweep(seconds_max=REFUND_SECONDS_MAX)

    @staticmethod
    def name_refund_reference(*, refund_id: UUID, by: User, reference: str) -> DepositRefund:
        """Staff found at the gateway what a refund is called there; what it says of it counts.

        For a refund that got no reference for so long that asking again might send it twice. The
        gateway is asked about the reference first, and has to confirm it. Raises PermissionDenied
        without `payments.settle_refund`, NotFound, InvalidState and GatewayUnavailable.
        """
        return refunds.name_reference(refund_id, by=by, reference=reference)

    @staticmethod
    def give_up_refund(*, refund_id: UUID, by: User) -> DepositRefund:
        """Staff made sure that the gateway never had a refund: it fails, the money comes back.

        Raises as `name_refund_reference` does, but asks nobody.
        """
        return refunds.give_up(refund_id, by=by)

    @staticmethod
    def verify_webhook_signature(
        *, gateway: str, headers: Mapping[str, str], body: bytes
    ) -> Gateway:
        """The gateway that signed exactly these bytes within the last five minutes.

        Raises NotFound (no such gateway, or no secret configured) and InvalidSignature.
        """
        adapter, _ = _verified(gateway, headers, body)
        return adapter

    @staticmethod
    def receive_webhook(*, gateway: str, headers: Mapping[str, str], body: bytes) -> bool:
        """Verify, store and queue one delivery. True if the event is new; a known one is fine, too.

        Raises NotFound, InvalidSignature and MalformedEvent, and stores nothing then. Without a
        queue the event is stored all the same, and handled when the sweeper next runs.
        """
        adapter, kept = _verified(gateway, headers, body)
        event = adapter.parse(headers=kept, body=body)
        return inbox.store(gateway=gateway, event=event, headers=kept, body=body)

    @staticmethod
    def process_payment_webhook(event_id: UUID) -> WebhookAttempt.Outcome | None:
        """Try a stored event (`event_id` is the row's) once, if it is due.

        Safe to run any number of times, also at once: the intent is credited exactly once. None
        means that there was nothing to try.
        """
        return inbox.process(event_id)

    @staticmethod
    def process_again(event_ids: Iterable[UUID], *, by: User) -> int:
        """Staff ask for parked, ignored or waiting events to be tried again, from now on.

        Returns how many will be. Processed events are left alone. Who asked is recorded on the
        tries that follow.
        """
        count = inbox.receive_again(event_ids, by=by)
        logger.info("webhook events requested again", extra={"count": count, "by": str(by.pk)})
        return count

    @staticmethod
    def process_parked_again(*, gateway: str, event_type: str, by: User) -> int:
        """The same for every parked event of a gateway and a type; how many (5,000 at most)."""
        count = inbox.receive_parked_again(gateway=gateway, event_type=event_type, by=by)
        logger.info("webhook events requested again", extra={"count": count, "by": str(by.pk)})
        return count

    @staticmethod
    def simulate_payment_success(*, user: User, intent_id: UUID) -> PaymentIntent:
        """Let the sandbox collect the money; see `simulate_payment`."""
        return PaymentService.simulate_payment(
            user=user, intent_id=intent_id, outcome=Outcome.SUCCEEDED
        )

    @staticmethod
    def simulate_payment(*, user: User, intent_id: UUID, outcome: str) -> PaymentIntent:
        """Let the sandbox send a signed event about the user's intent, by the real webhook path.

        The effect comes later, as with any gateway. Raises NotFound, and InvalidState for an
        intent that is not the sandbox's.
        """
        sandbox = SandboxGateway.from_settings()
        if sandbox is None:
            raise NotFound
        intent = queries.intent_of(user.pk, intent_id)
        if intent.gateway != sandbox.name or intent.gateway_reference is None:
            raise InvalidState("Only an intent that the sandbox knows can be simulated.")
        headers, body = sandbox.simulate(
            outcome=Outcome(outcome),
            gateway_reference=intent.gateway_reference,
            amount=intent.amount,
            currency=intent.currency,
        )
        PaymentService.receive_webhook(gateway=sandbox.name, headers=headers, body=body)
        return intent

    @staticmethod
    def process_arrived_webhooks() -> int:
        """Try every event that is due, whatever was stored just now among them."""
        return inbox.process_arrived(seconds_max=SWEEP_SECONDS_MAX)

    @staticmethod
    def sweep_webhook_events() -> int:
        """Try every event that is due: not queued, not finished, or failed. Safe to run at once."""
        inbox.adopt_orphans()
        return inbox.process_due(seconds_max=SWEEP_SECONDS_MAX)

    @staticmethod
    def cleanup_old_webhook_events() -> int:
        """Empty the payloads of events settled longer ago than the retention; the rows stay."""
        return inbox.delete_old_payloads()

    @staticmethod
    def expire_payment_intents() -> int:
        """Close the intents that nobody paid in time. What a gateway is working on stays open."""
        expired = 0
        for _ in range(EXPIRY_BATCHES_MAX):
            batch = _expire_batch()
            expired += batch
            if batch < EXPIRY_BATCH:
                break
        return expired


def _new_intent(user: User, amount: Decimal, currency: str, gateway: str) -> PaymentIntent:
    wallet = Wallet.objects.get(user_id=user.pk)
    if currency != wallet.currency:
        raise CurrencyMismatch(f"The wallet holds {wallet.currency}.")
    if wallet.status == Wallet.Status.CLOSED:
        raise WalletFrozen("The wallet is closed: it takes no money.")
    limits.require_room_for_deposit(wallet, user, amount)
    return PaymentIntent.objects.create(
        user=user,
        wallet=wallet,
        amount=amount,
        currency=currency,
        gateway=gateway,
        expires_at=Now() + settings.PAYMENT_INTENT_LIFETIME,
        next_poll_at=Now() + intents.FIRST_POLL_AFTER,
    )


def _verified(
    gateway: str, headers: Mapping[str, str], body: bytes
) -> tuple[Gateway, dict[str, str]]:
    """The gateway that signed this, and the headers that show it."""
    adapter = gateways.gateway_named(gateway)
    kept = _signature_headers(adapter, headers)
    adapter.verify(headers=kept, body=body)
    return adapter, kept


def _signature_headers(adapter: Gateway, headers: Mapping[str, str]) -> dict[str, str]:
    """The headers that this gateway signs with, by their lower-case names, and no others.

    `headers` are a request's, which know every case, or have lower-case names themselves.
    """
    return {
        name: value
        for name in adapter.signature_headers
        if (value := headers.get(name)) is not None
    }


@transaction.atomic
def _expire_batch() -> int:
    ids = list(
        PaymentIntent.objects.select_for_update(no_key=True, skip_locked=True)
        .filter(status=PaymentIntent.Status.REQUIRES_PAYMENT, expires_at__lte=Now())
        .order_by("expires_at")
        .values_list("pk", flat=True)[:EXPIRY_BATCH]
    )
    return PaymentIntent.objects.filter(pk__in=ids).update(
        status=PaymentIntent.Status.EXPIRED, updated_at=Now()
    )
