"""A gateway's report, our orders and the ledger, compared: what agrees, and what does not."""

import io
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from types import SimpleNamespace

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection, transaction
from django.db.models.functions import Now
from django.test import override_settings

from fintech_core.exceptions import InvalidState
from fintech_core.tests.plans import explaining, plans_of
from payments import reconciliation
from payments.exceptions import GatewayUnavailable, NotFound
from payments.gateways.base import ReportLine, Subject
from payments.management.commands.reconcile import Command
from payments.models import (
    DepositRefund,
    PaymentIntent,
    ReconciliationBreak,
    ReconciliationLine,
    ReconciliationRun,
)
from payments.reconciliation import BadReport, CouldNotRun, reports
from payments.tasks import reconcile_gateways
from payments.tests.other_gateway import OtherGateway
from payments.tests.test_refunds import PATH, give_back, paid, told
from transactions.models import Transaction
from transactions.tests.helpers import at_once, breaches, fund, person, refused_by
from users.exceptions import NotPermitted
from users.tests.factories import StaffFactory

pytestmark = pytest.mark.django_db(transaction=True)

_COMPARED_TABLES = [
    "payments_reconciliationline",
    "payments_reconciliationbreak",
    "wanted",
    "compared",
    "found",
]


def today():
    return datetime.now(tz=UTC).date()


def at(hours: float = 12):
    return datetime.combine(today(), time.min, tzinfo=UTC) + timedelta(hours=hours)


@pytest.fixture(autouse=True)
def other_alone():
    with override_settings(PAYMENT_GATEWAYS={"other": PATH}):
        yield


@pytest.fixture(autouse=True)
def tomorrow(monkeypatch):
    """The day on which everything here happens is over."""
    monkeypatch.setattr(reconciliation, "_today", lambda: today() + timedelta(days=1))


@pytest.fixture
def report(monkeypatch):
    """What the gateway reports, by day."""
    state = SimpleNamespace(days={}, asked=[], error=None)

    def answer(_, day):
        assert not connection.in_atomic_block, "asked in a database transaction"
        state.asked.append(day)
        if state.error:
            raise state.error
        yield from state.days.get(day, [])

    monkeypatch.setattr(OtherGateway, "report", answer)
    return state


@pytest.fixture
def staff():
    return StaffFactory(permissions=["payments.refund_deposit", "payments.reconcile"])


def line(order, amount=None, *, currency="USD", when=None, subject=Subject.INTENT):
    reference = order if isinstance(order, str) else order.gateway_reference
    return ReportLine(
        subject=subject,
        gateway_reference=reference,
        amount=Decimal(amount) if amount else order.amount,
        currency=currency,
        at=when or at(),
    )


def run(day=None):
    return reconciliation.reconcile(gateway="other", day=day or today())


def found(status="open"):
    rows = ReconciliationBreak.objects.filter(status=status)
    return sorted(rows.values_list("kind", "reference"))


