"""Reconciliation in the admin: runs, a report to upload, and breaks, the oldest first."""

from datetime import date, timedelta
from typing import Any

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.core.files.uploadedfile import UploadedFile
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.utils import timezone
from unfold.contrib.filters.admin import ChoicesDropdownFilter, DropdownFilter
from unfold.decorators import action, display
from unfold.enums import ActionVariant
from unfold.widgets import (
    UnfoldAdminFileFieldWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextareaWidget,
    UnfoldAdminTextInputWidget,
)

from fintech_core.admin import (
    AskingAdmin,
    CreatedFilter,
    HistoryAdmin,
    Question,
    change_page,
    link,
    list_page,
    money,
    uuid_in,
)
from fintech_core.database import lowest_id_at
from fintech_core.exceptions import DomainError
from payments import reconciliation
from payments.models import ReconciliationBreak, ReconciliationRun
from payments.models.reconciliation import NOTE_MAX_LENGTH
from users.models import User

FILE_SIZE_MAX = 5 * 1024 * 1024  # more is for the command
AGES = (1, 3, 7, 30)  # days
RUN_COLOURS = {
    ReconciliationRun.Status.RUNNING: "info",
    ReconciliationRun.Status.MATCHED: "success",
    ReconciliationRun.Status.BREAKS: "warning",
    ReconciliationRun.Status.FAILED: "danger",
}
BREAK_COLOURS = {
    ReconciliationBreak.Status.OPEN: "danger",
    ReconciliationBreak.Status.FOUND_LATER: "success",
    ReconciliationBreak.Status.RESOLVED: "info",
}


class ReportForm(forms.Form):
    gateway = forms.ChoiceField(widget=UnfoldAdminSelectWidget())
    day = forms.DateField(
        widget=UnfoldAdminTextInputWidget(attrs={"type": "date"}),
        input_formats=["%Y-%m-%d"],
        help_text="In UTC; it must be over.",
    )
    report = forms.FileField(
        widget=UnfoldAdminFileFieldWidget(),
        help_text=(
            "CSV in UTF-8, at most 5 MB, with the header "
            "subject,reference,amount,currency,settled_at. It takes the place of the day's earlier "
            "report."
        ),
    )

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        names = [(name, name) for name in settings.PAYMENT_GATEWAYS]
        field = self.fields["gateway"]
        assert isinstance(field, forms.ChoiceField)  # noqa: S101 - see above
        field.choices = names

    def clean_day(self) -> date:
        day: date = self.cleaned_data["day"]
        if day < reconciliation.FIRST_DAY:
            raise forms.ValidationError(reconciliation.TOO_EARLY)
        return day

    def clean_report(self) -> UploadedFile:
        report: UploadedFile = self.cleaned_data["report"]
        if (report.size or 0) > FILE_SIZE_MAX:
            raise forms.ValidationError("At most 5 MB. The command reads files of any size.")
        return report


class NoteForm(forms.Form):
    note = forms.CharField(
        max_length=NOTE_MAX_LENGTH,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 3}),
        help_text="What it was, and what was done about it. It stays on record for good.",
    )


UPLOAD = Question(
    title="Reconcile with a report",
    explanation=(
        "Each line is compared with our orders and the ledger. Nothing moves: what does not agree "
        "is listed as a break."
    ),
    button="Compare",
    form_class=ReportForm,
)
RESOLVE = Question(
    title="Resolve",
    explanation="Nothing moves. The break is closed with your note, and not brought up again.",
    button="Resolve",
    form_class=NoteForm,
)


@admin.register(ReconciliationRun)
class ReconciliationRunAdmin(HistoryAdmin):
    list_display = [
        "started_at",
        "gateway",
        "day",
        "source",
        "state",
        "lines",
        "matched",
        "breaks",
        "found_later",
    ]
    list_display_links = ["started_at"]
    list_filter = [("status", ChoicesDropdownFilter), ("started_at", CreatedFilter)]
    related = ["requested_by"]
    search_help_text = "An id"
    actions_list = ["upload"]
    fieldsets = [
        (None, {"fields": ["id", "gateway", "day", "source", "status", "error"]}),
        ("Found", {"fields": ["lines", "matched", "breaks", "found_later"]}),
        ("When, and by whom", {"fields": ["started_at", "finished_at", "asker"]}),
    ]

    @display(description="Status", label=RUN_COLOURS)
    def state(self, run: ReconciliationRun) -> tuple[str, str]:
        return run.status, run.get_status_display()

    @display(description="Asked for by")
    def asker(self, run: ReconciliationRun) -> str:
        return link(run.requested_by)

    # --- Upload

    def has_upload_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm(reconciliation.PERMISSION)

    @action(
        description="Upload a report",
        url_path="upload",
        icon="upload_file",
        variant=ActionVariant.PRIMARY,
        permissions=["upload"],
    )
    def upload(self, request: HttpRequest) -> HttpResponse:
        if not self.has_upload_permission(request):
            raise PermissionDenied
        is_answer = request.method == "POST"
        form = ReportForm(request.POST if is_answer else None, request.FILES if is_answer else None)
        if form.is_valid() and (run := self._compare(request, **form.cleaned_data)):
            return redirect(change_page(run))
        context = self.admin_site.each_context(request) | {
            "title": UPLOAD.title,
            "subtitle": "nothing moves",
            "opts": self.opts,
            "question": UPLOAD,
            "form": form,
            "back": list_page(ReconciliationRun),
        }
        return TemplateResponse(request, AskingAdmin.question_template, context)

    def _compare(
        self, request: HttpRequest, gateway: str, day: date, report: UploadedFile
    ) -> ReconciliationRun | None:
        """The run, recorded in the staff log; None if the report cannot be used."""
        assert report.file is not None  # noqa: S101 - it was uploaded
        try:
            run = reconciliation.reconcile(
                gateway=gateway, day=day, csv_file=report.file, by=_staff(request)
            )
        except (DomainError, reconciliation.CouldNotRun) as reason:
            self.message_user(request, str(reason), messages.ERROR)
            return None
        self.log_addition(request, run, f"Uploaded {report.name}.")
        level = messages.WARNING if run.breaks else messages.SUCCESS
        told = f"{run.lines} lines: {run.matched} matched, {run.breaks} breaks."
        self.message_user(request, told, level)
        return run


