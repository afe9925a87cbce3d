"""Users, and the review of their KYC.

Who somebody is, and what they prove about it, is theirs to say, through the API. Staff decide about
it, deactivate people, and (superusers) let other staff in.
"""

from typing import Any, ClassVar

from django import forms
from django.contrib import admin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.forms import BaseUserCreationForm
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import URLPattern, path, reverse
from unfold.contrib.filters.admin import BooleanRadioFilter, ChoicesDropdownFilter
from unfold.decorators import action, display
from unfold.enums import ActionVariant
from unfold.forms import AdminPasswordChangeForm
from unfold.widgets import UnfoldAdminPasswordWidget, UnfoldAdminTextareaWidget

from fintech_core.admin import (
    NOTHING,
    AskingAdmin,
    CreatedFilter,
    HistoryAdmin,
    HistoryInline,
    ListAdmin,
    Question,
    is_superuser,
    link,
    link_to,
    uuid_in,
)
from users import queries, services
from users.exceptions import NotPermitted
from users.models import (
    REASON_MAX_LENGTH,
    KYCDocumentAccess,
    KYCStatus,
    KYCStep,
    KYCSubmission,
    Session,
    User,
)
from users.services import CHANGE_PERMISSION, REVIEW_PERMISSION
from users.validators import plain_text
from users.views import kyc_document

KYC_COLOURS = dict.fromkeys(KYCStatus) | {
    KYCStatus.PENDING: "warning",
    KYCStatus.APPROVED: "success",
    KYCStatus.REJECTED: "danger",
}

APPROVE = Question(
    title="Approve KYC",
    explanation="They may then send money. There is no way back from approved.",
    button="Approve",
)
DEACTIVATE = Question(
    title="Deactivate",
    explanation="They are signed out everywhere at once, and cannot sign in. Their money stays.",
    button="Deactivate",
    is_dangerous=True,
)
ACTIVATE = Question(title="Activate", explanation="They may sign in again.", button="Activate")


def may_review(request: HttpRequest) -> bool:
    return request.user.has_perm(REVIEW_PERMISSION)


# --- Forms ---------------------------------------------------------------------------------------


class ReasonForm(forms.Form):
    reason = forms.CharField(
        max_length=REASON_MAX_LENGTH,
        validators=[plain_text],
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 4}),
        help_text="The customer reads this.",
    )


REJECT = Question(
    title="Reject KYC",
    explanation="They read your reason, and may submit again.",
    button="Reject",
    form_class=ReasonForm,
    is_dangerous=True,
)


class StaffCreationForm(BaseUserCreationForm):
    """A new member of staff. Customers register themselves."""

    class Meta:
        model = User
        fields = ("email", "first_name", "last_name", "groups")

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        for name in ("password1", "password2"):
            self.fields[name].widget = UnfoldAdminPasswordWidget({"autocomplete": "new-password"})
        self.instance.is_staff = True


class PasswordForm(AdminPasswordChangeForm):
    """Writes the password and nothing else: the rest of the row may have changed meanwhile."""

    def set_password_and_save(self, user: User, commit: bool = True, **options: Any) -> User:
        super().set_password_and_save(user, commit=False, **options)
        user.save(update_fields=["password"])
        return user


# --- What belongs to a user ----------------------------------------------------------------------


class KYCSubmissionInline(HistoryInline):
    model = KYCSubmission
    verbose_name_plural = "KYC submissions, newest first"
    fields = ["created_at", "document_type", "number", "document", "date_of_birth", "address"]
    hide_title = True

    def get_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        return self.fields if may_review(request) else self.fields[:4]

    def get_formset(self, request: HttpRequest, obj: Any = None, **options: Any) -> Any:
        self.shows_numbers = may_review(request)  # a new inline is made for each request
        return super().get_formset(request, obj, **options)

    @display(description="Number")
    def number(self, submission: KYCSubmission) -> str:
        if self.shows_numbers:
            return submission.document_number
        return submission.masked_document_number

    @display(description="Document")
    def document(self, submission: KYCSubmission) -> str:
        return document_link(submission, shown=self.shows_numbers)

    @display(description="Address")
    def address(self, submission: KYCSubmission) -> str:
        return address_of(submission)


def document_link(submission: KYCSubmission, *, shown: bool) -> str:
    """Reviewers alone get a link; each use of it is recorded for good."""
    if not submission.document_file:
        return NOTHING
    if not shown:
        return "For reviewers"
    return link_to(reverse("admin:users_kyc_document", args=[submission.pk]), "Download")


def address_of(declared: KYCSubmission | User) -> str:
    parts = [
        declared.address_line1,
        declared.address_line2,
        f"{declared.postal_code} {declared.city}".strip(),
        declared.country,
    ]
    return ", ".join(part for part in parts if part) or NOTHING