class TestMatching:
    def test_given_all_agree_when_run_then_matched_and_no_break(self, report, staff):
        intent = paid("100.00")
        give_back(staff, intent, "40.00")
        refund = DepositRefund.objects.get()
        told(refund, "return.ok")
        report.days[today()] = [line(intent), line(refund, subject=Subject.REFUND)]
        done = run()
        assert (done.status, done.lines, done.matched, done.breaks) == ("matched", 2, 2, 0)
        assert found() == []
        assert done.finished_at
        assert breaches() == []

    def test_given_a_line_that_nobody_here_knows_when_run_then_missing_here(self, report):
        report.days[today()] = [line("ch_unknown", "5.00")]
        assert (run().status, found()) == ("breaks", [("missing_here", "ch_unknown")])
        broken = ReconciliationBreak.objects.get()
        assert (broken.our_amount, broken.their_amount, broken.their_currency) == (
            None, Decimal("5.00"), "USD",
        )  # fmt: skip

    def test_given_money_that_our_intent_never_heard_of_when_run_then_missing_here(self, report):
        intent = paid()
        unpaid = PaymentIntent.objects.create(
            user=intent.user, wallet=intent.wallet, amount=Decimal("7.00"), currency="USD",
            gateway="other", gateway_reference="ch_unpaid", expires_at=Now(),
        )  # fmt: skip
        report.days[today()] = [line(intent), line(unpaid)]
        assert run().matched == 1
        assert found() == [("missing_here", "ch_unpaid")]
        assert ReconciliationBreak.objects.get().our_amount == Decimal("7.00")

    def test_given_money_that_the_gateway_does_not_report_when_run_then_missing_there(self, report):
        intent = paid()
        assert run().status == "breaks"
        assert found() == [("missing_there", intent.gateway_reference)]

    @pytest.mark.parametrize(("amount", "currency"), [("99.99", "USD"), ("100.00", "EUR")])
    def test_given_another_amount_or_currency_when_run_then_different(
        self, report, amount, currency
    ):
        intent = paid("100.00")
        report.days[today()] = [line(intent, amount, currency=currency)]
        assert (run().matched, found()) == (0, [("different_amount", intent.gateway_reference)])
        broken = ReconciliationBreak.objects.get()
        assert (broken.our_amount, broken.our_currency) == (Decimal("100.00"), "USD")
        assert (broken.their_amount, broken.their_currency) == (Decimal(amount), currency)

    @pytest.mark.parametrize("hours", [12, 13])
    def test_given_a_line_twice_when_run_then_a_duplicate(self, report, hours):
        intent = paid("100.00")
        report.days[today()] = [line(intent), line(intent, when=at(hours))]
        run()
        assert found() == [("duplicate_line", intent.gateway_reference)]
        assert ReconciliationBreak.objects.get().their_amount == Decimal("200.00")

    def test_given_a_refund_that_failed_here_when_reported_as_sent_then_missing_here(
        self, report, staff
    ):
        intent = paid("100.00")
        give_back(staff, intent, "40.00")
        refund = DepositRefund.objects.get()
        told(refund, "return.failed")
        report.days[today()] = [line(intent), line(refund, subject=Subject.REFUND)]
        run()
        assert found() == [("missing_here", refund.gateway_reference)]

    def test_given_a_refund_that_failed_on_both_sides_when_run_then_matched(self, report, staff):
        intent = paid("100.00")
        give_back(staff, intent, "40.00")
        told(DepositRefund.objects.get(), "return.failed")
        report.days[today()] = [line(intent)]
        assert (run().status, found()) == ("matched", [])

    def test_given_a_credit_without_an_intent_when_run_then_ledger_only_and_once(self, report):
        made = fund(person(), "3.00")
        run()
        run()
        assert found() == [("ledger_only", made.reference_id)]
        assert ReconciliationBreak.objects.get().gateway == ""

    def test_given_an_order_whose_entry_is_gone_when_run_then_not_in_ledger(self, report, owner):
        intent = paid("100.00")
        owner.execute(
            "SET session_replication_role = replica;"
            " UPDATE transactions_transactionledger SET account = 'fees'"
            f" WHERE transaction_id = '{intent.transaction_id}' AND wallet_id IS NULL;"
            " SET session_replication_role = origin"
        )
        report.days[today()] = [line(intent)]
        run()
        assert found() == [("not_in_ledger", intent.gateway_reference)]

    def test_given_the_same_reference_of_another_subject_when_run_then_not_mixed_up(self, report):
        intent = paid("100.00")
        report.days[today()] = [line(intent), line(intent, subject=Subject.PAYOUT)]
        run()
        [broken] = ReconciliationBreak.objects.all()
        assert (broken.kind, broken.subject) == ("missing_here", "payout")