class AgeFilter(DropdownFilter):
    """Open breaks that are older than so many days; an id holds the time of its making."""

    title = "age"
    parameter_name = "age"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(str(days), f"Open for more than {days} days") for days in AGES]

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[ReconciliationBreak]
    ) -> QuerySet[ReconciliationBreak]:
        if self.value() not in {str(days) for days in AGES}:
            return queryset
        moment = timezone.now() - timedelta(days=int(self.value() or 0))
        return queryset.filter(status=ReconciliationBreak.Status.OPEN, pk__lt=lowest_id_at(moment))


@admin.register(ReconciliationBreak)
class ReconciliationBreakAdmin(AskingAdmin, HistoryAdmin):
    """The oldest first: they wait the longest."""

    list_display = [
        "opened_at",
        "age",
        "kind",
        "state",
        "subject",
        "reference",
        "ours",
        "theirs",
        "gateway",
        "day",
    ]
    list_display_links = ["opened_at"]
    list_filter = [
        ("status", ChoicesDropdownFilter),
        ("kind", ChoicesDropdownFilter),
        AgeFilter,
        ("opened_at", CreatedFilter),
    ]
    ordering = ("pk",)
    related = ["first_run", "last_run", "resolved_by"]
    search_help_text = "Reference, or an id"
    actions_detail = ["resolve"]
    fieldsets = [
        (None, {"fields": ["id", "kind", "status", "age"]}),
        ("About", {"fields": ["gateway", "subject", "reference", "ours", "theirs", "day"]}),
        ("Seen", {"fields": ["opened_at", "first_seen", "last_seen"]}),
        ("Ended", {"fields": ["ended_at", "resolver", "note"]}),
    ]

    def found_by(self, text: str) -> Q:
        return Q(pk=key) if (key := uuid_in(text)) else Q(reference=text)

    @display(description="Age")
    def age(self, broken: ReconciliationBreak) -> str:
        """Until it ended, in days."""
        days = ((broken.ended_at or timezone.now()) - broken.opened_at).days
        return f"{days} day{'' if days == 1 else 's'}"

    @display(description="Status", label=BREAK_COLOURS)
    def state(self, broken: ReconciliationBreak) -> tuple[str, str]:
        return broken.status, broken.get_status_display()

    @display(description="Ours")
    def ours(self, broken: ReconciliationBreak) -> str:
        return money(broken.our_amount, broken.our_currency)

    @display(description="Theirs")
    def theirs(self, broken: ReconciliationBreak) -> str:
        return money(broken.their_amount, broken.their_currency)

    @display(description="First seen by")
    def first_seen(self, broken: ReconciliationBreak) -> str:
        return link(broken.first_run)

    @display(description="Last seen by")
    def last_seen(self, broken: ReconciliationBreak) -> str:
        return link(broken.last_run)

    @display(description="Resolved by")
    def resolver(self, broken: ReconciliationBreak) -> str:
        return link(broken.resolved_by)

    # --- Resolve

    def has_resolve_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm(reconciliation.PERMISSION)

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> list[Any]:
        broken = self.get_object(request, str(object_id))
        is_open = broken is not None and broken.status == ReconciliationBreak.Status.OPEN
        return super().get_actions_detail(request, object_id) if is_open else []

    @action(
        description="Resolve",
        url_path="resolve",
        icon="check",
        variant=ActionVariant.SUCCESS,
        permissions=["resolve"],
    )
    def resolve(self, request: HttpRequest, object_id: str) -> HttpResponse:
        def do(broken: ReconciliationBreak, note: str) -> str:
            reconciliation.resolve(by=_staff(request), break_id=broken.pk, note=note)
            return f"Resolved: {note}"

        return self.ask(request, object_id, RESOLVE, do)


def _staff(request: HttpRequest) -> User:
    assert isinstance(request.user, User)  # noqa: S101 - the admin let nobody else in
    return request.user
