"""Measurements, and the ratios between them: what a case says."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.load import Outcome


@dataclass(frozen=True)
class Sample:
    """One measurement: so many a second, and what else was seen."""

    rate: float
    errors: int = 0
    facts: Mapping[str, float] = field(default_factory=dict)
    unexpected: Sequence[str] = ()

    @classmethod
    def of(cls, outcome: Outcome, *, each: int = 1) -> "Sample":
        """`each`: what one request counts for. Times in milliseconds."""
        client = outcome.client_cpu_seconds / outcome.count if outcome.count else 0.0
        return cls(
            rate=outcome.rate * each,
            errors=outcome.errors,
            facts={
                "requests": outcome.count,
                "p50_ms": outcome.p50 * 1000,
                "p99_ms": outcome.p99 * 1000,
                "slowest_ms": outcome.slowest * 1000,
                "client_cpu_ms_per_request": client * 1000,
            },
            unexpected=outcome.unexpected,
        )


@dataclass(frozen=True)
class Target:
    """What a ratio must reach; None: no bound on that side."""

    at_least: float | None = None
    at_most: float | None = None

    def __str__(self) -> str:
        bounds = [(self.at_least, "≥"), (self.at_most, "≤")]
        return ", ".join(f"{sign} {bound:.3g}" for bound, sign in bounds if bound is not None)

    def is_reached_by(self, ratio: float) -> bool:
        low = self.at_least is None or ratio >= self.at_least
        high = self.at_most is None or ratio <= self.at_most
        return low and high


@dataclass(frozen=True)
class Ratio:
    """One quotient for each round, of two measurements that were taken one after the other."""

    name: str
    rounds: Sequence[float]
    target: Target | None = None

    @classmethod
    def between(
        cls,
        name: str,
        upper: Sequence[float],
        lower: Sequence[float],
        target: Target | None = None,
    ) -> "Ratio":
        rounds = [above / below for above, below in zip(upper, lower, strict=True)]
        return cls(name, rounds, target)

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)

    @property
    def spread(self) -> tuple[float, float]:
        """The smallest and the largest."""
        return min(self.rounds), max(self.rounds)

    @property
    def is_reached(self) -> bool | None:
        """None: there is nothing to reach."""
        return self.target.is_reached_by(self.median) if self.target else None


Samples = Mapping[str, Sequence[Sample]]


def rates(samples: Sequence[Sample]) -> list[float]:
    return [sample.rate for sample in samples]


def fact(samples: Sequence[Sample], name: str) -> list[float]:
    return [sample.facts[name] for sample in samples]


@dataclass(frozen=True)
class Result:
    """What one case found. `facts` are absolute: they hold for this machine and this run."""

    letter: str
    samples: Samples
    ratios: Sequence[Ratio]
    facts: Mapping[str, float | str] = field(default_factory=dict)
    must_be_free_of_errors: bool = False

    @property
    def errors(self) -> int:
        return sum(sample.errors for taken in self.samples.values() for sample in taken)

    @property
    def has_failed(self) -> bool:
        return self.must_be_free_of_errors and self.errors > 0