class TestMidnight:
    @pytest.mark.parametrize("days", [-1, 1])
    def test_given_it_stands_in_the_neighbours_day_when_run_then_matched(self, report, days):
        intent = paid()
        neighbour = today() + timedelta(days=days)
        report.days[neighbour] = [line(intent, when=at(-0.01 if days < 0 else 24.01))]
        assert (run().status, found()) == ("matched", [])

    def test_given_a_neighbour_that_was_run_when_running_then_it_is_not_asked_for_again(
        self, report
    ):
        yesterday, tomorrow = today() - timedelta(days=1), today() + timedelta(days=1)
        run(yesterday)
        assert report.asked == [yesterday, yesterday - timedelta(days=1), today()]
        report.asked.clear()
        run()
        assert report.asked == [today(), tomorrow]

    def test_given_the_neighbours_file_comes_later_when_it_is_run_then_found_later(self, report):
        intent = paid()
        yesterday = today() - timedelta(days=1)
        upload("", day=today())
        assert found() == [("missing_there", intent.gateway_reference)]
        moment = at(-0.01).isoformat()
        done = upload(
            f"payment_intent,{intent.gateway_reference},100.00,USD,{moment}\n", day=yesterday
        )
        assert (done.found_later, found()) == (1, [])
        assert found("found_later") == [("missing_there", intent.gateway_reference)]


class TestLateLines:
    """Lines that stand on the day of the order, and appear or go away days after it."""

    @pytest.fixture(autouse=True)
    def late(self, monkeypatch):
        monkeypatch.setattr(OtherGateway, "settles_within_days", 7)

    def test_given_a_line_on_an_earlier_day_when_it_appears_as_we_settle_then_matched(self, report):
        made_on = today() - timedelta(days=5)
        run(made_on)
        intent = paid()
        report.days[made_on] = [line(intent, when=at(12 - 5 * 24))]
        assert (run().status, found()) == ("matched", [])
        run()
        assert ReconciliationLine.objects.count() == 1

    def test_given_a_line_that_appears_when_it_is_not_settled_here_then_missing_here(self, report):
        made_on = today() - timedelta(days=2)
        run(made_on)
        report.days[made_on] = [line("ch_late", when=at(12 - 2 * 24), amount="5.00")]
        done = run()
        assert (done.status, done.breaks, found()) == ("breaks", 1, [("missing_here", "ch_late")])

    def test_given_a_line_that_went_away_when_run_then_missing_there(self, report, monkeypatch):
        intent = paid()
        report.days[today()] = [line(intent)]
        assert run().status == "matched"
        report.days.clear()
        monkeypatch.setattr(reconciliation, "_today", lambda: today() + timedelta(days=2))
        assert run(today() + timedelta(days=1)).breaks == 1
        assert found() == [("missing_there", intent.gateway_reference)]

    def test_given_days_that_were_run_when_running_then_asked_again_but_not_beyond(self, report):
        for ago in (9, 8, 7, 1):
            run(today() - timedelta(days=ago))
        report.asked.clear()
        run()
        assert sorted(report.asked) == [today() + timedelta(days=ago) for ago in range(-7, 2)]

    def test_given_a_file_was_read_for_a_day_when_running_then_its_lines_stay(self, report):
        earlier = today() - timedelta(days=3)
        upload(f"payment_intent,ch_1,5.00,USD,{earlier}T10:00:00Z\n", day=earlier)
        run()
        assert earlier not in report.asked
        assert ReconciliationLine.objects.get().day == earlier


