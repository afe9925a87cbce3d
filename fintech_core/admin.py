"""What every admin page is made of: lists that never count, history that nobody rewrites, questions
that are asked before something is done."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, ClassVar
from urllib.parse import urlencode
from uuid import UUID

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.models import LogEntry
from django.contrib.auth import admin as auth_admin  # noqa: F401 - registers Group, before us
from django.contrib.auth.models import Group
from django.db import models, transaction
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.functional import cached_property
from django.utils.html import format_html
from rest_framework.exceptions import APIException
from unfold.admin import ModelAdmin, TabularInline
from unfold.contrib.filters.admin import RangeDateFilter
from unfold.decorators import display
from unfold.paginator import InfinitePaginator
from unfold.utils import parse_date_str
from unfold.views import ChangeList

from fintech_core.database import CLOCK_SLACK, lowest_id_at
from fintech_core.exceptions import DomainError, problem_of
from fintech_core.money import format_amount

PAGES_MAX = 100
NOTHING = "-"


# --- How a value looks ---------------------------------------------------------------------------


def money(amount: Decimal | None, currency: str) -> str:
    return NOTHING if amount is None else f"{format_amount(amount)} {currency}"


def change_page(target: models.Model) -> str:
    name = f"admin:{target._meta.app_label}_{target._meta.model_name}_change"
    return reverse(name, args=[target.pk])


def list_page(model: type[models.Model], **filters: object) -> str:
    page = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")
    return f"{page}?{urlencode(filters)}" if filters else page


def link(target: models.Model | None, text: str = "") -> str:
    """To the page of `target`; a dash if there is none."""
    if target is None:
        return NOTHING
    return link_to(change_page(target), text or str(target))


def link_to(page: str, text: str) -> str:
    return format_html('<a class="text-link" href="{}">{}</a>', page, text)


def uuid_in(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


# --- Lists ---------------------------------------------------------------------------------------


class WindowPaginator(InfinitePaginator):
    """The first `PAGES_MAX` pages, without asking how many there are.

    Counting a million rows takes longer than showing a page of them, and a page far down costs all
    that come before it. Whoever looks for something old searches or filters.
    """

    @cached_property
    def count(self) -> int:
        return int(self.per_page) * PAGES_MAX


class WindowChangeList(ChangeList):
    """Nobody counted, so the page claims no number of results."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        self.full_result_count = self.result_count


class CreatedFilter(RangeDateFilter):
    """Whole days (UTC), the first and the last included.

    An id (UUID version 7) holds the time of its making, so the days are a range of the primary key;
    the column itself decides at the edges.
    """

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        first, last = self._day("from"), self._day("to")
        if first:
            begin = datetime.combine(first, time.min, tzinfo=UTC)
            queryset = queryset.filter(
                **{f"{self.field_path}__gte": begin}, pk__gte=lowest_id_at(begin - CLOCK_SLACK)
            )
        if last:
            end = datetime.combine(last, time.min, tzinfo=UTC) + timedelta(days=1)
            queryset = queryset.filter(
                **{f"{self.field_path}__lt": end}, pk__lt=lowest_id_at(end + CLOCK_SLACK)
            )
        return queryset

    def _day(self, edge: str) -> date | None:
        """What is not a day within reason bounds nothing."""
        given = parse_date_str(self.used_parameters.get(f"{self.field_path}_{edge}"))
        return given if given and 1970 < given.year < 9999 else None


class ListAdmin(ModelAdmin):
    """A list that costs the same at a thousand and at a hundred million rows.

    Newest first, by the primary key, which is ordered by time. No COUNT, no sorting by columns that
    have no index, and a search that looks something up instead of reading everything.
    """

    paginator: ClassVar[Any] = WindowPaginator
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER  # each facet would be a COUNT
    ordering: ClassVar[Any] = ("-pk",)
    sortable_by: ClassVar[Any] = ()
    list_per_page = 50
    list_filter_submit = True
    list_disable_select_all = True
    list_fullwidth = True
    search_fields: ClassVar[Any] = ("pk",)  # shows the search box; `found_by` decides
    actions: ClassVar[Any] = None
    related: ClassVar[list[str]] = []  # what a row shows of others, fetched with it
    linked_lookups: ClassVar[frozenset[str]] = frozenset()  # other pages link here with these

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        """What the page offers, and no other: whoever may ask whether a column begins with "A"
        reads it letter by letter, whether it is shown or not."""
        offered = {"id__exact", "pk__exact", *self.linked_lookups}
        for choice in self.get_list_filter(request):
            if isinstance(choice, tuple):
                offered |= {f"{choice[0]}{end}" for end in ("__exact", "_from", "_to")}
            else:
                offered.add(str(choice.parameter_name))
        return lookup in offered and "\x00" not in value

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        rows = super().get_queryset(request)
        return rows.select_related(*self.related) if self.related else rows

    def get_changelist(self, request: HttpRequest, **options: Any) -> type[ChangeList]:
        return WindowChangeList

    def found_by(self, text: str) -> Q:
        """What a search finds: exact keys and indexed beginnings only."""
        return Q(pk=key) if (key := uuid_in(text)) else Q(pk__in=[])

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        text = search_term.strip()
        return (queryset.filter(self.found_by(text)) if text else queryset), False


