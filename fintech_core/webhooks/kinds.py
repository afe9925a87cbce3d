"""The types of events: public names, only ever added to."""

from django.db import models

EVERY_TYPE = "*"


class EventType(models.TextChoices):
    """What an endpoint can listen to; `EVERY_TYPE` stands for all, later ones included."""

    DEPOSIT_SUCCEEDED = "deposit.succeeded"
    TRANSFER_SENT = "transfer.sent"
    TRANSFER_RECEIVED = "transfer.received"
    HOLD_CREATED = "hold.created"
    HOLD_CAPTURED = "hold.captured"
    HOLD_VOIDED = "hold.voided"
    HOLD_EXPIRED = "hold.expired"
    REFUND_CREATED = "refund.created"
    PAYOUT_PAID = "payout.paid"
    PAYOUT_FAILED = "payout.failed"
    KYC_APPROVED = "kyc.approved"
    KYC_REJECTED = "kyc.rejected"
    WALLET_FROZEN = "wallet.frozen"
    WALLET_UNFROZEN = "wallet.unfrozen"
    WALLET_CLOSED = "wallet.closed"
