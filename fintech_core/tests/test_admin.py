"""The admin as a whole: who gets in, what nobody may change, and that no list reads everything."""

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from html import unescape
from typing import Any

import pytest
from django.apps import apps
from django.contrib import admin
from django.contrib.auth.models import Group
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from uuid_utils.compat import uuid7

from fintech_core.admin import HistoryAdmin
from fintech_core.database import lowest_id_at
from fintech_core.models import (
    IdempotencyRecord,
    RateLimitCounter,
    WebhookDelivery,
    WebhookEndpoint,
)
from fintech_core.operations import GROUP, VIEWED_APPS, give_operations_their_permissions
from fintech_core.tests.webhooks.helpers import register_quietly
from payments.models import DepositRefund, PaymentIntent, WebhookEvent
from payments.refunds import RefundOrder
from payments.services import PaymentService
from payments.tests.factories import PaymentIntentFactory, WebhookEventFactory
from transactions.batches import Batch, transfer_batch
from transactions.models import Hold, Transaction, TransactionLedger, TransferBatch
from transactions.tests.helpers import person, reserve, send
from transactions.transfers import Transfer
from users import services
from users.models import KYCSubmission, Session, User
from users.tests.factories import PASSWORD, StaffFactory, UserFactory, sign_in
from wallet.models import Wallet

pytestmark = pytest.mark.django_db

BIG = [
    User,
    KYCSubmission,
    Session,
    Wallet,
    Transaction,
    TransactionLedger,
    TransferBatch,
    Hold,
    PaymentIntent,
    DepositRefund,
    WebhookEvent,
    WebhookEndpoint,
    WebhookDelivery,
]
HISTORY = [model for model in BIG if model is not User]
LOGIN = "/admin/login/"


def page_of(model: Any, page: str = "changelist", *args: Any) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{page}", args=args)


