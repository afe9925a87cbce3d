"""The cases by their letters. Each measures in rounds, and says what it found as ratios."""

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks import ledgers, memory
from benchmarks.bench import TPCB, Bench, Scale
from benchmarks.deposits import deposits
from benchmarks.figures import Ratio, Result, Sample, Target, fact, rates
from benchmarks.generator import put
from benchmarks.load import Load

# All that the sealing function checks, and neither the texts that are sealed nor the seals.
WITHOUT_SEALS = """
DO $$
DECLARE
    source text := pg_get_functiondef('transactions_transaction_seal()'::regprocedure);
    checks text := split_part(source, '-- The books are right, and are sealed.', 1);
    digest constant text := 'transactions_books_digest\\([^)]*\\)[^)]*\\)';
    unread text := regexp_replace(checks, digest, 'NULL::bytea');
    alone text := replace(unread, 'transactions_entry_text(entry)', 'NULL::text');
BEGIN
    IF checks = source OR unread = checks OR alone = unread THEN
        RAISE EXCEPTION 'where does it seal?';
    END IF;
    EXECUTE alone || 'RETURN NULL; END $function$';
END $$
"""


def singles(bench: Bench) -> Result:
    with bench.web() as web:
        taken = bench.interleaved({TPCB: bench.tpcb, "transfers": bench.transfers(web)})
    ratio = Ratio.between(
        "transfers ÷ tpcb-like",
        rates(taken["transfers"]),
        rates(taken[TPCB]),
        Target(at_least=0.20),
    )
    return Result("A", taken, [ratio])


def hot_wallet(bench: Bench) -> Result:
    with bench.web() as web:
        taken = bench.interleaved(
            {
                TPCB: bench.tpcb,
                "transfers": bench.transfers(web),
                "to one wallet": bench.transfers(web, bench.people.payments_to_the_merchant()),
            }
        )
    hot = rates(taken["to one wallet"])
    return Result(
        "B",
        taken,
        [
            Ratio.between(
                "to one wallet ÷ tpcb-like", hot, rates(taken[TPCB]), Target(at_least=0.15)
            ),
            Ratio.between("to one wallet ÷ transfers", hot, rates(taken["transfers"])),
        ],
    )


def opposite(bench: Bench) -> Result:
    load = Load(
        requests=bench.people.opposite_transfers(10),
        seconds=bench.seconds,
        connections=16,
        expected=201,
        keyed=True,
    )
    with bench.web() as web:
        taken = bench.interleaved(
            {
                "transfers": bench.transfers(web),
                "opposite": lambda: Sample.of(put(load, web)),
            }
        )
    ratio = Ratio.between(
        "opposite ÷ transfers",
        rates(taken["opposite"]),
        rates(taken["transfers"]),
        Target(at_least=0.6),
    )
    return Result("C", taken, [ratio], must_be_free_of_errors=True)


def batches(bench: Bench) -> Result:
    load = Load(
        requests=bench.people.batches(bench.scale.legs),
        seconds=bench.seconds,
        connections=2,
        expected=201,
        keyed=True,
        warm_up=False,  # a batch takes long enough
    )
    with bench.web() as web:
        taken = bench.interleaved(
            {
                TPCB: bench.tpcb,
                "batches": lambda: Sample.of(put(load, web), each=bench.scale.legs),
            }
        )
    ratio = Ratio.between(
        "transfers in batches ÷ tpcb-like",
        rates(taken["batches"]),
        rates(taken[TPCB]),
        Target(at_least=1.0),
    )
    return Result("D", taken, [ratio])


def latency(bench: Bench) -> Result:
    """The peak is measured anew in each round, just before half of it is asked for."""
    requests = bench.people.transfers()
    peaks: list[float] = []

    with bench.web() as web:
        full = bench.transfers(web, requests)

        def peak() -> Sample:
            sample = full()
            peaks.append(sample.rate)
            return sample

        def half() -> Sample:
            load = Load(
                requests=requests,
                seconds=bench.seconds,
                expected=201,
                keyed=True,
                rate=peaks[-1] / 2,
            )
            return Sample.of(put(load, web))

        taken = bench.interleaved({"transfers": peak, "at half the rate": half})
    calm = taken["at half the rate"]
    p50, p99 = fact(calm, "p50_ms"), fact(calm, "p99_ms")
    return Result(
        "G",
        taken,
        [Ratio.between("p99 ÷ p50 at half the rate", p99, p50, Target(at_most=10.0))],
        {"p50, ms": _listed(p50), "p99, ms": _listed(p99)},
    )


def _listed(values: list[float]) -> str:
    return ", ".join(f"{value:.1f}" for value in values)


def webhooks(bench: Bench) -> Result:
    with bench.web() as web, bench.stage.worker(bench.main):
        taken = bench.interleaved({TPCB: bench.tpcb, "deposits": deposits(bench, web)})
    ratio = Ratio.between(
        "deposits ÷ tpcb-like",
        rates(taken["deposits"]),
        rates(taken[TPCB]),
        Target(at_least=0.1),
    )
    return Result(
        "H",
        taken,
        [ratio],
        {
            "accept p50, ms": _listed(fact(taken["deposits"], "p50_ms")),
            "accept p99, ms": _listed(fact(taken["deposits"], "p99_ms")),
        },
    )


def seals(bench: Bench) -> Result:
    """Two copies of one database; in one of them the trigger checks and does not seal."""
    sealed, unsealed = bench.copy("sealed"), bench.copy("unsealed")
    bench.unsealed.append(unsealed)
    with unsealed.as_owner() as session, session.cursor() as cursor:
        cursor.execute(WITHOUT_SEALS)
    with bench.web(sealed) as one, bench.web(unsealed) as other:
        requests = bench.people.transfers()
        taken = bench.interleaved(
            {
                "sealed": bench.transfers(one, requests),
                "without seals": bench.transfers(other, requests),
            }
        )
    ratio = Ratio.between(
        "sealed ÷ without seals",
        rates(taken["sealed"]),
        rates(taken["without seals"]),
        Target(at_least=0.9),
    )
    return Result("S", taken, [ratio])


@dataclass(frozen=True)
class Case:
    """`probes`: how many measurements a round has, for the progress display."""

    title: str
    probes: Callable[[Scale], int]
    measure: Callable[[Bench], Result]


CASES = {
    "A": Case("Single transfers, 8 connections", lambda _: 2, singles),
    "B": Case("Transfers to one hot wallet, 8 connections", lambda _: 3, hot_wallet),
    "C": Case("Opposite transfers between 10 wallets, 16 connections", lambda _: 2, opposite),
    "D": Case("Batches, 2 connections", lambda _: 2, batches),
    "E": Case("Balance and history", lambda _: 4, ledgers.reading),
    "F": Case("Growth of the ledger", lambda scale: 2 * len(scale.entries), ledgers.growth),
    "G": Case("Latency of transfers", lambda _: 2, latency),
    "H": Case("Deposits by webhook, one worker", lambda _: 2, webhooks),
    "I": Case("Memory", lambda _: 1, memory.use),
    "S": Case("What seals cost", lambda _: 2, seals),
}