class TestAgain:
    def test_given_an_older_break_when_it_turns_into_another_then_the_new_one_counts(self, report):
        intent = paid("100.00")
        run()
        assert found() == [("missing_there", intent.gateway_reference)]
        before = today() - timedelta(days=2)
        report.days[before] = [line(intent, "99.00", when=at(-40))]
        done = run(today() - timedelta(days=1))
        assert found() == [("different_amount", intent.gateway_reference)]
        assert (done.status, done.matched, done.breaks, done.found_later) == ("breaks", 0, 1, 1)

    def test_given_a_break_when_run_again_then_still_one_and_its_age_stays(self, report):
        paid()
        run()
        first = ReconciliationBreak.objects.get()
        run()
        again = ReconciliationBreak.objects.get()
        assert (again.opened_at, again.first_run) == (first.opened_at, first.first_run)
        assert again.last_run != first.last_run

    def test_given_the_line_arrives_when_run_again_then_found_later(self, report):
        intent = paid()
        run()
        report.days[today()] = [line(intent)]
        done = run()
        assert (done.status, done.found_later) == ("matched", 1)
        assert found("found_later") == [("missing_there", intent.gateway_reference)]

    def test_given_a_report_that_was_corrected_when_run_again_then_the_latest_counts(self, report):
        intent = paid()
        report.days[today()] = [line(intent), line("ch_wrong", "1.00")]
        run()
        report.days[today()] = [line(intent)]
        assert run().status == "matched"
        assert ReconciliationLine.objects.count() == 1

    def test_given_a_break_of_an_older_day_when_explained_by_another_run_then_found_later(
        self, report
    ):
        report.days[today()] = [line("ch_late", "9.00")]
        run()
        assert found() == [("missing_here", "ch_late")]
        intent = paid("9.00")
        # As if its event had come the day after, under the reference that was reported.
        with_reference(intent, "ch_late")
        run(today() - timedelta(days=1))
        assert ("missing_here", "ch_late") in found("found_later")

    def test_given_a_resolved_break_when_run_again_then_it_stays_resolved(self, report, staff):
        paid()
        run()
        broken = ReconciliationBreak.objects.get()
        reconciliation.resolve(by=staff, break_id=broken.pk, note="Asked the gateway: their bug.")
        done = run()
        assert (done.status, done.breaks, found()) == ("matched", 0, [])
        assert ReconciliationBreak.objects.count() == 1

    def test_given_a_resolved_break_when_its_facts_change_then_a_new_one_and_the_note_stays(
        self, report, staff
    ):
        intent = paid()
        report.days[today()] = [line(intent, "99.00")]
        run()
        first = ReconciliationBreak.objects.get()
        reconciliation.resolve(by=staff, break_id=first.pk, note="A fee of 1.00.")
        report.days[today()] = [line(intent, "98.00")]
        assert run().breaks == 1
        [second] = ReconciliationBreak.objects.filter(status="open")
        assert second.their_amount == Decimal("98.00")
        first.refresh_from_db()
        assert (first.note, first.their_amount) == ("A fee of 1.00.", Decimal("99.00"))

    def test_given_runs_when_at_once_then_one_runs_and_the_others_are_refused(self, report):
        paid()
        results = at_once(*[run] * 5)
        ran = [one for one in results if isinstance(one, ReconciliationRun)]
        assert len(ran) + sum(isinstance(one, InvalidState) for one in results) == 5
        assert ran
        assert ReconciliationBreak.objects.count() == 1
        assert not ReconciliationRun.objects.filter(status="running").exists()


def with_reference(intent, reference):
    from conftest import owner_cursor

    with owner_cursor() as owner:
        owner.execute("SET session_replication_role = replica")
        owner.execute(
            "UPDATE payments_paymentintent SET gateway_reference = %s WHERE id = %s",
            [reference, str(intent.pk)],
        )