class HistoryAdmin(ListAdmin):
    """Staff may read history; nobody, superusers included, may rewrite it.

    A mistake is undone by a new transaction, never by an edit.
    """

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class HistoryInline(TabularInline):
    """Rows of history on the page of what they belong to."""

    extra = 0
    max_num = 0
    can_delete = False
    ordering: ClassVar[Any] = ("-pk",)
    related: ClassVar[list[str]] = []

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        rows = super().get_queryset(request)
        return rows.select_related(*self.related) if self.related else rows

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return self.fields

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


# --- Asking before doing -------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked before something is done: a page of its own, so that a GET changes nothing."""

    title: str
    explanation: str
    button: str
    form_class: type[forms.Form] = forms.Form
    is_dangerous: bool = False


class AskingAdmin(ModelAdmin):
    """Detail actions that are one service call each, recorded in the staff log."""

    question_template: ClassVar[str] = "admin/question.html"

    def ask(
        self,
        request: HttpRequest,
        object_id: str,
        question: Question,
        do: Callable[..., str],
        initial: Callable[[Any], dict[str, Any]] | None = None,
    ) -> HttpResponse:
        """Show the question; once it is answered, `do(subject, **answers)`, and say what it did.

        `initial(subject)` is what the form shows before it is answered.
        """
        subject = self.get_object(request, object_id)
        if subject is None:
            return self._get_obj_does_not_exist_redirect(request, self.opts, object_id)
        form = question.form_class(
            request.POST if request.method == "POST" else None,
            initial=initial(subject) if initial else None,
        )
        if form.is_valid():
            self.attempt(request, subject, lambda: do(subject, **form.cleaned_data))
            return redirect(change_page(subject))
        context = self.admin_site.each_context(request) | {
            "title": question.title,
            "subtitle": str(subject),
            "opts": self.opts,
            "question": question,
            "form": form,
            "back": change_page(subject),
        }
        return TemplateResponse(request, self.question_template, context)

    def attempt(self, request: HttpRequest, subject: Any, do: Callable[[], str]) -> bool:
        """Do it and record it, both or neither. A refusal becomes a message, not an error."""
        try:
            with transaction.atomic():
                done = do()
                self.log_change(request, subject, done)
        except (DomainError, APIException) as refusal:
            self.message_user(request, problem_of(refusal).detail, messages.ERROR)
            return False
        self.message_user(request, done, messages.SUCCESS)
        return True


# --- Django's own: groups, and what staff did ----------------------------------------------------


class GroupAdmin(ModelAdmin):
    """Who may do what. For superusers alone: a group's permissions are its members' powers."""

    list_display = ["name"]
    search_fields = ["name"]
    ordering = ["name"]
    filter_horizontal = ["permissions"]

    def formfield_for_manytomany(self, db_field: Any, request: HttpRequest, **options: Any) -> Any:
        """Each permission's name contains its model's, which would be a query each."""
        field = super().formfield_for_manytomany(db_field, request, **options)
        if field is not None and db_field.name == "permissions":
            field.queryset = field.queryset.select_related("content_type")
        return field

    def has_add_permission(self, request: HttpRequest) -> bool:
        return is_superuser(request)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return is_superuser(request)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return is_superuser(request)


def is_superuser(request: HttpRequest) -> bool:
    return bool(request.user.is_active and request.user.is_superuser)


class StaffLogAdmin(HistoryAdmin):
    """What staff did here, and when."""

    list_display = ["action_time", "who", "what", "subject"]
    list_display_links = ["action_time"]
    related = ["user", "content_type"]
    fields = ["action_time", "who", "what", "subject"]
    search_help_text = "Id of what was changed"

    def found_by(self, text: str) -> Q:
        return Q(object_id=text)

    @display(description="Who")
    def who(self, entry: LogEntry) -> str:
        return link(entry.user)

    @display(description="What")
    def what(self, entry: LogEntry) -> str:
        return entry.get_change_message() or entry.get_action_flag_display()

    @display(description="Of")
    def subject(self, entry: LogEntry) -> str:
        page = entry.get_admin_url()
        name = f"{entry.content_type}: {entry.object_repr}"
        return link_to(page, name) if page else name


admin.site.unregister(Group)
admin.site.register(Group, GroupAdmin)
admin.site.register(LogEntry, StaffLogAdmin)

# Last, for it is made of what stands above.
from fintech_core.webhooks import admin as _webhooks  # noqa: E402, F401 - registers its pages
