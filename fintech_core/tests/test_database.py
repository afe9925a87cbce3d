"""Statements that travel together arrive in the order in which they were sent."""

import os
import socket
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from io import StringIO
from threading import Event
from types import SimpleNamespace

import psycopg2
import pytest
from django.db import (
    DataError,
    IntegrityError,
    InterfaceError,
    InternalError,
    OperationalError,
    ProgrammingError,
    connection,
    transaction,
)
from django.db.transaction import TransactionManagementError
from django.test.utils import CaptureQueriesContext

from fintech_core.database import (
    execute,
    give_time,
    query,
    send_along,
    sent_together,
    sqlstate,
    violated_constraint,
)
from fintech_core.postgresql import patience
from fintech_core.postgresql.patience import hang_up_on_the_silent

pytestmark = pytest.mark.django_db(transaction=True)

NOTE = "INSERT INTO noted (what) VALUES (%(what)s)"


@pytest.fixture
def noted():
    execute("CREATE TEMPORARY TABLE noted (number serial, what text)")
    yield lambda: [row[0] for row in query("SELECT what FROM noted ORDER BY number")]
    execute("DROP TABLE noted")


def test_given_statements_sent_along_when_one_asks_then_all_went_before_it(noted):
    with transaction.atomic(), sent_together():
        send_along(NOTE, what="100 %s; 'quoted' \\")
        send_along(NOTE, what="two")
        assert noted() == ["100 %s; 'quoted' \\", "two"]
        send_along(NOTE, what="three")
    assert noted()[-1] == "three"


def test_given_an_inner_company_when_sent_along_then_it_does_not_overtake(noted):
    with transaction.atomic(), sent_together():
        send_along(NOTE, what="outer")
        with sent_together():
            send_along(NOTE, what="inner")
        assert noted() == ["outer", "inner"]


def test_given_an_exception_when_statements_wait_then_they_never_go(noted):
    @transaction.atomic
    def fail():
        with sent_together():
            send_along(NOTE, what="lost")
            raise LookupError

    with pytest.raises(LookupError):
        fail()
    assert noted() == []


def test_given_no_parameters_when_carried_then_a_percent_sign_means_the_same(noted):
    with transaction.atomic(), sent_together(), connection.cursor() as cursor:
        send_along(NOTE, what="first")
        cursor.execute("SELECT 'a%%'", ())
        assert cursor.fetchone() == ("a%",)


def test_given_many_rows_when_something_waits_then_it_goes_before_them(noted):
    with transaction.atomic(), sent_together(), connection.cursor() as cursor:
        send_along(NOTE, what="first")
        cursor.executemany("INSERT INTO noted (what) VALUES (%s)", [("a",), ("b",)])
    assert noted() == ["first", "a", "b"]


@pytest.mark.parametrize(
    "send",
    [
        lambda cursor: cursor.callproc("currval", ["noted_number_seq"]),
        lambda cursor: cursor.copy_expert("COPY noted (what) FROM STDIN", StringIO("last\n")),
    ],
    ids=["callproc", "copy"],
)
def test_given_a_statement_that_takes_nothing_along_then_what_waits_goes_before_it(noted, send):
    with transaction.atomic(), sent_together(), connection.cursor() as cursor:
        send_along(NOTE, what="first")
        send(cursor)
        assert not connection.connection.waiting
        transaction.set_rollback(True)
    assert noted() == []


class TestRoundTrips:
    """What reaches PostgreSQL, one text a round trip."""

    @pytest.fixture(autouse=True)
    def sent(self, noted):
        with CaptureQueriesContext(connection) as queries:
            self.texts = lambda: [query["sql"] for query in queries.captured_queries]
            yield

    def test_given_two_statements_when_committed_then_begin_went_with_the_first(self):
        with transaction.atomic():
            query("SELECT 1")
            query("SELECT 2")
        assert self.texts() == ["BEGIN\n; SELECT 1", "SELECT 2", "COMMIT"]

    def test_given_statements_that_wait_when_committed_then_all_is_one_round_trip(self, noted):
        with transaction.atomic(), sent_together():
            send_along("SELECT 1")
            send_along(NOTE, what="last")
        assert self.texts() == [
            "BEGIN\n; SELECT 1\n; INSERT INTO noted (what) VALUES ('last')\n; COMMIT"
        ]
        assert noted() == ["last"]

    @pytest.mark.parametrize("rolled_back", [False, True])
    def test_given_no_statement_when_a_transaction_ends_then_nothing_is_sent(self, rolled_back):
        with transaction.atomic():
            transaction.set_rollback(rolled_back)
        assert self.texts() == []

    def test_given_what_waits_when_rolled_back_then_it_is_not_sent(self, noted):
        with transaction.atomic(), sent_together():
            query("SELECT 1")
            send_along(NOTE, what="lost")
            transaction.set_rollback(True)
        assert self.texts() == ["BEGIN\n; SELECT 1", "ROLLBACK"]

    def test_given_a_savepoint_when_it_is_undone_then_what_waits_in_it_is_not_sent(self, noted):
        @transaction.atomic
        def fail():
            send_along(NOTE, what="lost")
            raise LookupError

        with transaction.atomic(), sent_together():
            send_along(NOTE, what="before")
            with pytest.raises(LookupError):
                fail()
            send_along(NOTE, what="after")
        assert noted() == ["before", "after"]