class TestFailing:
    def test_given_the_gateway_does_not_answer_when_run_then_on_record_and_nothing_changed(
        self, report
    ):
        paid()
        report.error = GatewayUnavailable("No answer within 10 seconds.")
        with pytest.raises(CouldNotRun):
            run()
        failed = ReconciliationRun.objects.get()
        assert failed.status == "failed"
        assert "No answer" in failed.error
        assert found() == []

    def test_given_a_report_that_breaks_off_when_run_then_the_lines_before_are_not_there(
        self, report, monkeypatch
    ):
        def breaks_off(_, day):
            yield line("ch_1", "1.00")
            raise GatewayUnavailable

        monkeypatch.setattr(OtherGateway, "report", breaks_off)
        with pytest.raises(CouldNotRun):
            run()
        assert ReconciliationLine.objects.count() == 0

    def test_given_something_unheard_of_when_run_then_failed_and_raised(self, report):
        report.error = RuntimeError("unheard of")
        with pytest.raises(RuntimeError):
            run()
        assert ReconciliationRun.objects.get().status == "failed"
        report.error = None
        assert run().status == "matched"  # the lock was given back

    def test_given_it_is_interrupted_when_run_then_failed_and_the_next_may_run(self, report):
        report.error = KeyboardInterrupt()
        with pytest.raises(KeyboardInterrupt):
            run()
        assert ReconciliationRun.objects.get().status == "failed"
        report.error = None
        assert run().status == "matched"

    @pytest.mark.parametrize("day", [date.min, date(1999, 12, 31)])
    def test_given_a_day_before_2000_when_run_then_refused(self, report, day):
        with pytest.raises(InvalidState, match="2000"):
            run(day)
        with pytest.raises(InvalidState, match="2000"):
            upload("", day=day)
        assert ReconciliationRun.objects.count() == 0

    def test_given_a_run_that_died_when_running_again_then_it_is_put_down_as_failed(self, report):
        dead = ReconciliationRun.objects.create(
            gateway="other", day=today(), source="gateway",
            started_at=datetime.now(tz=UTC) - timedelta(hours=2),
        )  # fmt: skip
        run()
        dead.refresh_from_db()
        assert (dead.status, dead.error) == ("failed", "It was cut short.")

    def test_given_a_run_that_goes_on_when_running_then_refused_and_it_may_finish(self, report):
        going = ReconciliationRun.objects.create(gateway="other", day=today(), source="gateway")
        with pytest.raises(InvalidState):
            run()
        with refused_by("payments_reconciliationrun_one_at_a_time"), transaction.atomic():
            ReconciliationRun.objects.create(gateway="other", day=today(), source="gateway")
        going.refresh_from_db()
        assert going.status == "running"

    def test_given_a_line_that_cannot_be_when_run_then_failed(self, report):
        report.days[today()] = [line("ch_1", "1.005")]
        with pytest.raises(CouldNotRun, match="two decimals"):
            run()

    def test_given_a_day_that_is_not_over_or_no_such_gateway_when_run_then_refused(self, report):
        with pytest.raises(InvalidState):
            run(today() + timedelta(days=1))
        with pytest.raises(NotFound):
            reconciliation.reconcile(gateway="nobody", day=today())
        with pytest.raises(NotFound):
            reconciliation.reconcile(gateway="nobody", day=today(), csv_file=io.BytesIO())
        assert ReconciliationRun.objects.count() == 0

    def test_given_staff_without_the_permission_when_running_or_resolving_then_refused(
        self, report
    ):
        paid()
        run()
        with pytest.raises(NotPermitted):
            reconciliation.reconcile(gateway="other", day=today(), by=StaffFactory())
        with pytest.raises(NotPermitted):
            reconciliation.resolve(
                by=StaffFactory(), break_id=ReconciliationBreak.objects.get().pk, note="x"
            )


HEADER = "subject,reference,amount,currency,settled_at\n"


def upload(lines, day=None, header=HEADER):
    body = lines if isinstance(lines, bytes) else (header + lines).encode()
    return reconciliation.reconcile(gateway="other", day=day or today(), csv_file=io.BytesIO(body))