class KYCStepInline(HistoryInline):
    model = KYCStep
    fk_name = "user"
    verbose_name_plural = "KYC record, newest first"
    fields = ["created_at", "from_status", "to_status", "by", "reason"]
    hide_title = True

    related = ["actor"]

    @display(description="By")
    def by(self, step: KYCStep) -> str:
        return link(step.actor)


@admin.register(User)
class UserAdmin(DjangoUserAdmin, AskingAdmin, ListAdmin):
    """Customers and staff.

    Only superusers change rows, and only what makes somebody staff. All else here is an action that
    calls a service, or may be looked at alone.
    """

    list_display = ["email", "name", "kyc", "is_active", "is_staff", "date_joined"]
    list_filter = [
        ("kyc_status", ChoicesDropdownFilter),
        ("is_active", BooleanRadioFilter),
        ("is_staff", BooleanRadioFilter),
        ("date_joined", CreatedFilter),
    ]
    ordering: ClassVar[Any] = ["-pk"]
    search_fields: ClassVar[Any] = ["email"]
    search_help_text = "Beginning of email, name or phone number; or id"
    filter_horizontal = []
    inlines = [KYCSubmissionInline, KYCStepInline]
    form = forms.ModelForm
    add_form = StaffCreationForm
    change_password_form = PasswordForm
    add_fieldsets = [
        (
            "New member of staff",
            {
                "fields": [
                    "email",
                    "first_name",
                    "last_name",
                    "password1",
                    "password2",
                    "groups",
                ]
            },
        )
    ]
    actions_detail = ["approve_kyc", "reject_kyc", "deactivate", "activate", "set_password"]
    EDITABLE = {"is_staff", "is_superuser", "groups"}

    # --- The list

    def get_ordering(self, request: HttpRequest) -> Any:
        """Whoever waits for KYC waits in a queue: first come, first served."""
        waiting = request.GET.get("kyc_status__exact") == KYCStatus.PENDING
        return ["pk"] if waiting else ["-pk"]

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        return queries.search_users(queryset, search_term), False

    @display(description="Name")
    def name(self, user: User) -> str:
        return user.get_full_name() or NOTHING

    @display(description="KYC", label=KYC_COLOURS)
    def kyc(self, user: User) -> tuple[str, str]:
        return user.kyc_status, user.get_kyc_status_display()

    # --- One user

    def get_fieldsets(self, request: HttpRequest, obj: User | None = None) -> Any:
        if obj is None:
            return self.add_fieldsets
        fieldsets: list[Any] = [
            (None, {"fields": ["email", "name", "phone_number", "date_joined", "last_login"]}),
            ("KYC", {"fields": ["kyc_status", "rejection"]}),
        ]
        if may_review(request):
            fieldsets.append(("Declared identity", {"fields": ["date_of_birth", "address"]}))
        access = ["is_active", "is_staff", "is_superuser", "groups"]
        return [*fieldsets, ("Access", {"fields": access}), ("Money", {"fields": ["wallet_page"]})]

    def get_readonly_fields(self, request: HttpRequest, obj: User | None = None) -> list[str]:
        """Nobody changes what they may do themselves."""
        if obj is None:
            return []
        editable = set() if obj == request.user else self.EDITABLE
        shown = [
            name for _, options in self.get_fieldsets(request, obj) for name in options["fields"]
        ]
        return [name for name in shown if name not in editable]

    def get_inlines(self, request: HttpRequest, obj: User | None) -> Any:
        return self.inlines if obj else []

    @display(description="Reason of rejection")
    def rejection(self, user: User) -> str:
        return user.kyc_rejection_reason or NOTHING

    @display(description="Address")
    def address(self, user: User) -> str:
        return address_of(user)

    @display(description="Wallet")
    def wallet_page(self, user: User) -> str:
        """By name: this app does not know that wallets exist."""
        return link_to(f"{reverse('admin:wallet_wallet_changelist')}?q={user.pk}", "Wallet")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return is_superuser(request)

    def has_change_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        return is_superuser(request)

    def has_delete_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        return False

    def save_model(self, request: HttpRequest, obj: User, form: Any, change: bool) -> None:
        """Writes what was changed and nothing else: the row may have moved on meanwhile."""
        if change:
            obj.save(update_fields=set(form.changed_data) & {"is_staff", "is_superuser"})
        else:
            super().save_model(request, obj, form, change)

    # --- What staff do (permissions by method: unfold looks those with a dot up in the database
    # when Django checks itself, which it does before the first migration)

    def has_review_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return may_review(request)

    def has_activation_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm(CHANGE_PERMISSION)

    def get_urls(self) -> list[URLPattern]:
        document = path(
            "documents/<uuid:submission_id>/",
            self.admin_site.admin_view(kyc_document),
            name="users_kyc_document",
        )
        return [document, *super().get_urls()]

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> list[Any]:
        """Those that make sense for this user, and that the caller may use."""
        user = self.get_object(request, str(object_id))
        offered = super().get_actions_detail(request, object_id)
        useful = {
            "approve_kyc": bool(user and user.kyc_status == KYCStatus.PENDING),
            "reject_kyc": bool(user and user.kyc_status == KYCStatus.PENDING),
            "deactivate": bool(user and user.is_active),
            "activate": bool(user and not user.is_active),
            "set_password": is_superuser(request),
        }
        return [one for one in offered if useful[one.action_name.removeprefix("users_user_")]]

    @action(
        description="Approve KYC",
        url_path="approve-kyc",
        icon="check",
        variant=ActionVariant.SUCCESS,
        permissions=["review"],
    )
    def approve_kyc(self, request: HttpRequest, object_id: str) -> HttpResponse:
        def approve(user: User) -> str:
            services.approve_kyc(user_id=user.pk, reviewer=_staff(request))
            return "KYC approved."

        return self.ask(request, object_id, APPROVE, approve)

    @action(
        description="Reject KYC",
        url_path="reject-kyc",
        icon="close",
        variant=ActionVariant.DANGER,
        permissions=["review"],
    )
    def reject_kyc(self, request: HttpRequest, object_id: str) -> HttpResponse:
        def reject(user: User, reason: str) -> str:
            services.reject_kyc(user_id=user.pk, reviewer=_staff(request), reason=reason)
            return f"KYC rejected: {reason}"

        return self.ask(request, object_id, REJECT, reject)

    @action(
        description="Deactivate",
        url_path="deactivate",
        icon="block",
        permissions=["activation"],
    )
    def deactivate(self, request: HttpRequest, object_id: str) -> HttpResponse:
        def set_inactive(user: User) -> str:
            return _set_active(request, user, is_active=False)

        return self.ask(request, object_id, DEACTIVATE, set_inactive)

    @action(description="Activate", url_path="activate", icon="undo", permissions=["activation"])
    def activate(self, request: HttpRequest, object_id: str) -> HttpResponse:
        def set_active(user: User) -> str:
            return _set_active(request, user, is_active=True)

        return self.ask(request, object_id, ACTIVATE, set_active)

    @action(description="Set password", url_path="set-password", icon="key")
    def set_password(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Superusers alone: a password is a customer's money."""
        return redirect(reverse("admin:auth_user_password_change", args=[object_id]))


def _staff(request: HttpRequest) -> User:
    assert isinstance(request.user, User)  # noqa: S101 - the admin let nobody else in
    return request.user


def _set_active(request: HttpRequest, user: User, *, is_active: bool) -> str:
    if user.is_superuser and not is_superuser(request):
        raise NotPermitted("Only a superuser may do this to a superuser.")
    services.set_active(user_id=user.pk, is_active=is_active, actor=_staff(request))
    return "Activated." if is_active else "Deactivated."


# --- Submissions, and who read them --------------------------------------------------------------


class KYCDocumentAccessInline(HistoryInline):
    model = KYCDocumentAccess
    verbose_name_plural = "Who read the document"
    fields = ["created_at", "who"]
    hide_title = True

    related = ["reader"]

    @display(description="Reader")
    def who(self, access: KYCDocumentAccess) -> str:
        return link(access.reader)


@admin.register(KYCSubmission)
class KYCSubmissionAdmin(HistoryAdmin):
    """What was declared and shown, as it was at that moment; the decision is on the user's page."""

    list_display = ["created_at", "person", "document_type", "country", "has_document"]
    list_display_links = ["created_at"]
    list_filter = [("created_at", CreatedFilter)]
    search_help_text = "Beginning of email, name or phone number; or id"
    inlines = [KYCDocumentAccessInline]
    fields = ["person", "created_at", "document_type", "number", "has_document"]

    related = ["user"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[KYCSubmission]:
        """A list decrypts nothing."""
        return super().get_queryset(request).defer("document_number")

    def found_by(self, text: str) -> Q:
        key = uuid_in(text)
        return Q(pk=key) | Q(user=key) if key else Q(user__in=queries.found_ids(text))

    @display(description="User")
    def person(self, submission: KYCSubmission) -> str:
        return link(submission.user)

    @display(description="Number")
    def number(self, submission: KYCSubmission) -> str:
        return submission.masked_document_number

    @display(description="Document", boolean=True)
    def has_document(self, submission: KYCSubmission) -> bool:
        return bool(submission.document_file)


@admin.register(Session)
class SessionAdmin(HistoryAdmin):
    """Where people are signed in through the API. Deactivation and a new password end them all."""

    list_display = ["created_at", "person", "expires_at", "revoked_at", "revoked_reason"]
    list_display_links = None
    related = ["user"]
    list_filter = [("created_at", CreatedFilter)]
    search_help_text = "Beginning of email, name or phone number; or a user's id"
    fields = ["person", "created_at", "expires_at", "revoked_at", "revoked_reason"]

    def found_by(self, text: str) -> Q:
        key = uuid_in(text)
        return Q(pk=key) | Q(user=key) if key else Q(user__in=queries.found_ids(text))

    @display(description="User")
    def person(self, session: Session) -> str:
        return link(session.user)