class TestTransactions:
    """Whatever travels with what: all of a transaction is done, or nothing."""

    def test_given_a_statement_that_fails_first_then_all_after_it_is_refused(self, noted):
        @transaction.atomic
        def go_on():
            with pytest.raises(DataError):
                query("SELECT 1 / 0")
            execute(NOTE, what="lost")

        with pytest.raises(InternalError, match="aborted"):
            go_on()
        assert noted() == []

    def test_given_a_text_that_is_no_sql_when_going_on_then_the_transaction_is_still_whole(
        self, noted
    ):
        with transaction.atomic(), sent_together():
            send_along(NOTE, what="waited")
            with pytest.raises(ProgrammingError):
                query("SELEKT")
            assert noted() == ["waited"]
            transaction.set_rollback(True)
        assert noted() == []

    def test_given_what_waits_when_it_fails_with_the_commit_then_nothing_is_done(self, noted):
        @transaction.atomic
        def fail():
            with sent_together():
                execute(NOTE, what="lost")
                send_along("SELECT 1 / 0")

        with pytest.raises(DataError):
            fail()
        assert noted() == []

    @pytest.mark.parametrize("send", [execute, send_along])
    def test_given_a_rule_that_is_asked_at_commit_when_broken_then_it_is_named(self, noted, send):
        execute(
            "ALTER TABLE noted ADD CONSTRAINT said_once UNIQUE (what) DEFERRABLE INITIALLY DEFERRED"
        )

        @transaction.atomic
        def say_twice():
            with sent_together():
                send(NOTE, what="twice")
                send(NOTE, what="twice")

        with pytest.raises(IntegrityError) as refusal:
            say_twice()
        assert violated_constraint(refusal.value) == "said_once"
        assert noted() == []

    def test_given_a_rule_that_is_called_for_early_when_broken_then_at_once(self, noted):
        execute("ALTER TABLE noted ADD UNIQUE (what) DEFERRABLE INITIALLY DEFERRED")
        with transaction.atomic():
            execute("SET CONSTRAINTS ALL IMMEDIATE")
            execute(NOTE, what="twice")
            with pytest.raises(IntegrityError):
                execute(NOTE, what="twice")
            transaction.set_rollback(True)

    def test_given_an_isolation_level_when_set_first_then_it_holds(self):
        with transaction.atomic():
            execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            assert query("SHOW transaction_isolation") == [("repeatable read",)]
        assert query("SHOW transaction_isolation") == [("read committed",)]

    def test_given_rows_read_by_and_by_when_in_a_transaction_then_they_are_its_own(self, noted):
        with transaction.atomic(), sent_together():
            send_along("INSERT INTO noted (what) SELECT n FROM generate_series(1, 9) n")
            with connection.chunked_cursor() as cursor:
                cursor.execute("SELECT what FROM noted ORDER BY number")
                assert [cursor.fetchone()[0] for _ in range(9)] == list("123456789")
            transaction.set_rollback(True)
        assert noted() == []

    def test_given_a_hook_when_committed_then_it_runs_after_what_waited(self, noted):
        seen = []
        with transaction.atomic(), sent_together():
            send_along(NOTE, what="kept")
            transaction.on_commit(lambda: seen.extend(noted()))
        assert seen == ["kept"]

    def test_given_a_lost_connection_when_committing_then_an_error_and_the_next_one_works(self):
        @transaction.atomic
        def be_cut_off():
            [(pid,)] = query("SELECT pg_backend_pid()")
            _end_session(pid)

        with pytest.raises(OperationalError):
            be_cut_off()
        assert query("SELECT 1") == [(1,)]

    @pytest.mark.parametrize("has_waiting", [False, True])
    def test_given_a_signal_in_the_commit_then_nothing_later_is_part_of_it(
        self, monkeypatch, has_waiting
    ):
        def interrupted(_statement):
            raise KeyboardInterrupt

        @transaction.atomic
        def write():
            with sent_together():
                execute("SET application_name = 'interrupted'")
                if has_waiting:
                    send_along("SET application_name = 'waited'")

        with monkeypatch.context() as patch:
            patch.setattr(connection, "_end", interrupted)
            with pytest.raises(KeyboardInterrupt):
                write()
        assert query("SELECT now() = statement_timestamp()") == [(True,)]
        assert query("SHOW application_name") == [("",)]

    def test_given_transactions_by_hand_then_commit_and_rollback_mean_what_they_say(self, noted):
        transaction.set_autocommit(False)
        try:
            execute(NOTE, what="kept")
            transaction.commit()
            execute(NOTE, what="lost")
            transaction.rollback()
        finally:
            transaction.set_autocommit(True)
        assert noted() == ["kept"]