class TestCSV:
    def test_given_a_file_when_run_then_compared_and_the_gateway_is_not_asked(self, report):
        intent = paid("100.00")
        body = f"payment_intent,{intent.gateway_reference},100.00,USD,{today()}T10:00:00Z\n"
        done = upload(body)
        assert (done.status, done.source, done.matched) == ("matched", "csv", 1)
        assert report.asked == []

    @pytest.mark.parametrize("mark", [b"\xef\xbb\xbf", b""])
    @pytest.mark.parametrize("newline", [b"\r\n", b"\n"])
    def test_given_a_byte_order_mark_or_other_newlines_when_read_then_the_same(self, mark, newline):
        body = f'{HEADER}refund,"re,1",0.01,USD,{today()}T23:59:59.999999+00:00\n'
        body = body.replace('"re,1"', "re_1")
        done = upload(mark + body.encode().replace(b"\n", newline))
        assert done.lines == 1

    @pytest.mark.parametrize(
        ("row", "fault"),
        [
            ("charge,ch_1,1.00,USD,{day}T10:00:00Z", "subject"),
            ("payment_intent,,1.00,USD,{day}T10:00:00Z", "reference"),
            ("payment_intent,ch 1,1.00,USD,{day}T10:00:00Z", "reference"),
            ("payment_intent,ch_1,0.00,USD,{day}T10:00:00Z", "amount"),
            ("payment_intent,ch_1,-1.00,USD,{day}T10:00:00Z", "amount"),
            ("payment_intent,ch_1,1e3,USD,{day}T10:00:00Z", "amount"),
            ("payment_intent,ch_1,NaN,USD,{day}T10:00:00Z", "amount"),
            ('payment_intent,ch_1,"1,000.00",USD,{day}T10:00:00Z', "amount"),
            ("payment_intent,ch_1,1.00,usd,{day}T10:00:00Z", "currency"),
            ("payment_intent,ch_1,1.00,USD,{day}", "settled_at"),
            ("payment_intent,ch_1,1.00,USD,{day}T10:00:00", "settled_at"),
            ("payment_intent,ch_1,1.00,USD,{day}T25:00:00Z", "settled_at"),
            ("payment_intent,ch_1,1.00,USD,2020-01-01T10:00:00Z", "settled_at"),
            ("payment_intent,ch_1,1.00,USD", "4 fields"),
            ("payment_intent,ch_1,1.00,USD,{day}T10:00:00Z,more", "6 fields"),
            ("", "0 fields"),
            ('payment_intent,"ch_1,1.00,USD,{day}T10:00:00Z', "Line 3"),
            ("payment_intent,ch\x001,1.00,USD,{day}T10:00:00Z", "Line 3"),
        ],
    )
    def test_given_a_wrong_line_when_read_then_its_number_and_its_fault_and_nothing_is_used(
        self, row, fault
    ):
        good = f"payment_intent,ch_0,1.00,USD,{today()}T10:00:00Z\n"
        with pytest.raises(CouldNotRun, match="Line 3") as refusal:
            upload(good + row.format(day=today()) + "\n")
        assert fault in str(refusal.value)
        assert ReconciliationLine.objects.count() == 0
        assert ReconciliationRun.objects.get().status == "failed"

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"reference,amount\n",
            b"\xff\xfe" + HEADER.encode("utf-16-le"),
            HEADER.replace(",", ";").encode(),
            b"%PDF-1.7 \x80\x81",
        ],
    )
    def test_given_another_kind_of_file_when_read_then_refused(self, body):
        with pytest.raises(CouldNotRun):
            upload(body)

    def test_given_a_wrong_encoding_further_down_when_read_then_refused(self):
        row = f"payment_intent,ch_1,1.00,USD,{today()}T10:00:00Z\n"
        with pytest.raises(CouldNotRun, match="UTF-8"):
            upload((HEADER + row).encode() + b"payment_intent,\xe9,1.00,USD,x\n")

    @pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+05:00", "9999-12-31T23:59:59-05:00"])
    def test_given_a_time_beyond_the_calendar_when_read_then_its_line_is_named(self, moment):
        with pytest.raises(CouldNotRun, match="Line 2: settled_at"):
            upload(f"payment_intent,ch_1,1.00,USD,{moment}\n")

    def test_given_a_thousand_wrong_lines_when_read_then_the_first_are_told(self):
        lines = reports.from_csv(io.BytesIO((HEADER + "x\n" * 1000).encode()), today())
        with pytest.raises(BadReport) as refusal:
            list(lines)
        assert len(refusal.value.errors) == reports.ERRORS_MAX + 1

    def test_given_fifty_thousand_lines_when_run_then_all_are_compared(self):
        rows = (f"payment_intent,ch_{n},1.00,USD,{today()}T10:00:00Z\n" for n in range(50_000))
        done = upload("".join(rows))
        assert (done.lines, done.breaks) == (50_000, 50_000)

    @pytest.mark.parametrize("counted", [0, -1])
    def test_given_wrong_statistics_when_run_then_no_statement_reads_a_table_over_and_over(
        self, owner, counted
    ):
        """Autovacuum counts no rows on many pages when it comes while a run is not committed."""

        def report(first):
            return "".join(
                f"payment_intent,ch_{n},1.00,USD,{today()}T10:00:00Z\n"
                for n in range(first, first + 1_000)
            )

        upload(report(0))
        with explaining(owner):
            owner.execute(
                "UPDATE pg_class SET reltuples = %s, relpages = 1000"
                " WHERE relname LIKE 'payments\\_reconciliation%%' AND relkind = 'r'",
                [counted],
            )
            plans = plans_of(lambda: upload(report(500)))
        read = {
            plan.statement: plan.rows({*_COMPARED_TABLES})
            for plan in plans
            if "reconciliation" in plan.statement or "found" in plan.statement
        }
        assert len(read) > 10
        assert [(rows, statement) for statement, rows in read.items() if rows > 10_000] == []


