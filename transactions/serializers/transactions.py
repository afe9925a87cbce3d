"""How transactions and ledger entries look from outside."""

import re
from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

from django.core.exceptions import ValidationError as DjangoValidationError
from django.core.validators import validate_email
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from fintech_core.money import AmountField, BalanceField, CurrencyField, format_amount
from fintech_core.serializers import StrictSerializer, TextField
from transactions.models import Account, Transaction, TransactionLedger
from users.models import User

METADATA_PAIRS = 20


class PartySerializer(serializers.Serializer[User]):
    """A person as the other side sees them: no email, no full name."""

    id = serializers.UUIDField(read_only=True)
    display_name = serializers.CharField(read_only=True)


def present_party(person: User | None) -> dict[str, Any] | None:
    return {"id": str(person.id), "display_name": person.display_name} if person else None


def present_transaction(made: Transaction) -> dict[str, Any]:
    """What `TransactionSerializer` describes, a dozen times as fast: it is every money answer."""
    return {
        "id": str(made.id),
        "reference_id": made.reference_id,
        "type": str(made.type),
        "status": str(made.status),
        "amount": format_amount(made.amount),
        "currency": made.currency,
        "fee": format_amount(made.fee),
        "from_user": present_party(made.from_user),
        "to_user": present_party(made.to_user),
        "description": made.description,
        "metadata": made.metadata,
        "parent_id": made.parent_id and str(made.parent_id),
        "created_at": made.created_at,
        "completed_at": made.completed_at,
    }


_TRANSACTION_FIELDS = (
    "id",
    "reference_id",
    "type",
    "status",
    "amount",
    "currency",
    "fee",
    "from_user",
    "to_user",
    "description",
    "metadata",
    "parent_id",
    "created_at",
    "completed_at",
)


class TransactionSerializer(serializers.ModelSerializer[Transaction]):
    amount = AmountField(read_only=True)
    fee = BalanceField()
    from_user = PartySerializer(read_only=True, allow_null=True)
    to_user = PartySerializer(read_only=True, allow_null=True)
    parent_id = serializers.UUIDField(read_only=True, allow_null=True)
    metadata = serializers.DictField(child=serializers.CharField(), read_only=True)

    class Meta:
        model = Transaction
        fields: tuple[str, ...] = _TRANSACTION_FIELDS
        read_only_fields: tuple[str, ...] = _TRANSACTION_FIELDS

    def to_representation(self, instance: Transaction) -> dict[str, Any]:
        return present_transaction(instance)


class MoneyAnswerSerializer(TransactionSerializer):
    """The answer to a call that moved money: with the caller's balance after it."""

    balance_after = BalanceField(allow_null=True)

    class Meta(TransactionSerializer.Meta):
        fields = (*_TRANSACTION_FIELDS, "balance_after")
        read_only_fields = (*_TRANSACTION_FIELDS, "balance_after")


def money_answer_to(caller_id: UUID) -> Callable[[Transaction], Mapping[str, Any]]:
    """How a money call presents what it has just posted to its caller."""

    def present(made: Transaction) -> Mapping[str, Any]:
        balances = {wallet.user_id: format_amount(balance) for wallet, balance in made.moved}
        return present_transaction(made) | {"balance_after": balances.get(caller_id)}

    return present


# What nearly every address looks like; Django's own patterns, which know them all, take longer.
_PLAIN_EMAIL = re.compile(
    r"(?=.{1,254}\Z)[a-z0-9_+-]+(?:\.[a-z0-9_+-]+)*@"
    r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]{2,63}"
)


class RecipientField(TextField):
    """An email address (any case) or a user id, in the form in which the service looks it up."""

    default_error_messages = {"recipient": "Give an email address or a user id."}

    def __init__(self, **options: Any) -> None:
        super().__init__(max_length=254, **options)

    def to_internal_value(self, data: object) -> str:
        text = super().to_internal_value(data)
        if not text.isascii():  # nor is what is ASCII in lower-case alone; see registration
            self.fail("recipient")
        try:
            return str(UUID(text)) if "@" not in text else self._email(text)
        except (ValueError, DjangoValidationError):
            self.fail("recipient")

    @staticmethod
    def _email(text: str) -> str:
        if not _PLAIN_EMAIL.fullmatch(text):
            validate_email(text)
        return text.lower()


