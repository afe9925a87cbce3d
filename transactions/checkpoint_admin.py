"""Signed checkpoints in the admin: whether each is genuine, and taking one now."""

import base64
from typing import Any

from django.contrib import admin, messages
from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.html import format_html
from unfold.decorators import action, display
from unfold.enums import ActionVariant

from fintech_core.admin import HistoryAdmin, Question, change_page, link, list_page
from fintech_core.parsers import is_digits
from transactions import checkpoints, signing
from transactions.models import LedgerCheckpoint
from transactions.question_admin import FreshQuestionAdmin

TAKE_PERMISSION = "transactions.add_ledgercheckpoint"
NUMBER_MAX = 2**63 - 1
ROOT_SHOWN = 16

GENUINE, UNKNOWN_KEY, CHANGED = "genuine", "unknown_key", "changed"
SIGNATURES = {
    GENUINE: "Genuine",
    UNKNOWN_KEY: "Unknown key",
    CHANGED: "Not what was signed",
}
SIGNATURE_COLOURS = {GENUINE: "success", UNKNOWN_KEY: "warning", CHANGED: "danger"}
EXPLANATIONS = {
    GENUINE: "The signature fits the payload, the columns say the same, and the key is ours.",
    UNKNOWN_KEY: "The signature fits the payload, but the key is not in LEDGER_SIGNING_KEY.",
    CHANGED: "Signature, payload and columns do not fit together: run `manage.py verify_ledger`.",
}

TAKE = Question(
    title="Take a checkpoint",
    explanation=(
        "It covers whatever was posted until now. Nobody has to wait for it, and nothing happens "
        "if nothing was posted since the last one."
    ),
    button="Take it now",
)


@admin.register(LedgerCheckpoint)
class LedgerCheckpointAdmin(FreshQuestionAdmin, HistoryAdmin):
    list_display = [
        "numbered",
        "created_at",
        "wallets",
        "entries",
        "outside",
        "root_begin",
        "state",
    ]
    list_display_links = ["numbered"]
    search_help_text = "Number of a checkpoint"
    fieldsets = [
        (None, {"fields": ["number", "created_at", "checked"]}),
        ("What it counts", {"fields": ["wallets", "entries", "outside"]}),
        ("What it signs", {"fields": ["root_hash", "follows", "signed_text"]}),
        ("Signature (Ed25519)", {"fields": ["signature_text", "key_id", "public_key_text"]}),
    ]
    actions_list = ["take"]

    def found_by(self, text: str) -> Q:
        is_number = is_digits(text) and int(text[:20]) <= NUMBER_MAX
        return Q(pk=int(text[:20])) if is_number else Q(pk__in=[])

    @display(description="Number")
    def numbered(self, checkpoint: LedgerCheckpoint) -> str:
        return str(checkpoint.number)

    @display(description="Wallets")
    def wallets(self, checkpoint: LedgerCheckpoint) -> int:
        return checkpoint.wallet_count

    @display(description="Entries of wallets")
    def entries(self, checkpoint: LedgerCheckpoint) -> int:
        return checkpoint.entry_count

    @display(description="Beside wallets")
    def outside(self, checkpoint: LedgerCheckpoint) -> int:
        """Transactions that touch no wallet."""
        return checkpoint.outside_count

    @display(description="Root begins")
    def root_begin(self, checkpoint: LedgerCheckpoint) -> str:
        """Its beginning, which is enough to compare by eye."""
        return _code(f"{bytes(checkpoint.root).hex()[:ROOT_SHOWN]}…")

    @display(description="Signature", label=SIGNATURE_COLOURS)
    def state(self, checkpoint: LedgerCheckpoint) -> tuple[str, str]:
        found = _signature_of(checkpoint)
        return found, SIGNATURES[found]

    @display(description="Signature")
    def checked(self, checkpoint: LedgerCheckpoint) -> str:
        found = _signature_of(checkpoint)
        return f"{SIGNATURES[found]}, checked just now. {EXPLANATIONS[found]}"

    @display(description="Root")
    def root_hash(self, checkpoint: LedgerCheckpoint) -> str:
        return _code(bytes(checkpoint.root).hex())

    @display(description="Follows")
    def follows(self, checkpoint: LedgerCheckpoint) -> str:
        before = LedgerCheckpoint.objects.filter(number=checkpoint.number - 1).first()
        if bytes(checkpoint.previous) != checkpoints.hash_of(before):
            return "It does not name the one before it: run `manage.py verify_ledger`."
        return format_html("{} (names its hash)", link(before)) if before else "It is the first."

    @display(description="Payload")
    def signed_text(self, checkpoint: LedgerCheckpoint) -> str:
        return _code(checkpoint.payload)

    @display(description="Signature")
    def signature_text(self, checkpoint: LedgerCheckpoint) -> str:
        return _code(_base64(checkpoint.signature))

    @display(description="Public key")
    def public_key_text(self, checkpoint: LedgerCheckpoint) -> str:
        return _code(_base64(checkpoint.public_key))

    # --- Taking one

    def has_take_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm(TAKE_PERMISSION)

    @action(
        description="Take a checkpoint now",
        url_path="take",
        icon="verified",
        variant=ActionVariant.PRIMARY,
        permissions=["take"],
    )
    def take(self, request: HttpRequest) -> HttpResponse:
        if request.method != "POST":
            form = TAKE.form_class()
            return self.question_page(request, TAKE, form, subtitle="sign where the ledger stands")
        made = self._take(request)
        return redirect(change_page(made) if made else list_page(LedgerCheckpoint))

    def _take(self, request: HttpRequest) -> LedgerCheckpoint | None:
        """Say what happened. A checkpoint commits by itself, so the staff log is written after."""
        try:
            made = checkpoints.take()
        except (checkpoints.CheckpointInProgress, checkpoints.CheckpointRefused) as refusal:
            self.message_user(request, str(refusal), messages.ERROR)
            return None
        if made is None:
            self.message_user(
                request, "Nothing was posted since the last checkpoint.", messages.INFO
            )
            return None
        self.log_addition(request, made, "Taken.")
        done = f"Taken. Entries signed: {made.entry_count}; wallets: {made.wallet_count}."
        self.message_user(request, done, messages.SUCCESS)
        return made


def _signature_of(checkpoint: LedgerCheckpoint) -> str:
    if not checkpoints.is_genuine(checkpoint):
        return CHANGED
    is_ours = bytes(checkpoint.public_key) in signing.own_public_keys()
    return GENUINE if is_ours else UNKNOWN_KEY


def _base64(value: bytes | memoryview) -> str:
    return base64.b64encode(value).decode()


def _code(text: str) -> str:
    """Long and without spaces: it may break anywhere."""
    return format_html('<span class="break-all font-mono text-xs">{}</span>', text)
