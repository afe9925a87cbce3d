"""`make bench`: that it runs, and that a broken ledger yields no figures. Never how fast."""

import json
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg2.errors
import pytest

from benchmarks import growth
from benchmarks.figures import Ratio, Target
from benchmarks.proof import Broken, verify
from benchmarks.servers import Database, Stage
from fintech_core.embedded.environment import PROJECT
from fintech_core.tests.test_make_run import clean_environment
from transactions.models import Transaction, TransactionLedger
from transactions.posting import _reference as reference
from transactions.tests.helpers import person, send
from users.models import User
from wallet.models import Wallet


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path, dict(os.environ), ExitStack())


@pytest.fixture
def database() -> Database:
    """This test's own."""
    name = urlsplit(os.environ["DATABASE_URL"]).path.lstrip("/")
    return Database(name, dict(os.environ))


@pytest.fixture(scope="module")
def smoke(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A tiny run on servers of its own, which wait for the disk."""
    folder = tmp_path_factory.mktemp("results")
    ended = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--smoke", "--output", str(folder)],
        cwd=PROJECT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    return folder, ended


class TestSmoke:
    def test_given_a_tiny_run_when_it_ends_then_every_case_has_its_figures(
        self, smoke: Any
    ) -> None:
        # Given
        folder, ended = smoke
        # Then
        assert ended.returncode == 0, ended.stderr
        [path] = folder.glob("*.json")
        report = json.loads(path.read_text())
        assert list(report["cases"]) == ["A", "B", "D", "E", "H"]
        for letter, case in report["cases"].items():
            assert case["errors"] == 0, (letter, case["samples"])
            assert all(ratio["median"] > 0 for ratio in case["ratios"]), letter

    def test_given_a_tiny_run_when_it_ends_then_it_says_on_what_it_was_made(
        self, smoke: Any
    ) -> None:
        folder, _ = smoke
        [path] = folder.glob("*.json")
        report = json.loads(path.read_text())
        assert report["server"]["fsync"] == report["server"]["synchronous_commit"] == "on"
        assert report["seed"] == 1
        assert report["machine"]["cores"] >= 1
        assert report["versions"]["Django"].startswith("5.2")

    def test_given_a_tiny_run_when_it_ends_then_the_table_is_shown_and_kept(
        self, smoke: Any
    ) -> None:
        folder, ended = smoke
        [path] = folder.glob("*.md")
        assert path.read_text() in ended.stdout
        assert "| A. Single transfers, 8 connections | transfers ÷ tpcb-like |" in ended.stdout


@pytest.mark.django_db(transaction=True)
class TestProof:
    """On this test's own database, by the command that a run ends with."""

    def test_given_a_balance_written_by_hand_when_proving_then_no_figures(
        self, stage: Stage, database: Database, owner: Any
    ) -> None:
        # Given
        sender, recipient = person("10.00"), person()
        send(sender, recipient, "1.00")
        verify(stage, database)
        owner.execute("SET session_replication_role = replica")
        owner.execute("UPDATE wallet_wallet SET balance = balance + 1")
        # When
        with pytest.raises(Broken) as refusal:
            verify(stage, database)
        # Then
        assert f"wallet {sender.wallet.pk}" in str(refusal.value)

    def test_given_a_ledger_without_seals_when_proving_the_rest_then_only_the_rest_is_asked(
        self, stage: Stage, database: Database, owner: Any
    ) -> None:
        # Given
        sender, recipient = person("10.00"), person()
        send(sender, recipient, "1.00")
        owner.execute("SET session_replication_role = replica")
        owner.execute("DELETE FROM transactions_ledgerseal")
        # Then
        verify(stage, database, sealed=False)
        with pytest.raises(Broken):
            verify(stage, database)


# All that PostgreSQL knows of indexes, constraints and triggers, but for where they are stored.
SCHEMA = [
    "SELECT to_jsonb(pg_index), pg_get_indexdef(indexrelid) FROM pg_index ORDER BY indexrelid",
    "SELECT to_jsonb(pg_constraint), pg_get_constraintdef(oid) FROM pg_constraint ORDER BY oid",
    "SELECT to_jsonb(pg_trigger), pg_get_triggerdef(oid) FROM pg_trigger ORDER BY oid",
]


@pytest.mark.django_db(transaction=True)
class TestGrowth:
    """Few transfers in small batches, after a past that production made."""

    TRANSFERS = 25

    @pytest.fixture
    def people(self, monkeypatch: pytest.MonkeyPatch) -> list[User]:
        monkeypatch.setattr(growth, "BATCH", 10)
        payers = [person("1000.00"), person("1000.00")]
        send(*payers, "1.00")
        return [*payers, person(), person(email="merchant@example.com")]

    def grow(self, database: Database) -> None:
        growth.grow(
            database,
            transfers=self.TRANSFERS,
            merchant="merchant@example.com",
            merchant_every=5,
            seed=1,
        )

    def test_given_a_past_when_growing_then_the_ledger_is_what_production_could_have_written(
        self, stage: Stage, database: Database, people: list[User]
    ) -> None:
        # Given
        before = Transaction.objects.count()
        # When
        self.grow(database)
        # Then
        verify(stage, database)
        assert Transaction.objects.count() == before + self.TRANSFERS
        assert Wallet.objects.get(user=people[-1]).entry_count == self.TRANSFERS // 5
        for made in Transaction.objects.all():
            assert made.reference_id == reference(made.pk)

    def test_given_a_grown_ledger_when_reading_it_by_number_then_ids_have_the_same_order(
        self, database: Database, people: list[User]
    ) -> None:
        self.grow(database)
        for user in people:
            entries = TransactionLedger.objects.filter(wallet__user=user).order_by("sequence")
            ids = list(entries.values_list("transaction_id", flat=True))
            assert ids == sorted(ids)

    def test_given_a_grown_ledger_when_asking_for_the_schema_then_it_is_the_one_before(
        self, database: Database, people: list[User], owner: Any
    ) -> None:
        # Given
        before = [asked(owner, question) for question in SCHEMA]
        # When
        self.grow(database)
        # Then
        assert [asked(owner, question) for question in SCHEMA] == before

    def test_given_a_reference_twice_when_growing_then_the_database_refuses_it(
        self, database: Database, people: list[User], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Given
        twice = growth._TRANSFERS.replace(growth._REFERENCE, "'TX-TWICE'")
        monkeypatch.setattr(growth, "_TRANSFERS", twice)
        # Then
        with pytest.raises(psycopg2.errors.UniqueViolation):
            self.grow(database)


def asked(owner: Any, question: str) -> Any:
    owner.execute(question)
    return owner.fetchall()


class TestRatios:
    def test_given_rounds_when_dividing_then_each_by_its_own_reference(self) -> None:
        ratio = Ratio.between("a ÷ b", [10.0, 40.0, 30.0], [100.0, 100.0, 200.0])
        assert ratio.median == 0.15
        assert ratio.spread == (0.1, 0.4)
        assert ratio.is_reached is None

    @pytest.mark.parametrize(
        ("target", "median", "reached"),
        [
            (Target(at_least=0.2), 0.2, True),
            (Target(at_least=0.2), 0.19, False),
            (Target(at_most=1.3), 1.31, False),
            (Target(at_least=0.8, at_most=1.2), 1.0, True),
            (Target(at_least=0.8, at_most=1.2), 0.7, False),
        ],
    )
    def test_given_a_bound_when_judging_then_the_median_counts(
        self, target: Target, median: float, reached: bool
    ) -> None:
        ratio = Ratio("a ÷ b", [median - 0.5, median, median + 0.5], target)
        assert ratio.is_reached is reached
