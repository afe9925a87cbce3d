"""Cases E and F: whether reading, writing and proving depend on how long the ledger is."""

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass

from benchmarks import proof
from benchmarks.bench import Bench, Probe
from benchmarks.figures import Ratio, Result, Target, rates
from benchmarks.growth import grow
from benchmarks.history import PAGE_ROWS, page
from benchmarks.memory import MIB
from benchmarks.servers import Database


def reading(bench: Bench) -> Result:
    """The merchant's history is just long enough to have the page."""
    history = bench.copy("history")
    grow(
        history,
        transfers=bench.scale.pages * PAGE_ROWS,
        merchant=bench.people.merchant.email,
        merchant_every=1,
        seed=bench.seed,
    )
    with bench.web(history) as web:
        first = page(web, bench.people.merchant, 1)
        last = page(web, bench.people.merchant, bench.scale.pages)
        taken = bench.interleaved(
            {
                "transfers": bench.transfers(web),
                "balance": bench.reads(web, bench.people.balances()),
                "page 1": bench.reads(web, [first]),
                f"page {bench.scale.pages}": bench.reads(web, [last]),
            }
        )
    moved, balance, newest, oldest = (rates(samples) for samples in taken.values())
    twice, alike = Target(at_least=2.0), Target(at_least=1 / 1.2, at_most=1.2)
    return Result(
        "E",
        taken,
        [
            Ratio.between("balance ÷ transfers", balance, moved, twice),
            Ratio.between("page 1 ÷ transfers", newest, moved, twice),
            Ratio.between(f"page {bench.scale.pages} ÷ page 1", oldest, newest, alike),
        ],
    )


@dataclass(frozen=True)
class Grown:
    """A ledger, and how long it took to make it."""

    database: Database
    seconds: float


def growth(bench: Bench) -> Result:
    """One service for each size of ledger, side by side; every other one idles."""
    probes: dict[str, Probe] = {}
    grown = {size: _grown(bench, size) for size in bench.scale.entries}
    with ExitStack() as stack:
        for size, one in grown.items():
            web = stack.enter_context(bench.web(one.database))
            newest = page(web, bench.people.merchant, 1)
            probes[f"transfers at {size:,}"] = bench.transfers(web)
            probes[f"page at {size:,}"] = bench.reads(web, [newest])
        taken = bench.interleaved(probes)
    smallest, *larger = bench.scale.entries
    within = Target(at_most=1.3)
    ratios = [
        Ratio.between(
            f"{what} at {smallest:,} ÷ at {size:,} entries",
            rates(taken[f"{what} at {smallest:,}"]),
            rates(taken[f"{what} at {size:,}"]),
            within,
        )
        for size in larger
        for what in ("transfers", "page")
    ]
    proofs = {size: _proved(bench, one.database) for size, one in grown.items()}
    facts = _growth_facts(grown) | _proof_facts(proofs)
    return Result("F", taken, [*ratios, *_flat(proofs)], facts)


def _grown(bench: Bench, entries: int) -> Grown:
    database = bench.stage.create(f"entries{entries}", template=bench.populated)
    bench.progress.set_postfix_str(f"making {entries:,} entries")
    began = time.monotonic()
    grow(
        database,
        transfers=entries // 2,
        merchant=bench.people.merchant.email,
        merchant_every=10,
        seed=bench.seed,
    )
    seconds = time.monotonic() - began
    bench.stage.manage(database, "checkpoint_ledger").require("the checkpoint failed")
    return Grown(database, seconds)


def _growth_facts(grown: Mapping[int, Grown]) -> dict[str, float | str]:
    return {
        f"{size:,} entries made": f"{one.seconds:.1f} s, {size / one.seconds:,.0f}/s"
        for size, one in grown.items()
    }


@dataclass(frozen=True)
class Proof:
    """How long `verify_ledger` took for how many entries, and the most bytes that it had."""

    entries: int
    seconds: float
    memory: int


def _proved(bench: Bench, database: Database) -> Proof:
    bench.progress.set_postfix_str(f"proving {database.name}")
    ended = proof.verify(bench.stage, database)
    entries = int(database.ask("SELECT count(*) FROM transactions_transactionledger"))
    return Proof(entries, ended.seconds, ended.memory)


def _flat(proofs: Mapping[int, Proof]) -> list[Ratio]:
    smallest, *larger = proofs.values()
    return [
        Ratio(
            f"memory of verify_ledger at {large.entries:,} ÷ at {smallest.entries:,} entries",
            [large.memory / smallest.memory],
            Target(at_most=1.2),
        )
        for large in larger
    ]


def _proof_facts(proofs: Mapping[int, Proof]) -> dict[str, float | str]:
    """The rate is that of the difference to the smallest: starting Django is not counted."""
    smallest, *larger = proofs.values()
    facts: dict[str, float | str] = {
        f"verify_ledger at {one.entries:,} entries": (
            f"{one.seconds:.1f} s, {one.memory / MIB:.0f} MiB"
        )
        for one in proofs.values()
    }
    for large in larger:
        rate = (large.entries - smallest.entries) / (large.seconds - smallest.seconds)
        facts[f"verify_ledger, entries per second up to {large.entries:,} (aim 100,000)"] = rate
    return facts