def _end_session(pid):
    other = connection.copy()
    try:
        with other.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
    finally:
        other.close()


class TestWhatWaits:
    """It is neither lost nor sent at another time, whatever comes after it."""

    def test_given_a_parameter_that_cannot_be_written_when_swallowed_then_what_waits_still_goes(
        self, noted
    ):
        with transaction.atomic(), sent_together():
            query("SELECT 1")
            send_along(NOTE, what="waits")
            with pytest.raises(ValueError, match="NUL"):
                execute("SELECT %(text)s", text="\0")
        assert noted() == ["waits"]

    def test_given_a_comment_at_its_end_when_sent_along_then_what_follows_is_sent_as_well(
        self, noted
    ):
        with transaction.atomic(), sent_together():
            send_along(f"{NOTE} -- the first", what="one")
            execute(f"{NOTE} -- the second", what="two")
            send_along(f"{NOTE} -- the last", what="three")
        assert noted() == ["one", "two", "three"]

    def test_given_transactions_of_the_driver_when_rolled_back_then_nothing_goes_later(self, noted):
        transaction.set_autocommit(False)
        try:
            with transaction.atomic(savepoint=False), sent_together():
                send_along(NOTE, what="rolled back")
            transaction.rollback()
        finally:
            transaction.set_autocommit(True)
        assert noted() == []

    def test_given_rows_copied_first_in_a_transaction_when_it_fails_then_they_are_gone(self, noted):
        def fail():
            with transaction.atomic(), connection.cursor() as cursor:
                cursor.copy_from(StringIO("copied\n"), "noted", columns=("what",))
                raise LookupError

        with pytest.raises(LookupError):
            fail()
        assert noted() == []

    def test_given_a_lost_connection_when_sent_along_then_the_error_is_djangos(self):
        def send_when_lost():
            with transaction.atomic(), sent_together():
                query("SELECT 1")
                connection.connection.close()
                send_along("SELECT 2")

        with pytest.raises(InterfaceError):
            send_when_lost()
        assert query("SELECT 3") == [(3,)]


def test_given_rows_when_asked_for_without_a_cursor_then_as_a_cursor_fetches_them():
    statement = """
    SELECT number, number::numeric(15, 2), 'é' || number, timestamptz '2026-11-23 07:00+01',
           uuidv7() IS NULL, '01890a5d-ac96-774b-bcce-b302099a8057'::uuid, NULL, '{"a": 1}'::jsonb
      FROM generate_series(1, %(most)s) AS number
    """
    with connection.cursor() as cursor:
        cursor.execute(statement, {"most": 2})
        fetched = cursor.fetchall()
    rows = query(statement, most=2)
    assert rows == fetched
    assert [list(map(type, row)) for row in rows] == [list(map(type, row)) for row in fetched]
    assert rows[0][3].tzinfo is fetched[0][3].tzinfo


def test_given_a_transaction_that_is_lost_when_asking_then_refused_as_by_a_cursor():
    with transaction.atomic():
        with pytest.raises(DataError), transaction.atomic(savepoint=False):
            query("SELECT 1 / 0")
        with pytest.raises(TransactionManagementError):
            query("SELECT 1")