@extend_schema_field(
    {
        "type": "object",
        "additionalProperties": {"type": "string", "maxLength": 500},
        "maxProperties": METADATA_PAIRS,
        "example": {"invoice": "2026-117"},
    }
)
class MetadataField(serializers.DictField):
    """At most 20 pairs of strings (names up to 40 characters, values up to 500)."""

    child = TextField(max_length=500, allow_blank=True, trim_whitespace=False)
    default_error_messages = {
        "too_many": f"At most {METADATA_PAIRS} pairs are kept.",
    }

    def to_internal_value(self, data: Any) -> dict[str, str]:
        if isinstance(data, Mapping) and len(data) > METADATA_PAIRS:
            self.fail("too_many")
        pairs: dict[str, str] = super().to_internal_value(data)
        name_field = TextField(max_length=40)
        for name in pairs:
            name_field.run_validation(name)
        return pairs


class TransferRequestSerializer(StrictSerializer):
    """Checks shape only. Whether the transfer may happen is the service's business."""

    recipient = RecipientField(help_text="Email address or user id.")
    amount = AmountField()
    currency = CurrencyField(required=False, help_text="Default: the wallet's.")
    description = TextField(max_length=255, required=False, allow_blank=True, default="")
    metadata = MetadataField(required=False, default=dict)


class RefundRequestSerializer(StrictSerializer):
    amount = AmountField(required=False, help_text="Default: what has not been refunded yet.")
    reason = TextField(
        max_length=255,
        required=False,
        allow_blank=True,
        default="",
        help_text="Becomes the refund's `description`.",
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        return {"amount": None, **attrs}


class LedgerEntrySerializer(serializers.ModelSerializer[TransactionLedger]):
    """A ledger entry. `balance_after` is the owner's affair: null on anyone else's."""

    transaction_id = serializers.UUIDField(read_only=True)
    account = serializers.ChoiceField(choices=Account.choices, read_only=True)
    amount = AmountField(read_only=True)
    balance_after = BalanceField(allow_null=True)

    class Meta:
        model = TransactionLedger
        fields = (
            "id",
            "transaction_id",
            "account",
            "entry_type",
            "amount",
            "currency",
            "balance_after",
            "created_at",
        )
        read_only_fields = fields

    def to_representation(self, instance: TransactionLedger) -> dict[str, Any]:
        """By hand: see `present_transaction`."""
        wallet, balance = instance.wallet, instance.balance_after
        is_own = wallet is not None and wallet.user_id == self.context["caller_id"]
        return {
            "id": str(instance.pk),
            "transaction_id": str(instance.transaction_id),
            "account": instance.account,
            "entry_type": instance.entry_type,
            "amount": format_amount(instance.amount),
            "currency": instance.currency,
            "balance_after": format_amount(balance) if is_own and balance is not None else None,
            "created_at": instance.created_at,
        }


class TransactionHistorySerializer(serializers.ModelSerializer[TransactionLedger]):
    """A statement line: what happened to the caller's wallet, signed, with the running balance."""

    transaction_id = serializers.UUIDField(read_only=True)
    type = serializers.CharField(source="transaction.type", read_only=True)
    direction = serializers.ChoiceField(choices=["in", "out"], read_only=True)
    amount = BalanceField(source="signed_amount")
    balance_after = BalanceField()
    counterparty = PartySerializer(read_only=True, allow_null=True)
    description = serializers.CharField(source="transaction.description", read_only=True)

    class Meta:
        model = TransactionLedger
        fields = (
            "transaction_id",
            "type",
            "direction",
            "amount",
            "balance_after",
            "counterparty",
            "description",
            "created_at",
        )
        read_only_fields = fields
