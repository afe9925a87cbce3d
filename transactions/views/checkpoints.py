"""Signed checkpoints for everyone who is signed in, and each owner's proof in the newest one."""

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework.decorators import action
from rest_framework.exceptions import NotFound
from rest_framework.mixins import ListModelMixin
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import GenericViewSet

from fintech_core.pagination import CursorPagination
from fintech_core.schema import problems
from transactions import checkpoints, signing
from transactions.models import LedgerCheckpoint
from transactions.serializers.checkpoints import (
    Base64Field,
    CheckpointSerializer,
    ProofSerializer,
)
from users.authentication import caller_of
from wallet.queries import wallet_of


class CheckpointPagination(CursorPagination):
    """Newest first, with the key that signs now beside the page."""

    ordering = "-number"

    def get_paginated_response(self, data: Any) -> Response:
        response = super().get_paginated_response(data)
        key = signing.public_key()
        response.data |= {
            "public_key": Base64Field().to_representation(key),
            "key_id": signing.key_id(key),
        }
        return response

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        page = super().get_paginated_response_schema(schema)
        page["properties"] |= {
            "public_key": {
                "type": "string",
                "contentEncoding": "base64",
                "description": "Ed25519, of the key that signs now.",
            },
            "key_id": {"type": "string"},
        }
        return page


class CheckpointViewSet(ListModelMixin, GenericViewSet[LedgerCheckpoint]):
    queryset = LedgerCheckpoint.objects.all()
    serializer_class = CheckpointSerializer
    pagination_class = CheckpointPagination

    @extend_schema(
        summary="List the ledger's signed checkpoints",
        description=(
            "Each signs how far the ledger had got. Keep a copy: whoever has one can prove it if "
            "anything before it is changed later. See `docs/ledger-proof.md`."
        ),
        responses={200: CheckpointSerializer(many=True), **problems(400, 401)},
    )
    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return super().list(request, *args, **kwargs)


class WalletProofViewSet(GenericViewSet[Any]):
    serializer_class = ProofSerializer

    @extend_schema(
        summary="Prove your history",
        description=(
            "That the newest checkpoint signed the seal of your wallet's entry with the number "
            "given, and so one history up to it. Keep the answer: if that entry's seal is ever "
            "another one, history was rewritten. 404 until a checkpoint has been taken after your "
            "first entry."
        ),
        responses={200: ProofSerializer, **problems(401, 404)},
    )
    @action(detail=False, url_path="me/proof")
    def proof(self, request: Request) -> Response:
        found = checkpoints.prove(wallet_of(caller_of(request).pk).pk)
        if found is None:
            raise NotFound("No checkpoint has been taken since your wallet's first entry.")
        return Response(ProofSerializer(found).data)