def test_given_somebody_who_watches_statements_when_asking_then_they_see_it():
    seen = []

    def watch(execute, sql, params, many, context):
        seen.append(sql)
        return execute(sql, params, many, context)

    with connection.execute_wrapper(watch):
        assert query("SELECT 1") == [(1,)]
    assert seen == ["SELECT 1"]


def test_given_a_lost_connection_when_asking_then_the_next_request_gets_another():
    lost = connection.connection
    with pytest.raises(OperationalError):
        query("SELECT pg_terminate_backend(pg_backend_pid())")
    assert connection.errors_occurred
    connection.close_if_unusable_or_obsolete()
    assert query("SELECT 1") == [(1,)]
    assert connection.connection is not lost


class TestPatience:
    """With a server that takes what it is sent, and neither answers nor hangs up."""

    def test_given_no_answer_when_patience_is_over_then_the_connection_is_lost(self, impatient):
        with pytest.raises(OperationalError):
            execute("SELECT pg_sleep(30)")
        assert impatient.closed
        connection.close_if_unusable_or_obsolete()
        assert query("SELECT 1") == [(1,)]

    def test_given_no_answer_to_commit_when_patience_is_over_then_the_connection_is_lost(
        self, impatient
    ):
        @transaction.atomic
        def commit_slowly():
            with sent_together():
                execute("SELECT 1")
                send_along("SELECT pg_sleep(30)")

        with pytest.raises(OperationalError):
            commit_slowly()
        assert impatient.closed
        connection.close_if_unusable_or_obsolete()
        assert query("SELECT 1") == [(1,)]

    def test_given_rows_that_do_not_come_when_patience_is_over_then_the_connection_is_lost(
        self, impatient
    ):
        with transaction.atomic():
            with impatient.cursor("slow", withhold=True) as cursor:
                cursor.execute("SELECT pg_sleep(number * 30) FROM generate_series(0, 1) number")
                assert len(cursor.fetchmany(1)) == 1
                with pytest.raises(psycopg2.OperationalError):
                    cursor.fetchmany(1)
            assert impatient.closed
            connection.close()

    def test_given_many_short_statements_when_longer_than_patience_then_nobody_hangs_up(
        self, impatient
    ):
        with transaction.atomic():
            for _ in range(15):
                execute("SELECT pg_sleep(0.05)")

    def test_given_an_answer_when_nothing_is_asked_for_longer_then_nobody_hangs_up(self, impatient):
        assert query("SELECT 1") == [(1,)]
        time.sleep(0.6)
        assert not impatient.closed
        assert query("SELECT 2") == [(2,)]

    def test_given_time_when_longer_than_patience_then_nobody_hangs_up(self, impatient):
        for seconds in (2, None):
            with transaction.atomic():
                give_time(seconds)
                execute("SELECT pg_sleep(0.6)")
        with pytest.raises(OperationalError):
            execute("SELECT pg_sleep(30)")
        assert impatient.closed
        connection.close_if_unusable_or_obsolete()

    def test_given_less_time_than_it_takes_when_asking_then_postgresql_ends_it(self):
        @transaction.atomic
        def take_longer():
            give_time(1)
            execute("SELECT pg_sleep(30)")

        with pytest.raises(OperationalError) as refusal:
            take_longer()
        assert sqlstate(refusal.value) == "57014"  # query_canceled


def test_given_a_line_that_is_broken_already_when_hanging_up_then_nobody_minds(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        theirs, _ = server.accept()
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        theirs.close()  # with a reset
    with ours:
        owing = SimpleNamespace(asked_at=0.0, time_given=0.0, fileno=ours.fileno)
        monkeypatch.setattr(patience, "sessions", lambda: [owing])
        hang_up_on_the_silent(0.3)


@pytest.fixture
def impatient():
    """This thread's session; somebody who waits for 0.3 seconds at most watches it."""
    connection.ensure_connection()
    over = Event()

    def watch():
        while not over.wait(0.05):
            hang_up_on_the_silent(0.3)

    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(watch)
        yield connection.connection
        over.set()
        watching.result()


def test_given_a_server_that_falls_silent_when_waiting_for_it_then_seconds_at_most():
    connection.ensure_connection()
    with socket.socket(fileno=os.dup(connection.connection.fileno())) as line:
        option = partial(line.getsockopt, socket.IPPROTO_TCP)
        assert line.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert 0 < option(socket.TCP_USER_TIMEOUT) <= 5000
        probes = option(socket.TCP_KEEPINTVL) * option(socket.TCP_KEEPCNT)
        assert option(socket.TCP_KEEPIDLE) + probes <= 10
