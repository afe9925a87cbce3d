"""Checkpoints in the admin: whether each is genuine, and taking one now."""

import base64

import pytest
from django.contrib.admin.models import LogEntry
from django.db import connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from transactions import signing
from transactions.models import LedgerCheckpoint
from transactions.tests.helpers import breaches, fund, person
from transactions.tests.proofs import checkpoint, tamper
from users.tests.factories import StaffFactory

pytestmark = pytest.mark.django_db(transaction=True)

LIST = reverse("admin:transactions_ledgercheckpoint_changelist")
TAKE = reverse("admin:transactions_ledgercheckpoint_take")
VIEW, ADD = "transactions.view_ledgercheckpoint", "transactions.add_ledgercheckpoint"
BUTTON = "Take a checkpoint now"


def page(number: int, name: str = "change") -> str:
    return reverse(f"admin:transactions_ledgercheckpoint_{name}", args=[number])


def admin_of(*permissions: str) -> Client:
    client = Client()
    client.force_login(StaffFactory(permissions=list(permissions)))
    return client


@pytest.fixture
def staff() -> Client:
    return admin_of(VIEW, ADD)


def states(client: Client) -> list[str]:
    """What the list says of the signatures, newest first."""
    rows = client.get(LIST).context["cl"].result_list
    looks = client.get(LIST).context["cl"].model_admin
    return [looks.state(row)[1] for row in rows]


class TestLooking:
    def test_given_checkpoints_when_listed_then_counts_root_and_genuine(self, staff):
        alice = person("100.00")
        first = checkpoint()
        fund(alice, "1.00")
        checkpoint()
        html = staff.get(LIST).content.decode()
        assert bytes(first.root).hex()[:16] in html
        assert "Genuine" in html
        assert states(staff) == ["Genuine", "Genuine"]
        assert html.index(page(2)) < html.index(page(1))

    def test_given_a_checkpoint_when_shown_then_what_was_signed_as_the_api_spells_it(self, staff):
        alice = person("100.00")
        checkpoint()
        fund(alice, "1.00")
        made = checkpoint()
        html = staff.get(page(2)).content.decode()
        for text in (
            bytes(made.root).hex(),
            base64.b64encode(bytes(made.signature)).decode(),
            base64.b64encode(signing.public_key()).decode(),
            made.key_id,
            "the key is ours",
            "names its hash",
            page(1),
        ):
            assert text in html, text
        assert "It is the first." in staff.get(page(1)).content.decode()

    @pytest.mark.parametrize(
        "statement",
        [
            "UPDATE transactions_ledgercheckpoint SET entry_count = 7",
            "UPDATE transactions_ledgercheckpoint SET signature = sha512('')",
            "UPDATE transactions_ledgercheckpoint SET payload = payload || ' '",
            "UPDATE transactions_ledgercheckpoint SET public_key = sha256('')",
        ],
    )
    def test_given_a_changed_checkpoint_when_looked_at_then_it_says_so(
        self, owner, staff, statement
    ):
        person("100.00")
        checkpoint()
        tamper(owner, statement)
        assert states(staff) == ["Not what was signed"]
        assert "verify_ledger" in staff.get(page(1)).content.decode()

    def test_given_another_signing_key_when_looked_at_then_the_old_one_is_unknown(
        self, staff, settings
    ):
        person("100.00")
        checkpoint()
        settings.LEDGER_SIGNING_KEYS = [bytes(range(32))]
        assert states(staff) == ["Unknown key"]
        assert "not in LEDGER_SIGNING_KEY" in staff.get(page(1)).content.decode()

    def test_given_a_missing_one_before_when_shown_then_it_says_so(self, owner, staff):
        alice = person("100.00")
        checkpoint()
        fund(alice, "1.00")
        checkpoint()
        tamper(owner, "DELETE FROM transactions_ledgercheckpoint WHERE number = 1")
        assert "does not name the one before it" in staff.get(page(2)).content.decode()

    @pytest.mark.parametrize(
        ("text", "numbers"), [("1", [1]), (" 2 ", []), ("9" * 40, []), ("\u0661", []), ("x", [])]
    )
    def test_given_any_text_when_searching_then_the_number_or_nothing(self, staff, text, numbers):
        person("100.00")
        checkpoint()
        response = staff.get(LIST, {"q": text})
        assert response.status_code == 200
        assert [row.number for row in response.context["cl"].result_list] == numbers

    def test_given_the_list_when_shown_then_an_index_range_and_no_query_for_each_row(self, staff):
        alice = person("100.00")
        checkpoint()
        few = self.queries(staff)
        for _ in range(3):
            fund(alice, "1.00")
            checkpoint()
        many = self.queries(staff)
        assert len(few) == len(many)
        [listed] = [
            sql for sql in many if "transactions_ledgercheckpoint" in sql and "LIMIT" in sql
        ]
        assert "COUNT(" not in listed
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off")
            cursor.execute(f"EXPLAIN {listed}")
            plan = str(cursor.fetchall())
        assert "Seq Scan" not in plan
        assert "Sort" not in plan

    @staticmethod
    def queries(client: Client) -> list[str]:
        with CaptureQueriesContext(connection) as seen:
            assert client.get(LIST).status_code == 200
        return [query["sql"] for query in seen.captured_queries]


