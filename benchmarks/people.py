"""Who sends money to whom, as requests that are composed before anything is measured."""

import itertools
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.load import Request

TRANSFER, BATCH = "/api/v1/transactions/transfer/", "/api/v1/transactions/batch/"
BALANCE, HISTORY = "/api/v1/wallets/me/balance/", "/api/v1/transactions/"
VARIETY = 5_000  # prepared requests, sent round and round
_JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Person:
    email: str
    token: str

    @property
    def bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}


@dataclass(frozen=True)
class People:
    """`senders` have money; `merchant` is one recipient, whom everybody pays in some cases."""

    senders: Sequence[Person]
    recipients: Sequence[Person]
    merchant: Person
    chance: random.Random

    def transfers(self) -> list[Request]:
        """From each sender to recipients all over."""
        return [
            _transfer(sender, self.chance.choice(self.recipients)) for sender in self._in_turn()
        ]

    def payments_to_the_merchant(self) -> list[Request]:
        """From each sender to one and the same wallet."""
        return [_transfer(sender, self.merchant) for sender in self._in_turn()]

    def opposite_transfers(self, wallets: int) -> list[Request]:
        """Between so many people, in every direction, in no order."""
        pairs = list(itertools.permutations(self.senders[:wallets], 2))
        return [_transfer(*self.chance.choice(pairs)) for _ in range(VARIETY)]

    def batches(self, legs: int) -> list[Request]:
        """One from each of a few senders, each to recipients all over in an order of its own."""
        return [self._batch(sender, legs) for sender in self.senders[:8]]

    def _batch(self, sender: Person, legs: int) -> Request:
        named = itertools.islice(
            itertools.cycle(self.chance.sample(self.recipients, len(self.recipients))), legs
        )
        body = {
            "mode": "atomic",
            "transfers": [{"recipient": person.email, "amount": "0.01"} for person in named],
        }
        return Request("POST", BATCH, sender.bearer | _JSON, json.dumps(body))

    def balances(self) -> list[Request]:
        return [Request("GET", BALANCE, person.bearer) for person in self.senders]

    def _in_turn(self) -> list[Person]:
        """Every sender as often as any other, in no order."""
        turns = list(itertools.islice(itertools.cycle(self.senders), VARIETY))
        self.chance.shuffle(turns)
        return turns


def _transfer(sender: Person, recipient: Person) -> Request:
    body = json.dumps({"recipient": recipient.email, "amount": "0.01"})
    return Request("POST", TRANSFER, sender.bearer | _JSON, body)