class TestCommand:
    def call(self, **options):
        call_command("reconcile", gateway="other", date=today(), no_progress=True, **options)

    def test_given_all_agree_when_called_then_it_says_so(self, report, capsys):
        report.days[today()] = [line(paid())]
        self.call()
        assert "1 matched, 0 breaks" in capsys.readouterr().out

    def test_given_breaks_when_called_then_exit_code_1_and_each_is_named(self, report, capsys):
        intent = paid()
        with pytest.raises(CommandError) as end:
            self.call()
        assert end.value.returncode == 1
        assert intent.gateway_reference in capsys.readouterr().err

    def test_given_no_answer_or_no_file_when_called_then_exit_code_2(self, report, tmp_path):
        report.error = GatewayUnavailable()
        with pytest.raises(CommandError) as end:
            self.call()
        assert end.value.returncode == 2
        with pytest.raises(CommandError) as end:
            self.call(csv=tmp_path / "none.csv")
        assert end.value.returncode == 2
        (tmp_path / "bad.csv").write_text("nonsense\n")
        with pytest.raises(CommandError, match="Line 1") as end:
            self.call(csv=tmp_path / "bad.csv")
        assert end.value.returncode == 2

    @pytest.mark.parametrize("error", [OperationalError("no route"), RuntimeError("unheard of")])
    def test_given_anything_else_goes_wrong_when_called_then_exit_code_2(self, report, error):
        report.error = error
        with pytest.raises(CommandError, match=type(error).__name__) as end:
            self.call()
        assert end.value.returncode == 2

    def test_given_the_database_is_away_when_called_then_exit_code_2_and_no_secret_is_told(
        self, monkeypatch
    ):
        def away(**_):
            raise OperationalError("could not connect to postgresql://app:hunter22@db/fintech")

        monkeypatch.setattr(reconciliation, "reconcile", away)
        with pytest.raises(CommandError) as end:
            self.call()
        assert end.value.returncode == 2
        assert "hunter22" not in str(end.value)

    def test_given_a_day_beyond_the_calendar_when_called_then_exit_code_2(self):
        with pytest.raises(CommandError, match="2000") as end:
            call_command("reconcile", gateway="other", date=date.min, no_progress=True)
        assert end.value.returncode == 2

    @pytest.mark.parametrize("day", ["20261122", "2026-W47-7", "2026-11-31", ""])
    def test_given_a_day_written_otherwise_when_called_then_it_is_refused(self, day):
        with pytest.raises(CommandError, match="--date"):
            call_command("reconcile", "--gateway", "sandbox", "--date", day, "--no-progress")

    def test_given_the_command_then_no_check_runs_before_it(self):
        assert not Command.requires_system_checks


