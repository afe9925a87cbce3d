"""`/auth/…` and `/users/…`, and the reviewers' door to documents: one service call each."""

from typing import Any
from uuid import UUID

from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.http import FileResponse, Http404, HttpRequest
from django.utils import timezone
from django.views.decorators.http import require_GET
from drf_spectacular.utils import OpenApiExample, OpenApiResponse, extend_schema
from rest_framework import mixins
from rest_framework import status as http
from rest_framework.decorators import action
from rest_framework.permissions import AllowAny, IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import GenericViewSet

from fintech_core.parsers import StrictJSONParser, StrictMultiPartParser
from fintech_core.ratelimit import LoginRateLimit, RegisterRateLimit
from fintech_core.schema import problems
from fintech_core.serializers import NoBodySerializer
from users import queries, serializers, services
from users.authentication import caller_of
from users.exceptions import NotPermitted, UserNotFound
from users.filters import UserFilter
from users.models import User
from users.permissions import IsKYCReviewer, IsStaff
from users.throttling import (
    DocumentRateLimit,
    PasswordRateLimit,
    ProfileRateLimit,
    SessionRateLimit,
)

_TOKENS = OpenApiExample(
    "Tokens", value={"access": "eyJhbGciOi…", "refresh": "eyJhbGciOi…"}, response_only=True
)
_USER = OpenApiExample(
    "User",
    value={
        "id": "019ac0de-7f1e-7c2a-8b60-0a4f5f6d2b11",
        "email": "alice@example.com",
        "first_name": "Alice",
        "last_name": "Archer",
        "phone_number": "+4915112345678",
        "kyc_status": "not_submitted",
        "kyc_rejection_reason": "",
        "date_joined": "2026-11-22T13:00:00.123456Z",
    },
    response_only=True,
    status_codes=["200", "201"],
)
_REGISTRATION = OpenApiExample(
    "Alice",
    value={
        "email": "alice@example.com",
        "password": "correct horse battery",
        "first_name": "Alice",
        "last_name": "Archer",
        "phone_number": "+4915112345678",
    },
    request_only=True,
)
_IDENTITY = OpenApiExample(
    "Passport",
    value={
        "document_type": "passport",
        "document_number": "C01X00T47",
        "date_of_birth": "1990-05-17",
        "address_line1": "1 High Street",
        "city": "London",
        "postal_code": "SW1A 1AA",
        "country": "GB",
    },
    request_only=True,
)
_NOTHING = OpenApiResponse(description="Done; no body.")


class AuthViewSet(GenericViewSet[User]):
    """Signing in and out. Whatever `Authorization` header comes along is ignored."""

    authentication_classes = []
    permission_classes = [AllowAny]

    @extend_schema(
        summary="Sign in",
        description=(
            "Opens a session. An unknown email, a wrong password and a deactivated user get the "
            "same answer."
        ),
        request=serializers.LoginSerializer,
        responses={200: serializers.TokenPairSerializer, **problems(400, 401, 429)},
        examples=[
            _TOKENS,
            OpenApiExample(
                "Alice",
                value={"email": "alice@example.com", "password": "correct horse battery"},
                request_only=True,
            ),
        ],
    )
    @action(
        detail=False,
        methods=["post"],
        throttle_classes=[LoginRateLimit],
        serializer_class=serializers.LoginSerializer,
    )
    def login(self, request: Request) -> Response:
        form = _valid(serializers.LoginSerializer(data=request.data))
        pair = services.login(**form)
        return Response(serializers.TokenPairSerializer(pair).data)

    @extend_schema(
        summary="Exchange the refresh token",
        description=(
            "The refresh token is dead at once. Shown again, it revokes the whole session: access "
            "tokens, too."
        ),
        request=serializers.RefreshSerializer,
        responses={200: serializers.TokenPairSerializer, **problems(400, 401, 429)},
        examples=[_TOKENS],
    )
    @action(
        detail=False,
        methods=["post"],
        throttle_classes=[SessionRateLimit],
        serializer_class=serializers.RefreshSerializer,
    )
    def refresh(self, request: Request) -> Response:
        form = _valid(serializers.RefreshSerializer(data=request.data))
        pair = services.refresh_session(**form)
        return Response(serializers.TokenPairSerializer(pair).data)

    @extend_schema(
        summary="Sign out",
        description="Ends the session of this refresh token, its access tokens included.",
        request=serializers.RefreshSerializer,
        responses={204: _NOTHING, **problems(400, 401, 429)},
    )
    @action(
        detail=False,
        methods=["post"],
        throttle_classes=[SessionRateLimit],
        serializer_class=serializers.RefreshSerializer,
    )
    def logout(self, request: Request) -> Response:
        form = _valid(serializers.RefreshSerializer(data=request.data))
        services.logout(**form)
        return Response(status=http.HTTP_204_NO_CONTENT)

    @extend_schema(
        summary="Ask whether a token is alive",
        request=serializers.VerifySerializer,
        responses={200: serializers.EmptySerializer, **problems(400, 401, 429)},
    )
    @action(
        detail=False,
        methods=["post"],
        throttle_classes=[SessionRateLimit],
        serializer_class=serializers.VerifySerializer,
    )
    def verify(self, request: Request) -> Response:
        form = _valid(serializers.VerifySerializer(data=request.data))
        services.verify_token(**form)
        return Response({})


class UserViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, GenericViewSet[User]):
    """Oneself at `/users/me/`; everybody else is for operations staff alone."""

    queryset = User.objects.all()
    serializer_class = serializers.UserSerializer
    permission_classes = [IsStaff]
    filterset_class = UserFilter
    lookup_value_converter = "uuid"

    @extend_schema(
        summary="List users (staff)",
        responses={200: serializers.UserSerializer(many=True), **problems(400, 401, 403)},
    )
    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return super().list(request, *args, **kwargs)

    @extend_schema(
        summary="Read a user (staff)",
        responses={200: serializers.UserSerializer, **problems(401, 403, 404)},
        examples=[_USER],
    )
    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return super().retrieve(request, *args, **kwargs)

    @extend_schema(
        summary="Register",
        description="Makes a user and their wallet. KYC is the next step.",
        request=serializers.UserRegistrationSerializer,
        responses={201: serializers.UserSerializer, **problems(400, 429)},
        examples=[_REGISTRATION, _USER],
        auth=[],
    )
    @action(
        detail=False,
        methods=["post"],
        authentication_classes=[],
        permission_classes=[AllowAny],
        throttle_classes=[RegisterRateLimit],
        serializer_class=serializers.UserRegistrationSerializer,
    )
    def register(self, request: Request) -> Response:
        form = _valid(serializers.UserRegistrationSerializer(data=request.data))
        user = services.register(**form)
        return Response(serializers.UserSerializer(user).data, status=http.HTTP_201_CREATED)

    @extend_schema(
        summary="Read oneself",
        responses={200: serializers.UserSerializer, **problems(401)},
        examples=[_USER],
    )
    @action(
        detail=False,
        methods=["get"],
        permission_classes=[IsAuthenticated],
        throttle_classes=[ProfileRateLimit],
    )
    def me(self, request: Request) -> Response:
        return Response(serializers.UserSerializer(caller_of(request)).data)

    @extend_schema(
        summary="Change one's names or phone number",
        description="Names stand still (409) while KYC is `pending` or `approved`.",
        request=serializers.UserProfileSerializer,
        responses={200: serializers.UserSerializer, **problems(400, 401, 409, 429)},
        examples=[
            OpenApiExample("Phone", value={"phone_number": "+4915187654321"}, request_only=True),
            _USER,
        ],
    )
    @me.mapping.patch
    def update_me(self, request: Request) -> Response:
        form = _valid(serializers.UserProfileSerializer(data=request.data))
        user = services.update_profile(user_id=caller_of(request).pk, changes=form)
        return Response(serializers.UserSerializer(user).data)

    @extend_schema(
        summary="Change one's password",
        description="Ends every session, this one too: sign in again.",
        request=serializers.PasswordChangeSerializer,
        responses={204: _NOTHING, **problems(400, 401, 429)},
    )
    @action(
        detail=False,
        methods=["post"],
        url_path="me/password",
        permission_classes=[IsAuthenticated],
        throttle_classes=[PasswordRateLimit],
        serializer_class=serializers.PasswordChangeSerializer,
    )
    def password(self, request: Request) -> Response:
        form = _valid(serializers.PasswordChangeSerializer(data=request.data))
        services.change_password(user_id=caller_of(request).pk, **form)
        return Response(status=http.HTTP_204_NO_CONTENT)

    @extend_schema(
        summary="Read one's KYC",
        responses={200: serializers.KYCRecordSerializer, **problems(401)},
    )
    @action(
        detail=False,
        methods=["get"],
        url_path="me/kyc",
        permission_classes=[IsAuthenticated],
        parser_classes=[StrictJSONParser, StrictMultiPartParser],
        throttle_classes=[DocumentRateLimit],
        serializer_class=serializers.KYCSubmissionSerializer,
    )
    def kyc(self, request: Request) -> Response:
        record = queries.kyc_record(caller_of(request))
        return Response(serializers.KYCRecordSerializer(record).data)

    @extend_schema(
        summary="Submit KYC",
        description=(
            "As JSON, or as multipart with a `document_file`. What was submitted stands still; "
            "after a rejection a new submission begins anew."
        ),
        request={
            "application/json": serializers.KYCSubmissionJSONSerializer,
            "multipart/form-data": serializers.KYCSubmissionSerializer,
        },
        responses={202: serializers.KYCRecordSerializer, **problems(400, 401, 409, 429)},
        examples=[_IDENTITY],
    )
    @kyc.mapping.post
    def submit_kyc(self, request: Request) -> Response:
        form = _valid(serializers.KYCSubmissionSerializer(data=request.data))
        user = services.submit_kyc(
            user_id=caller_of(request).pk, today=timezone.now().date(), **form
        )
        record = serializers.KYCRecordSerializer(queries.kyc_record(user))
        return Response(record.data, status=http.HTTP_202_ACCEPTED)

    @extend_schema(
        summary="Approve a KYC submission (reviewers)",
        description="Only from `pending`, and never one's own.",
        request=NoBodySerializer,
        responses={200: serializers.UserSerializer, **problems(400, 401, 403, 404, 409)},
        examples=[_USER],
    )
    @action(
        detail=True,
        methods=["post"],
        url_path="kyc/approve",
        permission_classes=[IsKYCReviewer],
        serializer_class=NoBodySerializer,
    )
    def approve_kyc(self, request: Request, pk: UUID) -> Response:
        _valid(NoBodySerializer(data=request.data))
        user = services.approve_kyc(user_id=pk, reviewer=caller_of(request))
        return Response(serializers.UserSerializer(user).data)

    @extend_schema(
        summary="Reject a KYC submission (reviewers)",
        description="Only from `pending`, and never one's own. The user reads the reason.",
        request=serializers.KYCRejectionSerializer,
        responses={200: serializers.UserSerializer, **problems(400, 401, 403, 404, 409)},
        examples=[
            OpenApiExample(
                "Unreadable", value={"reason": "The photo is unreadable."}, request_only=True
            ),
            _USER,
        ],
    )
    @action(
        detail=True,
        methods=["post"],
        url_path="kyc/reject",
        permission_classes=[IsKYCReviewer],
        serializer_class=serializers.KYCRejectionSerializer,
    )
    def reject_kyc(self, request: Request, pk: UUID) -> Response:
        form = _valid(serializers.KYCRejectionSerializer(data=request.data))
        user = services.reject_kyc(user_id=pk, reviewer=caller_of(request), **form)
        return Response(serializers.UserSerializer(user).data)


def _valid(form: Any) -> dict[str, Any]:
    form.is_valid(raise_exception=True)
    valid: dict[str, Any] = form.validated_data
    return valid


@require_GET
@login_required(login_url="admin:login")
def kyc_document(request: HttpRequest, submission_id: UUID) -> FileResponse:
    """A submission's document, for reviewers signed in to the admin, who mount this view there.

    A download that no browser opens by itself, and a permanent record that it was read.
    """
    assert isinstance(request.user, User)  # noqa: S101 - `login_required` made sure
    try:
        document = services.open_document(submission_id=submission_id, reader=request.user)
    except NotPermitted as refusal:
        raise PermissionDenied from refusal
    except UserNotFound as refusal:
        raise Http404 from refusal
    return FileResponse(
        document.file,
        as_attachment=True,
        filename=document.filename,
        content_type=document.media_type,
        headers={
            "X-Content-Type-Options": "nosniff",
            "Content-Security-Policy": "default-src 'none'; sandbox",
            "Cache-Control": "private, no-store",
        },
    )
