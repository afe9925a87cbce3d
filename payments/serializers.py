"""What payment calls take and give."""

from typing import Any

from rest_framework import serializers

from fintech_core.money import AmountField, CurrencyField
from fintech_core.serializers import StrictSerializer, TextField
from payments import gateways
from payments.gateways.base import Outcome
from payments.iban import IBANInvalid, parse_iban
from payments.models import DepositRefund, PaymentIntent, Payout, WebhookEvent
from payments.models.refund import REASON_MAX_LENGTH
from payments.payouts import Destination, NewOrder
from users.models import User

DESTINATION_TYPES = [("bank_account", "Bank account")]
NAME_LENGTH = 140  # ISO 20022: Max140Text


class OrderSerializer(StrictSerializer):
    """Checks shape, and fills in the wallet's currency and the default gateway, so that a request
    that names them and one that does not are the same request. Needs `user` in its context."""

    amount = AmountField()
    currency = CurrencyField(required=False, help_text="Default: the wallet's.")
    gateway = serializers.CharField(
        required=False, max_length=20, help_text="Default: `sandbox` where there is one."
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        user: User = self.context["user"]
        attrs.setdefault("currency", user.wallet.currency)
        attrs.setdefault("gateway", gateways.default_gateway())
        if attrs["gateway"] not in gateways.available():
            raise serializers.ValidationError(
                {"gateway": ["This gateway is not available."]}, code="invalid_choice"
            )
        return attrs


class CreatePaymentIntentSerializer(OrderSerializer):
    """A top-up."""


class PaymentIntentSerializer(serializers.ModelSerializer[PaymentIntent]):
    """An intent, as its owner sees it. `transaction_id` is null until the money is credited."""

    amount = AmountField(read_only=True)
    transaction_id = serializers.UUIDField(read_only=True, allow_null=True)

    class Meta:
        model = PaymentIntent
        fields = (
            "id",
            "status",
            "amount",
            "currency",
            "gateway",
            "gateway_reference",
            "client_secret",
            "checkout_url",
            "transaction_id",
            "expires_at",
            "created_at",
        )
        read_only_fields = fields


class IBANField(serializers.CharField):
    """An ISO 13616 account number, in either case, with or without spaces."""

    def __init__(self, **options: Any) -> None:
        super().__init__(max_length=64, **options)

    def to_internal_value(self, data: Any) -> str:
        text: str = super().to_internal_value(data)
        try:
            return parse_iban(text)
        except IBANInvalid as refusal:
            # Without the number: it is nobody's business but the bank's.
            raise serializers.ValidationError(str(refusal), code="invalid") from None


class DestinationSerializer(StrictSerializer):
    type = serializers.ChoiceField(choices=DESTINATION_TYPES)
    iban = IBANField()
    name = serializers.CharField(max_length=NAME_LENGTH, help_text="Whose account it is.")

    def validate_name(self, name: str) -> str:
        if not name.isprintable():
            raise serializers.ValidationError("This is no name.", code="invalid")
        return name


class CreatePayoutSerializer(OrderSerializer):
    """A payout. `order` is what the service takes, `asked` what identifies the request: without the
    account number, which goes nowhere but into the payout."""

    destination = DestinationSerializer()

    @property
    def order(self) -> NewOrder:
        given = self.validated_data
        destination = given["destination"]
        return NewOrder(
            amount=given["amount"],
            currency=given["currency"],
            gateway=given["gateway"],
            destination=Destination(iban=destination["iban"], name=destination["name"]),
        )

    @property
    def asked(self) -> dict[str, Any]:
        return {**self.validated_data, "destination": self.order.destination.fingerprint}


class MaskedDestinationSerializer(serializers.Serializer[Payout]):
    """Enough of an account to recognise it."""

    type = serializers.ChoiceField(choices=DESTINATION_TYPES, source="destination_type")
    iban = serializers.CharField(source="masked_iban")
    name = serializers.CharField(source="holder")


class PayoutSerializer(serializers.ModelSerializer[Payout]):
    """A payout, as its owner sees it. `reversal_id` names what brought the money back."""

    amount = AmountField(read_only=True)
    destination = MaskedDestinationSerializer(source="*", read_only=True)
    transaction_id = serializers.UUIDField(read_only=True)
    reversal_id = serializers.UUIDField(read_only=True, allow_null=True)

    class Meta:
        model = Payout
        fields = (
            "id",
            "status",
            "amount",
            "currency",
            "gateway",
            "gateway_reference",
            "destination",
            "failure_code",
            "transaction_id",
            "reversal_id",
            "created_at",
            "completed_at",
        )
        read_only_fields = fields


class SimulatePaymentSerializer(StrictSerializer):
    outcome = serializers.ChoiceField(choices=[Outcome.SUCCEEDED.value, Outcome.FAILED.value])


class RefundDepositSerializer(StrictSerializer):
    amount = AmountField(required=False, help_text="Default: what has not been sent back yet.")
    reason = TextField(
        max_length=REASON_MAX_LENGTH, help_text="The customer reads it on their statement."
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        return {"amount": None, **attrs}


class DepositRefundSerializer(serializers.ModelSerializer[DepositRefund]):
    """A deposit on its way back. `reversal_id` is null unless the money came back from there."""

    intent_id = serializers.UUIDField(read_only=True)
    amount = AmountField(read_only=True)
    transaction_id = serializers.UUIDField(read_only=True)
    reversal_id = serializers.UUIDField(read_only=True, allow_null=True)

    class Meta:
        model = DepositRefund
        fields = (
            "id",
            "intent_id",
            "status",
            "amount",
            "currency",
            "gateway",
            "gateway_reference",
            "transaction_id",
            "reversal_id",
            "reason",
            "failure_code",
            "created_at",
            "completed_at",
        )
        read_only_fields = fields


class WebhookReceivedSerializer(serializers.Serializer[Any]):
    received = serializers.BooleanField()


class WebhookEventSerializer(serializers.ModelSerializer[WebhookEvent]):
    """A stored event, for staff. Its payload is shown in the admin alone."""

    intent_id = serializers.UUIDField(read_only=True, allow_null=True)
    payout_id = serializers.UUIDField(read_only=True, allow_null=True)
    refund_id = serializers.UUIDField(read_only=True, allow_null=True)

    class Meta:
        model = WebhookEvent
        fields = (
            "id",
            "gateway",
            "event_id",
            "event_type",
            "gateway_reference",
            "status",
            "attempts",
            "next_attempt_at",
            "last_error",
            "intent_id",
            "payout_id",
            "refund_id",
            "received_at",
            "processed_at",
        )
        read_only_fields = fields
