"""How batches of transfers look from outside."""

from collections.abc import Mapping, Sequence
from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from fintech_core.money import BalanceField
from fintech_core.serializers import StrictSerializer
from transactions.batches import Batch, BatchResult, LegResult
from transactions.models import LEGS_MAX, TransferBatch, TransferBatchLeg
from transactions.serializers.transactions import TransferRequestSerializer
from transactions.services import Transfer


class BatchRequestSerializer(StrictSerializer):
    """Checks shape only, of every leg; an error names the leg: `transfers[3].amount`."""

    mode = serializers.ChoiceField(choices=TransferBatch.Mode.choices)
    transfers: serializers.ListSerializer[Any] = serializers.ListSerializer(
        child=TransferRequestSerializer(), allow_empty=False, max_length=LEGS_MAX
    )


def to_batch(asked: Mapping[str, Any]) -> Batch:
    """What a validated request asks for."""
    legs = [Transfer(**leg) for leg in asked["transfers"]]
    return Batch(mode=TransferBatch.Mode(asked["mode"]), legs=legs)


class RefusalSerializer(serializers.Serializer[Any]):
    """Why a leg was refused: as in the problem that a transfer would get."""

    code = serializers.CharField()
    title = serializers.CharField()
    detail = serializers.CharField()


class LegResultSerializer(serializers.Serializer[LegResult]):
    """What became of a leg: either `transaction_id` or `error` is there, the other is null."""

    index = serializers.IntegerField(help_text="Its place in `transfers`, from 0.")
    status = serializers.ChoiceField(choices=TransferBatchLeg.Status.choices)
    transaction_id = serializers.UUIDField(allow_null=True)
    error = RefusalSerializer(allow_null=True)

    def to_representation(self, leg: LegResult) -> dict[str, Any]:
        """By hand: a batch shows a thousand of them."""
        refusal = leg.refusal
        return {
            "index": leg.index,
            "status": leg.status,
            "transaction_id": str(leg.made.id) if leg.made else None,
            "error": RefusalSerializer(refusal).data if refusal else None,
        }


class BatchSerializer(serializers.ModelSerializer[TransferBatch]):
    """A batch and what became of each leg. `total` is what moved."""

    total = BalanceField()
    results = serializers.SerializerMethodField()

    class Meta:
        model = TransferBatch
        fields = (
            "id",
            "mode",
            "status",
            "count",
            "succeeded",
            "failed",
            "total",
            "currency",
            "results",
        )
        read_only_fields = fields

    @extend_schema_field(LegResultSerializer(many=True))
    def get_results(self, batch: TransferBatch) -> Sequence[Mapping[str, Any]]:
        shown = LegResultSerializer()
        return [shown.to_representation(leg) for leg in self.context["legs"]]


def present_batch(result: BatchResult) -> Mapping[str, Any]:
    return BatchSerializer(result.batch, context={"legs": result.legs}).data
