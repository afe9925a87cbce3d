"""What is found, and how a rule says so."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Breach:
    """One thing that is wrong: the invariant's number, what breaks it, and how."""

    invariant: int
    subject: str
    detail: str

    def __str__(self) -> str:
        return f"invariant {self.invariant}: {self.subject}: {self.detail}"


@dataclass(frozen=True)
class Step:
    """A chunk that was checked: how many rows, and what was found."""

    rows: int
    breaches: list[Breach]


@dataclass(frozen=True)
class Rule:
    """What must not be, as an SQL condition; and SQL for what is wrong, and with what."""

    invariant: int
    broken: str
    detail: str
    subject: str


def select_broken(rules: Sequence[Rule], rows: str, *, within: str = "true") -> str:
    """A query for (invariant, subject, detail) of whatever among `rows` (a FROM …), and
    `within` the bounds, breaks a rule.

    Each row is judged once by all rules; only for those that break one is anything written out.
    """
    found = ",\n".join(
        f"CASE WHEN {rule.broken} THEN ARRAY['{rule.invariant}', {rule.subject}, {rule.detail}] END"
        for rule in rules
    )
    broken = "\n OR ".join(f"({rule.broken})" for rule in rules)
    return f"SELECT {found}\n{rows}\n WHERE {within} AND ({broken})"


def breaches(rows: Iterable[Sequence[Any]]) -> list[Breach]:
    """What `select_broken` answered; each once, though a transaction is met with every entry."""
    found = (
        Breach(int(invariant), subject, detail)
        for row in rows
        for invariant, subject, detail in filter(None, row)
    )
    return list(dict.fromkeys(found))