class TestTaking:
    def test_given_new_money_when_asked_and_answered_then_one_is_taken_and_logged(self, staff):
        person("100.00")
        assert BUTTON in staff.get(LIST).content.decode()
        assert "Take it now" in staff.get(TAKE).content.decode()
        assert not LedgerCheckpoint.objects.exists()
        response = staff.post(TAKE, follow=True)
        made = LedgerCheckpoint.objects.get()
        assert response.redirect_chain == [(page(made.number), 302)]
        assert "Entries signed: 1; wallets: 1." in response.content.decode()
        assert LogEntry.objects.get().object_id == "1"
        assert breaches() == []

    def test_given_nothing_new_when_taking_then_it_says_so(self, staff):
        person("100.00")
        checkpoint()
        response = staff.post(TAKE, follow=True)
        assert response.redirect_chain == [(LIST, 302)]
        assert "Nothing was posted since the last checkpoint." in response.content.decode()
        assert LedgerCheckpoint.objects.count() == 1
        assert not LogEntry.objects.exists()

    def test_given_a_rewritten_past_when_taking_then_the_refusal_is_told(self, owner, staff):
        alice = person("100.00")
        checkpoint()
        tamper(owner, "UPDATE transactions_ledgerseal SET seal = sha256('') WHERE sequence = 1")
        fund(alice, "1.00")
        response = staff.post(TAKE, follow=True)
        assert response.status_code == 200
        assert "History was rewritten" in response.content.decode()
        assert LedgerCheckpoint.objects.count() == 1

    def test_given_another_is_being_taken_when_taking_then_it_says_so(self, owner, staff, settings):
        person("100.00")
        owner.execute("BEGIN")
        owner.execute("LOCK TABLE transactions_checkpointnode IN SHARE ROW EXCLUSIVE MODE")
        try:
            with connection.cursor() as cursor:
                cursor.execute("SET lock_timeout = '50ms'")
            response = staff.post(TAKE, follow=True)
        finally:
            owner.execute("ROLLBACK")
            connection.close()
        assert "Another checkpoint is being taken." in response.content.decode()
        assert not LedgerCheckpoint.objects.exists()

    def test_given_only_the_right_to_look_when_taking_then_403_and_no_button(self):
        person("100.00")
        client = admin_of(VIEW)
        assert BUTTON not in client.get(LIST).content.decode()
        assert client.get(TAKE).status_code == 403
        assert client.post(TAKE).status_code == 403
        assert not LedgerCheckpoint.objects.exists()

    def test_given_no_permission_when_opened_then_403(self):
        person("100.00")
        checkpoint()
        client = admin_of("transactions.view_transaction")
        assert client.get(LIST).status_code == 403
        assert client.get(page(1)).status_code == 403
        assert LIST not in client.get("/admin/").content.decode()

    def test_given_a_checkpoint_when_a_superuser_tries_to_change_it_then_403(self):
        person("100.00")
        made = checkpoint()
        root = Client()
        root.force_login(StaffFactory(is_superuser=True))
        add = reverse("admin:transactions_ledgercheckpoint_add")
        for path in (add, page(1), page(1, "delete")):
            assert root.post(path, {"number": 2, "post": "yes"}).status_code == 403, path
        assert LedgerCheckpoint.objects.get().payload == made.payload
