"""Shapes of requests and answers. One serializer in, another out."""

from typing import Any

from django.core.exceptions import ValidationError as DjangoValidationError
from drf_spectacular.utils import extend_schema_field, extend_schema_serializer
from rest_framework import serializers
from rest_framework.fields import get_error_detail

from fintech_core.moments import AnyDayField
from fintech_core.serializers import StrictSerializer, TextField
from users.countries import COUNTRY_CODES
from users.models import (
    NAME_MAX_LENGTH,
    REASON_MAX_LENGTH,
    DocumentType,
    KYCStatus,
    User,
)
from users.services import Identity
from users.tokens import TOKEN_MAX_LENGTH
from users.validators import (
    E164_PATTERN,
    ascii_only,
    normal_phone_number,
    plain_line,
    plain_text,
    tidy_name,
)

# Longer ones are no safer, and hashing them is work that anyone could ask for.
PASSWORD_MAX_LENGTH = 128


class EmailAddressField(serializers.EmailField):
    """An email address; its capitals mean nothing."""

    def __init__(self, **options: Any) -> None:
        super().__init__(max_length=254, **options)
        self.validators.append(ascii_only)  # so that the schema says it, too

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        text = super().to_internal_value(data)
        ascii_only(text)  # first: the lower-case of the Kelvin sign is an ordinary k
        return text.lower()


class PasswordField(TextField):
    """A password, to the letter: spaces at its ends belong to it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            max_length=PASSWORD_MAX_LENGTH,
            trim_whitespace=False,
            write_only=True,
            style={"input_type": "password"},
            **options,
        )


class LineField(TextField):
    """One line of text without control characters."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.validators.append(plain_line)


class NameField(LineField):
    def __init__(self, **options: Any) -> None:
        super().__init__(max_length=NAME_MAX_LENGTH, **options)

    def to_internal_value(self, data: Any) -> str:
        return tidy_name(super().to_internal_value(data))


@extend_schema_field({"type": "string", "pattern": E164_PATTERN, "example": "+4915112345678"})
class PhoneNumberField(TextField):
    """A phone number in E.164; see `normal_phone_number`."""

    def to_internal_value(self, data: Any) -> str:
        try:
            return normal_phone_number(super().to_internal_value(data))
        except DjangoValidationError as refusal:
            raise serializers.ValidationError(get_error_detail(refusal)) from refusal


# --- Signing in --------------------------------------------------------------------------------


class LoginSerializer(StrictSerializer):
    email = EmailAddressField()
    password = PasswordField()


class RefreshSerializer(StrictSerializer):
    refresh = TextField(max_length=TOKEN_MAX_LENGTH)


class VerifySerializer(StrictSerializer):
    token = TextField(max_length=TOKEN_MAX_LENGTH, help_text="An access or a refresh token.")


class TokenPairSerializer(serializers.Serializer[Any]):
    access = serializers.CharField()
    refresh = serializers.CharField()


class EmptySerializer(serializers.Serializer[Any]):
    """An empty object."""


# --- Users -------------------------------------------------------------------------------------


class UserRegistrationSerializer(StrictSerializer):
    email = EmailAddressField()
    password = PasswordField()
    first_name = NameField()
    last_name = NameField()
    phone_number = PhoneNumberField()


class UserProfileSerializer(StrictSerializer):
    """What users may change about themselves; what is left out stays."""

    first_name = NameField(required=False)
    last_name = NameField(required=False)
    phone_number = PhoneNumberField(required=False)


class UserSerializer(serializers.ModelSerializer[User]):
    class Meta:
        model = User
        fields = [
            "id",
            "email",
            "first_name",
            "last_name",
            "phone_number",
            "kyc_status",
            "kyc_rejection_reason",
            "date_joined",
        ]
        read_only_fields = fields


class PasswordChangeSerializer(StrictSerializer):
    current_password = PasswordField()
    new_password = PasswordField()


# --- KYC ---------------------------------------------------------------------------------------


class KYCSubmissionSerializer(StrictSerializer):
    """A submission; `document_file` can be sent as multipart alone."""

    document_type = serializers.ChoiceField(choices=DocumentType.choices)
    document_number = LineField(max_length=64)
    date_of_birth = AnyDayField()
    address_line1 = LineField(max_length=200)
    address_line2 = LineField(max_length=200, required=False, allow_blank=True)
    city = LineField(max_length=100)
    postal_code = LineField(max_length=20)
    country = serializers.ChoiceField(choices=COUNTRY_CODES)
    document_file = serializers.FileField(
        required=False, help_text="PDF, JPEG or PNG by content, at most 5 MB."
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        facts = {name: attrs.pop(name) for name in list(attrs) if name in Identity.__annotations__}
        return {**attrs, "identity": Identity(**facts)}


class KYCSubmissionJSONSerializer(KYCSubmissionSerializer):
    """The same as JSON, which carries no file."""

    document_file = None  # type: ignore[assignment]


class KYCRejectionSerializer(StrictSerializer):
    reason = TextField(max_length=REASON_MAX_LENGTH, validators=[plain_text])


class KYCSubmissionSummarySerializer(serializers.Serializer[Any]):
    """What the user submitted; the document's number masked."""

    id = serializers.UUIDField()
    document_type = serializers.ChoiceField(choices=DocumentType.choices)
    document_number = serializers.CharField(source="masked_document_number")
    date_of_birth = serializers.DateField()
    address_line1 = serializers.CharField()
    address_line2 = serializers.CharField(allow_blank=True)
    city = serializers.CharField()
    postal_code = serializers.CharField()
    country = serializers.CharField()
    has_document_file = serializers.SerializerMethodField()
    created_at = serializers.DateTimeField()

    def get_has_document_file(self, submission: Any) -> bool:
        return bool(submission.document_file)


class KYCStepSerializer(serializers.Serializer[Any]):
    """A step, without the name of the reviewer."""

    from_status = serializers.CharField(allow_blank=True)
    to_status = serializers.CharField()
    reason = serializers.CharField(allow_blank=True)
    created_at = serializers.DateTimeField()


@extend_schema_serializer(component_name="KYC")
class KYCRecordSerializer(serializers.Serializer[Any]):
    """Where one's KYC stands, and the steps that led there, newest first."""

    kyc_status = serializers.ChoiceField(choices=KYCStatus.choices)
    kyc_rejection_reason = serializers.CharField(allow_blank=True)
    submission = KYCSubmissionSummarySerializer(allow_null=True)
    steps = KYCStepSerializer(many=True)
