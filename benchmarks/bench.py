"""What every case shares: the options, the people, the servers, the rounds, the progress."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Never

from tqdm import tqdm

from benchmarks.figures import Sample
from benchmarks.generator import put
from benchmarks.load import Load, Request
from benchmarks.people import People
from benchmarks.processes import ProgramError
from benchmarks.reference import Reference
from benchmarks.servers import Database, Stage, Web

TPCB = "tpcb-like"  # the reference among the samples
Probe = Callable[[], Sample]


@dataclass(frozen=True)
class Scale:
    """How large everything is. `entries`: the ledgers that are compared for growth."""

    senders: int = 500
    recipients: int = 1_000
    legs: int = 1_000
    pages: int = 1_000
    reference: int = 20
    requests: int = 100_000
    entries: Sequence[int] = (10_000, 1_000_000)


SMOKE = Scale(
    senders=20,
    recipients=50,
    legs=50,
    pages=4,
    reference=1,
    requests=200,
    entries=(600, 2_000),
)


@dataclass
class Bench:
    """One run. `populated` has the people and is only copied; the copies are what is served."""

    stage: Stage
    scale: Scale
    rounds: int
    seconds: float
    seed: int
    populated: Database
    people: People
    reference: Reference
    progress: "tqdm[Never]"
    served: list[Database] = field(default_factory=list)
    unsealed: list[Database] = field(default_factory=list)

    def interleaved(self, probes: Mapping[str, Probe]) -> dict[str, list[Sample]]:
        """Round by round, each probe once: what disturbs the machine disturbs them alike.

        Raises ProgramError when nothing succeeds: there is no ratio to nothing.
        """
        samples: dict[str, list[Sample]] = {name: [] for name in probes}
        for _ in range(self.rounds):
            for name, probe in probes.items():
                self.progress.set_postfix_str(name)
                sample = probe()
                if not sample.rate:
                    raise ProgramError(f"{name}: nothing succeeded: {list(sample.unexpected)}")
                samples[name].append(sample)
                self.progress.update()
        return samples

    def tpcb(self) -> Sample:
        return Sample(self.reference.transactions_per_second(self.seconds))

    def transfers(self, web: Web, requests: Sequence[Request] | None = None) -> Probe:
        """Eight connections; by default between people all over."""
        prepared = requests or self.people.transfers()
        load = Load(requests=prepared, seconds=self.seconds, expected=201, keyed=True)
        return lambda: Sample.of(put(load, web))

    def reads(self, web: Web, requests: Sequence[Request]) -> Probe:
        load = Load(requests=requests, seconds=self.seconds)
        return lambda: Sample.of(put(load, web))

    def copy(self, purpose: str) -> Database:
        """The people and their money, in a database of its own that is proved at the end."""
        made = self.stage.create(purpose, template=self.populated)
        self.served.append(made)
        return made

    @cached_property
    def main(self) -> Database:
        """Where most cases are served, one after the other."""
        return self.copy("main")

    @contextmanager
    def web(self, database: Database | None = None) -> Iterator[Web]:
        """A web server, by default on the main database."""
        with self.stage.web(database or self.main) as web:
            yield web