def client_of(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def superuser() -> User:
    return UserFactory(email="root@example.com", is_staff=True, is_superuser=True)


@pytest.fixture
def root(superuser: User) -> Client:
    return client_of(superuser)


@pytest.fixture
def operator() -> User:
    """A member of the group that migrations make."""
    user = StaffFactory(email="ops@example.com")
    for label in VIEWED_APPS:
        give_operations_their_permissions(
            app_config=apps.get_app_config(label), using="default", apps=apps
        )
    user.groups.add(Group.objects.get(name=GROUP))
    return user


def history() -> dict[Any, Any]:
    """One row of everything, made as in production."""
    alice, bob = person("100.00"), person()
    sign_in(alice)
    register_quietly(alice)
    send(alice, bob, "10.00")
    reserve(alice, bob, "5.00")
    leg = Transfer(recipient=str(bob.pk), amount=Decimal("1.00"), currency="USD")
    transfer_batch(alice, Batch(mode=TransferBatch.Mode.ATOMIC, legs=[leg, leg]))
    intent = PaymentIntentFactory(status="succeeded")
    asked = RefundOrder(intent_id=intent.pk, amount=Decimal("1.00"), reason="Paid twice.")
    refunder = StaffFactory(permissions=["payments.refund_deposit"])
    PaymentService.order_refund(staff=refunder, asked=asked)
    WebhookEventFactory(status="parked")
    return {model: model.objects.order_by("-pk").first() for model in BIG}


class TestTheDoor:
    def test_given_nobody_when_opening_any_page_then_they_must_sign_in(self):
        for model in BIG:
            response = Client().get(page_of(model))
            assert response.status_code == 302
            assert response["Location"].startswith(LOGIN)

    def test_given_a_customer_when_opening_the_admin_then_they_must_sign_in_as_staff(self):
        response = client_of(UserFactory()).get("/admin/")
        assert response.status_code == 302
        assert response["Location"].startswith(LOGIN)

    def test_given_a_customer_when_signing_in_then_refused(self):
        client, customer = Client(), UserFactory()
        response = client.post(LOGIN, {"username": customer.email, "password": PASSWORD})
        assert response.status_code == 200
        assert "staff account" in response.content.decode()
        assert "sessionid" not in client.cookies

    def test_given_staff_when_signing_in_then_they_see_the_overview(self, superuser):
        client = Client()
        response = client.post(
            f"{LOGIN}?next=/admin/",
            {"username": "ROOT@example.com", "password": PASSWORD},
            follow=True,
        )
        assert response.status_code == 200
        assert "KYC waiting" in response.content.decode()

    def test_given_too_many_attempts_when_signing_in_then_429_here_and_at_the_api(
        self, superuser, settings
    ):
        settings.RATE_LIMIT_LOGIN = "2/m"
        form = {"username": superuser.email, "password": "wrong"}
        for _ in range(2):
            assert Client().post(LOGIN, form).status_code == 200
        response = Client().post(LOGIN, {"username": superuser.email.upper(), "password": PASSWORD})
        assert response.status_code == 429
        assert int(response["Retry-After"]) >= 1
        at_the_api = Client(REMOTE_ADDR="192.0.2.7").post(
            "/api/v1/auth/login/",
            {"email": superuser.email, "password": PASSWORD},
            content_type="application/json",
        )
        assert at_the_api.status_code == 429

    @pytest.mark.parametrize(
        "spelling", ["\uff32oot@example.com", " root@example.com\t", "ROOT\uff20example.com"]
    )
    def test_given_other_letters_for_the_same_account_when_guessing_then_one_counter(
        self, superuser, settings, spelling
    ):
        settings.RATE_LIMIT_LOGIN = "2/m"
        for n in range(2):
            form = {"username": superuser.email, "password": "wrong"}
            Client(REMOTE_ADDR=f"192.0.2.{n}").post(LOGIN, form)
        form = {"username": spelling, "password": PASSWORD}
        assert Client(REMOTE_ADDR="192.0.2.9").post(LOGIN, form).status_code == 429

    def test_given_an_address_elsewhere_to_return_to_when_signing_in_then_the_overview(
        self, superuser
    ):
        response = Client().post(
            f"{LOGIN}?next=https://evil.example/",
            {"username": superuser.email, "password": PASSWORD, "next": "https://evil.example/"},
        )
        assert (response.status_code, response["Location"]) == (302, "/admin/")

    def test_given_a_session_when_the_password_changes_then_it_is_over(self, root, superuser):
        assert root.get("/admin/").status_code == 200
        superuser.set_password("another good password")
        superuser.save(update_fields=["password"])
        assert root.get("/admin/").status_code == 302

    def test_given_a_session_when_deactivated_then_it_is_over(self, root, superuser):
        User.objects.filter(pk=superuser.pk).update(is_active=False)
        assert root.get("/admin/").status_code == 302

    @pytest.mark.parametrize("way", ["service", "sql", "stale object"])
    def test_given_a_session_when_deactivated_and_let_in_again_then_it_stays_over(
        self, root, superuser, way
    ):
        for is_active in (False, True):
            if way == "service":
                other = UserFactory(is_staff=True, is_superuser=True)
                services.set_active(user_id=superuser.pk, is_active=is_active, actor=other)
            elif way == "sql":
                with connection.cursor() as cursor:
                    cursor.execute(
                        "UPDATE users_user SET is_active = %s, deactivation_count = 0"
                        " WHERE id = %s",
                        [is_active, superuser.pk],
                    )
            else:
                superuser.is_active = is_active
                superuser.save()
        assert root.get("/admin/").status_code == 302
        fresh = User.objects.get(pk=superuser.pk)
        assert client_of(fresh).get("/admin/").status_code == 200

    def test_given_staff_when_changing_their_password_then_it_works(self, root, superuser):
        form = {
            "old_password": PASSWORD,
            "new_password1": "another good password",
            "new_password2": "another good password",
        }
        assert root.get("/admin/password_change/").status_code == 200
        assert root.post("/admin/password_change/", form).status_code == 302
        superuser.refresh_from_db()
        assert superuser.check_password("another good password")
        assert root.get("/admin/").status_code == 200

    def test_given_too_many_guesses_when_changing_the_password_then_429(self, root, settings):
        settings.RATE_LIMIT_LOGIN = "2/m"
        form = {"old_password": "wrong", "new_password1": "x", "new_password2": "x"}
        statuses = [root.post("/admin/password_change/", form).status_code for _ in range(3)]
        assert statuses == [200, 200, 429]


class TestPages:
    def test_given_history_when_a_superuser_opens_each_page_then_200(self, root):
        for model, row in history().items():
            assert root.get(page_of(model)).status_code == 200, model
            assert root.get(page_of(model, "change", row.pk)).status_code == 200, model
        for path in (
            "/admin/",
            "/admin/auth/group/",
            "/admin/auth/group/add/",
            "/admin/admin/logentry/",
        ):
            assert root.get(path).status_code == 200, path

    def test_given_operations_when_opening_each_page_then_200_and_nothing_to_add(self, operator):
        client = client_of(operator)
        for model, row in history().items():
            assert client.get(page_of(model)).status_code == 200, model
            assert client.get(page_of(model, "change", row.pk)).status_code == 200, model
            assert client.get(page_of(model, "add")).status_code == 403, model
        assert client.get("/admin/").status_code == 200

    def test_given_staff_without_permissions_when_opening_any_page_then_403(self):
        client = client_of(StaffFactory())
        for model, row in history().items():
            assert client.get(page_of(model)).status_code == 403, model
            refused = client.get(page_of(model, "change", row.pk))
            assert refused.status_code == 403, model
            assert "text/html" in refused["Content-Type"]
        overview = client.get("/admin/").content.decode()
        assert "Parked webhook events" not in overview

    def test_given_an_unknown_page_when_opened_then_a_404_page(self, root):
        response = root.get("/admin/nothing/here/")
        assert response.status_code == 404
        assert "text/html" in response["Content-Type"]

    def test_given_bookkeeping_of_ours_then_it_is_never_listed(self, root):
        assert not admin.site.is_registered(IdempotencyRecord)
        assert not admin.site.is_registered(RateLimitCounter)
        assert root.get("/admin/fintech_core/idempotencyrecord/").status_code == 404

    @pytest.mark.parametrize("search", ["alice", "0192", "\x00", "a" * 5000, "TX-", "'; --", "%"])
    def test_given_any_text_when_searching_then_a_page(self, root, search):
        history()
        for model in BIG:
            assert root.get(page_of(model), {"q": search}).status_code == 200, model

    def test_given_wrong_filters_when_listing_then_no_error(self, root):
        history()
        for model in BIG:
            for query in ("p=99999999", "p=x", "all=", "o=1", "pk__exact=x", "status__exact=x"):
                status = root.get(f"{page_of(model)}?{query}").status_code
                assert status in (200, 302, 400), (model, query)

    @pytest.mark.parametrize(
        ("model", "query"),
        [
            (User, "kyc_status__exact=%00"),
            (User, "date_of_birth__gte=1990-01-01"),
            (User, "address_line1__startswith=1"),
            (User, "password__startswith=bcrypt"),
            (KYCSubmission, "date_of_birth__exact=1990-05-17"),
            (KYCSubmission, "user__date_of_birth__exact=1990-05-17"),
            (Session, "refresh_jti__startswith=a"),
            (PaymentIntent, "client_secret__startswith=sbx"),
            (WebhookEvent, "body__contains=x"),
            (Transaction, "metadata__a=x"),
            (TransferBatch, "mode__exact=atomic"),
            (WebhookEndpoint, "secret__startswith=g"),
            (WebhookDelivery, "event__data__contains=x"),
        ],
    )
    def test_given_a_lookup_that_the_page_does_not_offer_when_listing_then_400(
        self, root, model, query
    ):
        response = root.get(f"{page_of(model)}?{query}")
        assert response.status_code == 400
        assert "text/html" in response["Content-Type"]

    def test_given_too_many_parameters_when_listing_then_a_page_says_so(self, root):
        query = "&".join(f"a{number}=1" for number in range(101))
        response = root.get(f"{page_of(Wallet)}?{query}")
        assert response.status_code == 400
        assert "text/html" in response["Content-Type"]
        assert "cannot be asked that" in response.content.decode()

    def test_given_what_pages_link_with_when_listing_then_200(self, root):
        wallet = person("1.00").wallet
        for model, query in [
            (User, "kyc_status__exact=pending&is_staff__exact=1"),
            (WebhookEvent, "status__exact=parked"),
            (TransactionLedger, f"wallet__exact={wallet.pk}"),
            (TransactionLedger, "account=wallet"),
            (Transaction, "type__exact=transfer&created_at_from=2026-01-01"),
        ]:
            assert root.get(f"{page_of(model)}?{query}").status_code == 200, query

    @pytest.mark.parametrize("more", ["", "&extended=1", "&page=2"])
    def test_given_the_name_of_a_page_when_searching_then_it_is_found(self, root, more):
        for _again in range(2):
            response = root.get(f"/admin/search/?s=Wallet{more}")
            assert response.status_code == 200
            assert page_of(Wallet) in response.content.decode()

    def test_given_other_words_when_searching_then_nothing_is_found(self, root):
        for words in ("", "?s=", "?s=nothing-of-the-kind", "?s=%00"):
            response = root.get(f"/admin/search/{words}")
            assert response.status_code == 200
            assert "/admin/" not in response.content.decode()

    def test_given_staff_who_may_see_little_when_searching_then_no_more_is_found(self):
        reader = client_of(StaffFactory(permissions=["users.view_user"]))
        assert page_of(User) in reader.get("/admin/search/?s=user").content.decode()
        assert page_of(Wallet) not in reader.get("/admin/search/?s=wallet").content.decode()

    def test_given_any_page_when_following_its_links_to_lists_then_200(self, root):
        linked = set()
        for model, row in history().items():
            page = root.get(page_of(model, "change", row.pk)).content.decode()
            linked |= set(re.findall(r'href="(/admin/[^"]*\?[^"]*)"', page))
        assert any("wallet__exact" in link for link in linked)
        for link in linked:
            assert root.get(unescape(link)).status_code == 200, link


class TestHistory:
    def test_given_history_then_every_admin_of_it_is_read_only(self):
        for model in HISTORY:
            assert isinstance(admin.site.get_model_admin(model), HistoryAdmin)

    @pytest.mark.parametrize("model", HISTORY)
    def test_given_a_superuser_when_posting_to_history_then_403_and_nothing_changed(
        self, root, model
    ):
        row = history()[model]
        before = model.objects.values().get(pk=row.pk)
        count = model.objects.count()
        form = {"status": "failed", "balance": "1000000.00", "amount": "1.00", "_save": "Save"}
        assert root.post(page_of(model, "add"), form).status_code == 403
        assert root.post(page_of(model, "change", row.pk), form).status_code == 403
        deletion = root.post(page_of(model, "delete", row.pk), {"post": "yes"})
        assert deletion.status_code == 403
        chosen = {"action": "delete_selected", "_selected_action": str(row.pk), "post": "yes"}
        root.post(page_of(model), chosen)
        assert model.objects.values().get(pk=row.pk) == before
        assert model.objects.count() == count

    def test_given_a_wallet_when_shown_then_there_is_no_field_to_fill_in(self, root):
        alice = person("100.00")
        page = root.get(page_of(Wallet, "change", alice.wallet.pk)).content.decode()
        assert "100.00 USD" in page
        assert 'name="balance"' not in page
        assert 'name="_save"' not in page

    def test_given_any_row_when_shown_then_its_values_are_written_for_people(self, root):
        for model, row in history().items():
            page = root.get(page_of(model, "change", row.pk)).content.decode()
            for sign in ("(&#x27;", "&lt;memory", "None<"):
                assert sign not in page, (model, sign)

    def test_given_a_wallet_in_the_list_when_followed_then_its_own_page(self, root):
        alice = person("100.00")
        listed = root.get(page_of(Wallet), {"q": alice.email}).content.decode()
        assert page_of(Wallet, "change", alice.wallet.pk) in listed

    def test_given_a_transaction_when_shown_then_its_entries_are_on_the_page(self, root):
        alice, bob = person("100.00"), person()
        send(alice, bob, "10.00")
        made = Transaction.objects.get(to_user=bob)
        page = root.get(page_of(Transaction, "change", made.pk)).content.decode()
        assert f"Wallet of {alice.email}" in page
        assert f"Wallet of {bob.email}" in page
        assert "90.00 USD" in page


class TestSearch:
    def test_given_a_reference_when_searching_transactions_then_that_one(self, root):
        alice, bob = person("100.00"), person()
        send(alice, bob, "10.00")
        made = Transaction.objects.get(to_user=bob)
        for text in (made.reference_id, made.reference_id.lower(), str(made.pk), bob.email[:9]):
            found = root.get(page_of(Transaction), {"q": text}).context["cl"].result_list
            assert made in list(found), text
        found = root.get(page_of(Transaction), {"q": made.reference_id}).context["cl"].result_list
        assert list(found) == [made]

    def test_given_a_person_when_searching_money_then_theirs_alone(self, root):
        alice, bob = person("100.00", email="alice-only@example.com"), person("5.00")
        wallets = root.get(page_of(Wallet), {"q": "alice-only"}).context["cl"].result_list
        assert [wallet.user for wallet in wallets] == [alice]
        entries = root.get(page_of(TransactionLedger), {"q": str(bob.wallet.pk)}).context["cl"]
        assert {entry.wallet.user for entry in entries.result_list} == {bob}

    def test_given_a_gateways_names_when_searching_payments_then_found(self, root):
        event = WebhookEventFactory(status="processed")
        for text in (event.event_id, event.gateway_reference, str(event.intent_id)):
            found = root.get(page_of(WebhookEvent), {"q": text}).context["cl"].result_list
            assert list(found) == [event], text
        found = root.get(page_of(PaymentIntent), {"q": event.gateway_reference}).context["cl"]
        assert list(found.result_list) == [event.intent]

    def test_given_days_when_filtering_then_both_edges_are_included(self, root):
        alice = person("100.00")
        made = Transaction.objects.get(to_user=alice)
        day = f"{made.created_at:%Y-%m-%d}"
        query = {"created_at_from": day, "created_at_to": day}
        assert list(root.get(page_of(Transaction), query).context["cl"].result_list) == [made]
        query = {"created_at_from": "2000-01-01", "created_at_to": "2000-01-02"}
        assert not root.get(page_of(Transaction), query).context["cl"].result_list
        nonsense = {"created_at_from": "9999-12-31", "created_at_to": "yesterday"}
        assert root.get(page_of(Transaction), nonsense).status_code == 200

    def test_given_a_moment_then_ids_made_before_are_lower_and_those_after_are_not(self):
        begun = datetime.now(tz=UTC)
        made = uuid7()
        later = datetime.now(tz=UTC) + timedelta(milliseconds=2)
        assert lowest_id_at(begun) <= made < lowest_id_at(later)


def sql_of(client: Client, path: str) -> list[str]:
    with CaptureQueriesContext(connection) as queries:
        assert client.get(path).status_code == 200
    return [query["sql"] for query in queries.captured_queries]


class TestSpeed:
    def test_given_more_rows_when_listing_then_as_many_queries(self, root):
        history()
        few = {model: len(sql_of(root, page_of(model))) for model in BIG}
        for _ in range(3):
            history()
        many = {model: len(sql_of(root, page_of(model))) for model in BIG}
        assert few == many

    def test_given_more_entries_when_showing_then_as_many_queries(self, root):
        rows = history()
        detail = {
            model: len(sql_of(root, page_of(model, "change", row.pk)))
            for model, row in rows.items()
        }
        assert max(detail.values()) < 25, detail

    @pytest.mark.parametrize("model", BIG)
    def test_given_a_big_list_when_shown_then_nothing_is_counted_or_made_distinct(
        self, root, model
    ):
        history()
        for query in ("", "?q=alice", "?_facets=True", "?p=2", "?e=1", "?all="):
            for sql in sql_of(root, page_of(model) + query):
                assert "COUNT(" not in sql.upper()
                assert "DISTINCT" not in sql.upper()

    @pytest.mark.parametrize("model", BIG)
    def test_given_a_big_list_when_shown_then_its_rows_come_from_an_index(self, root, model):
        history()
        plan = plan_of(root, model, "")
        assert "Seq Scan on" not in plan, plan
        assert "Sort" not in plan, plan

    @pytest.mark.parametrize(
        ("model", "query"),
        [
            (User, "?q=alice"),
            (User, "?kyc_status__exact=pending"),
            (User, "?is_staff__exact=1"),
            (User, "?is_active__exact=0"),
            (Wallet, "?q=0192f0c1-7b5e-7c3a-9a44-2f7d1c0f9b11"),
            (Wallet, "?q=alice"),
            (Wallet, "?status__exact=frozen"),
            (Transaction, "?q=TX-AGJPB4L3LZ6DVGSEF56RYD43CE"),
            (Transaction, "?q=0192f0c1-7b5e-7c3a-9a44-2f7d1c0f9b11"),
            (Transaction, "?type__exact=refund"),
            (Transaction, "?status__exact=pending"),
            (Transaction, "?created_at_from=2026-11-22&created_at_to=2026-11-23"),
            (TransactionLedger, "?q=TX-AGJPB4L3LZ6DVGSEF56RYD43CE"),
            (TransactionLedger, "?q=0192f0c1-7b5e-7c3a-9a44-2f7d1c0f9b11"),
            (TransactionLedger, "?account=fees"),
            (TransactionLedger, "?wallet__exact=0192f0c1-7b5e-7c3a-9a44-2f7d1c0f9b11"),
            (TransferBatch, "?q=0192f0c1-7b5e-7c3a-9a44-2f7d1c0f9b11"),
            (TransferBatch, "?q=alice"),
            (TransferBatch, "?status__exact=partial"),
            (TransferBatch, "?created_at_from=2026-11-22&created_at_to=2026-11-23"),
            (PaymentIntent, "?q=sbx_nothing"),
            (PaymentIntent, "?status__exact=failed"),
            (DepositRefund, "?q=sbx_nothing"),
            (DepositRefund, "?status__exact=failed"),
            (WebhookEvent, "?q=evt_nothing"),
            (WebhookEvent, "?status__exact=parked"),
        ],
    )
    def test_given_a_search_or_a_filter_then_an_index_answers_it(self, root, model, query):
        history()
        plan = plan_of(root, model, query)
        assert "Seq Scan on" not in plan, plan


def plan_of(client: Client, model: Any, query: str) -> str:
    """How PostgreSQL finds the rows when it must not do what is cheapest for a tiny table."""
    table = f'FROM "{model._meta.db_table}"'
    lists = [
        sql for sql in sql_of(client, page_of(model) + query) if table in sql and "LIMIT 50" in sql
    ]
    assert lists, "the list was not read"
    with connection.cursor() as cursor:
        for way in ("seqscan", "sort", "hashjoin", "mergejoin"):
            cursor.execute(f"SET LOCAL enable_{way} = off")
        cursor.execute(f"EXPLAIN {lists[-1]}")
        return "\n".join(row[0] for row in cursor.fetchall())


class TestOperations:
    def test_given_the_group_then_it_views_everything_and_reviews_and_processes_again(
        self, operator
    ):
        for model in BIG:
            assert operator.has_perm(f"{model._meta.app_label}.view_{model._meta.model_name}")
        assert operator.has_perm("users.review_kyc")
        assert operator.has_perm("payments.process_again")
        assert operator.has_perm("payments.refund_deposit")
        assert operator.has_perm("payments.settle_refund")
        assert operator.has_perm("payments.reconcile")
        assert operator.has_perm("wallet.change_status")
        assert operator.has_perm("wallet.change_limits")
        assert operator.has_perm("transactions.add_ledgercheckpoint")
        assert not operator.has_perm("users.change_user")
        assert not operator.has_perm("fintech_core.view_idempotencyrecord")

    def test_given_the_group_when_given_again_then_nothing_is_lost_or_doubled(self, operator):
        group = Group.objects.get(name=GROUP)
        before = set(group.permissions.values_list("codename", flat=True))
        give_operations_their_permissions(
            app_config=apps.get_app_config("users"), using="default", apps=apps
        )
        assert set(group.permissions.values_list("codename", flat=True)) == before
        assert Group.objects.filter(name=GROUP).count() == 1


class TestContentSecurity:
    def policy(self, response: Any) -> dict[str, str]:
        parts = [part.strip() for part in response["Content-Security-Policy"].split(";")]
        return {part.partition(" ")[0]: part.partition(" ")[2] for part in parts}

    def test_given_the_api_when_it_answers_then_a_browser_may_load_nothing(self):
        for path in ("/api/v1/users/me/", "/api/health/live/", "/nothing"):
            policy = self.policy(Client().get(path))
            assert policy["default-src"] == "'none'"
            assert "script-src" not in policy

    def test_given_the_documentation_when_opened_then_no_inline_script_is_allowed_or_there(self):
        response = Client().get("/api/docs/")
        assert self.policy(response)["script-src"] == "'self'"
        assert b"<script>" not in response.content
        script = Client().get("/api/docs/?script=")
        assert script["Content-Type"].startswith("application/javascript")

    def test_given_the_admin_when_opened_then_no_inline_script_is_allowed_or_there(self, root):
        for response in (Client().get(LOGIN), root.get("/admin/"), root.get(page_of(User))):
            policy = self.policy(response)
            assert policy["script-src"] == "'self' 'unsafe-eval'"
            assert policy["default-src"] == "'none'"
            assert policy["frame-ancestors"] == "'none'"
            assert b"<script>" not in response.content
            assert b" onclick=" not in response.content