class TestTheJob:
    def test_given_its_time_is_over_when_it_runs_then_no_other_day_is_begun(self, report):
        report.error = SoftTimeLimitExceeded()
        with pytest.raises(SoftTimeLimitExceeded):
            reconcile_gateways()
        assert ReconciliationRun.objects.get().status == "failed"

    def test_given_a_day_that_failed_when_it_runs_then_the_others_come_first(self, report):
        report.error = SoftTimeLimitExceeded()
        with pytest.raises(SoftTimeLimitExceeded):
            reconcile_gateways()
        failed = ReconciliationRun.objects.get().day
        report.error = None
        reconcile_gateways()
        assert ReconciliationRun.objects.latest("started_at").day == failed

    def test_given_a_long_day_when_it_is_done_then_the_others_wait_for_the_next_time(
        self, report, monkeypatch
    ):
        monkeypatch.setattr(reconciliation, "BEGINNING_SECONDS_MAX", 0)
        reconcile_gateways()
        assert ReconciliationRun.objects.filter(status="matched").count() == 1
        reconcile_gateways()
        assert ReconciliationRun.objects.filter(status="matched").count() == 2

    def test_given_its_time_limits_then_it_ends_before_it_would_be_handed_out_again(self):
        visible = settings.CELERY_BROKER_TRANSPORT_OPTIONS["visibility_timeout"]
        assert reconcile_gateways.soft_time_limit < reconcile_gateways.time_limit < visible
        begun, day = reconciliation.BEGINNING_SECONDS_MAX, reconciliation.JOB_SECONDS_MAX
        assert begun + day < reconcile_gateways.soft_time_limit

    def test_given_days_that_were_missed_when_it_runs_then_each_is_run_once(self, report):
        paid()
        reconcile_gateways()
        days = set(ReconciliationRun.objects.values_list("day", flat=True))
        assert days == {
            today() - timedelta(days=ago) for ago in range(settings.RECONCILIATION_DAYS)
        }
        count = ReconciliationRun.objects.count()
        reconcile_gateways(something_new=1)
        assert ReconciliationRun.objects.count() == count

    def test_given_one_that_failed_when_it_runs_again_then_it_is_tried_again(self, report):
        report.error = RuntimeError("unheard of")
        reconcile_gateways()
        assert set(ReconciliationRun.objects.values_list("status", flat=True)) == {"failed"}
        report.error = None
        reconcile_gateways()
        assert ReconciliationRun.objects.filter(status="matched").count() == 3


class TestRules:
    """PostgreSQL refuses what the code forgot."""

    @pytest.fixture
    def broken(self, report):
        paid()
        run()
        return ReconciliationBreak.objects.get()

    def update(self, row, **changes):
        with transaction.atomic():
            type(row).objects.filter(pk=row.pk).update(**changes)

    def test_given_a_resolution_when_it_changes_then_refused(self, broken, staff):
        reconciliation.resolve(by=staff, break_id=broken.pk, note="Their bug.")
        with refused_by("payments_reconciliationbreak_ended_once"):
            self.update(broken, note="Ours.")
        with pytest.raises(InvalidState):
            reconciliation.resolve(by=staff, break_id=broken.pk, note="Again.")

    def test_given_no_note_or_nobody_when_resolved_then_refused(self, broken, staff):
        for facts in ({"note": " ", "resolved_by": staff}, {"note": "x"}):
            with refused_by("payments_reconciliationbreak_ended_means_how"):
                self.update(broken, status="resolved", ended_at=Now(), **facts)

    @pytest.mark.parametrize("column", ["reference", "opened_at", "kind"])
    def test_given_a_break_when_what_it_is_about_changes_then_refused(self, broken, column):
        values = {"reference": "x", "opened_at": Now(), "kind": "ledger_only"}
        with refused_by("payments_reconciliationbreak_is_frozen"):
            self.update(broken, **{column: values[column]})

    def test_given_a_second_one_when_open_then_refused(self, broken):
        copy = ReconciliationBreak.objects.get(pk=broken.pk)
        with refused_by("payments_reconciliationbreak_open_once"), transaction.atomic():
            ReconciliationBreak(
                gateway=copy.gateway, subject=copy.subject, reference=copy.reference,
                kind=copy.kind, day=copy.day, first_run=copy.first_run, last_run=copy.last_run,
            ).save()  # fmt: skip

    def test_given_a_finished_run_when_changed_then_refused(self, broken):
        with refused_by("payments_reconciliationrun_is_frozen"):
            self.update(broken.first_run, matched=5)

    @pytest.mark.parametrize(
        "table", ["payments_reconciliationbreak", "payments_reconciliationrun"]
    )
    def test_given_even_the_owner_when_rows_are_removed_then_refused(self, broken, owner, table):
        for statement in (f"DELETE FROM {table}", f"TRUNCATE {table} CASCADE"):
            with pytest.raises(Exception, match="never deleted"):
                owner.execute(statement)

    def test_given_new_breaks_when_made_then_their_ids_follow_time(self, report):
        paid()
        run()
        first = ReconciliationBreak.objects.get()
        assert first.pk.version == 7
        paid()
        run()
        assert Transaction.objects.count() == 2
        newest = ReconciliationBreak.objects.latest("opened_at")
        assert newest.pk > first.pk
