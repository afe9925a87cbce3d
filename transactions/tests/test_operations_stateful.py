"""Random sequences of every operation against a model in memory, and from many threads at once."""

import random
from collections import Counter
from dataclasses import dataclass
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from fintech_core.exceptions import InvalidState
from fintech_core.idempotency import Answer
from transactions.models import Hold, Transaction
from transactions.services import TransactionService
from transactions.tests.helpers import (
    at_once,
    balance,
    breaches,
    capture,
    freeze,
    fund,
    held,
    hold_of,
    let_time_pass,
    person,
    refund,
    reserve,
    send,
    unfreeze,
)
from users.tests.factories import StaffFactory
from wallet.models import Wallet

pytestmark = pytest.mark.django_db(transaction=True)

OPENING = Decimal("50.00")
NAMES = ["Alice", "Bob", "Charlie"]

pairs = st.permutations(NAMES).map(lambda names: names[:2])
# Few, and some larger than what anybody begins with, so that every refusal is met.
amounts = st.sampled_from(["10.00", "0.01", "33.33", "50.00", "70.00"]).map(Decimal)
# Percent of what is left: parts, all of it (by naming no amount, too), more than all.
parts = st.sampled_from([None, 40, 1, 100, 101])


@dataclass
class Account:
    """What the model knows of one person."""

    balance: Decimal = OPENING
    held: Decimal = Decimal(0)
    frozen: bool = False

    @property
    def available(self) -> Decimal:
        return self.balance - self.held


@dataclass
class Promise:
    """What the model knows of one hold."""

    payer: str
    payee: str
    amount: Decimal
    status: str = "active"


@dataclass
class Payment:
    """What the model knows of one transfer or capture."""

    payer: str
    payee: str
    amount: Decimal
    refunded: Decimal = Decimal(0)


def part_of(whole: Decimal, percent: int | None) -> Decimal | None:
    return None if percent is None else max(Decimal("0.01"), (whole * percent).quantize(1) / 100)


class Operations(RuleBasedStateMachine):
    """Three people; each rule says beforehand what the service has to answer."""

    owner = None
    holds = Bundle("holds")
    payments = Bundle("payments")

    def __init__(self):
        super().__init__()
        # A breach stays in the database; the sequences that come after it are not to blame.
        self.known = set(breaches())
        self.people = {name: person(str(OPENING)) for name in NAMES}
        self.staff = StaffFactory()
        self.accounts = {name: Account() for name in NAMES}
        self.promises = {}
        self.paid = {}

    @initialize(target=holds, pair=pairs)
    def begin_with_a_hold(self, pair):
        return self.hold(pair, Decimal("20.00"))

    @initialize(target=payments, pair=pairs)
    def begin_with_a_payment(self, pair):
        return self.transfer(pair, Decimal("20.00"))

    @precondition(lambda self: any(a.available < 20 for a in self.accounts.values()))
    @rule(name=st.sampled_from(NAMES), amount=amounts)
    def deposit(self, name, amount):
        fund(self.people[name], str(amount))
        self.accounts[name].balance += amount

    @rule(target=payments, pair=pairs, amount=amounts)
    def transfer(self, pair, amount):
        payer, payee = pair
        answer = send(self.people[payer], self.people[payee], str(amount))
        if not self._went_through(answer, self._spending(payer, amount)):
            return multiple()
        self._move(payer, payee, amount)
        return self._remember(answer, payer, payee, amount)

    @rule(target=holds, pair=pairs, amount=amounts)
    def hold(self, pair, amount):
        payer, payee = pair
        answer = reserve(self.people[payer], self.people[payee], str(amount))
        if not self._went_through(answer, self._spending(payer, amount)):
            return multiple()
        self.accounts[payer].held += amount
        made = hold_of(answer)
        self.promises[made.pk] = Promise(payer, payee, amount)
        return made

    @rule(target=payments, hold=holds, percent=parts)
    def capture(self, hold, percent):
        promise = self.promises[hold.pk]
        asked = part_of(promise.amount, percent)
        taken = promise.amount if asked is None else asked
        try:
            answer = capture(self.people[promise.payee], hold, asked and str(asked))
        except InvalidState:
            assert promise.status != "active"
            return multiple()
        assert promise.status == "active"
        excess = "amount_exceeds_remaining" if taken > promise.amount else None
        frozen = "wallet_frozen" if self.accounts[promise.payer].frozen else None
        if not self._went_through(answer, excess or frozen):
            return multiple()
        self._resolve(promise, "captured")
        self._move(promise.payer, promise.payee, taken)
        return self._remember(answer, promise.payer, promise.payee, taken)

    @rule(hold=holds, by_staff=st.booleans())
    def void(self, hold, by_staff):
        promise = self.promises[hold.pk]
        caller = self.staff if by_staff else self.people[promise.payee]
        try:
            TransactionService.void_hold(caller=caller, hold_id=hold.pk)
        except InvalidState:
            assert promise.status != "active"
        else:
            assert promise.status == "active"
            self._resolve(promise, "voided")

    @rule(hold=consumes(holds), job_comes_first=st.booleans())
    def expire(self, hold, job_comes_first):
        promise = self.promises[hold.pk]
        let_time_pass(self.owner, hold)
        if job_comes_first:
            assert TransactionService.expire_holds() == (promise.status == "active")
        with pytest.raises(InvalidState):
            capture(self.people[promise.payee], hold)
        if promise.status == "active":
            self._resolve(promise, "expired")

    @rule(payment=payments, percent=parts, by_staff=st.booleans())
    def refund(self, payment, percent, by_staff):
        paid = self.paid[payment]
        rest = paid.amount - paid.refunded
        asked = part_of(rest, percent)
        taken = rest if asked is None else asked
        caller = self.staff if by_staff else self.people[paid.payee]
        answer = refund(caller, payment, asked and str(asked))
        excess = None if 0 < taken <= rest else "amount_exceeds_remaining"
        if self._went_through(answer, excess or self._spending(paid.payee, taken)):
            paid.refunded += taken
            self._move(paid.payee, paid.payer, taken)

    @rule(name=st.sampled_from(NAMES), frozen=st.booleans())
    def freeze(self, name, frozen):
        if frozen == self.accounts[name].frozen:
            return
        (freeze if frozen else unfreeze)(self.people[name])
        self.accounts[name].frozen = frozen

    @invariant()
    def balances_and_held_equal_the_model(self):
        for name, account in self.accounts.items():
            wallet = Wallet.objects.get(user=self.people[name])
            assert (wallet.balance, wallet.held) == (account.balance, account.held), name

    def teardown(self):
        statuses = dict(Hold.objects.values_list("pk", "status"))
        for pk, promise in self.promises.items():
            assert statuses[pk] == promise.status
        for pk, paid in self.paid.items():
            assert Transaction.objects.get(pk=pk).refunded_amount == paid.refunded
        assert [breach for breach in breaches() if breach not in self.known] == []

    def _spending(self, name, amount):
        """Why the person cannot pay that, or None."""
        if self.accounts[name].frozen:
            return "wallet_frozen"
        return "insufficient_funds" if self.accounts[name].available < amount else None

    def _went_through(self, answer, refusal):
        expected = (422, refusal) if refusal else (201, None)
        assert (answer.status, answer.content.get("code")) == expected
        return refusal is None

    def _move(self, payer, payee, amount):
        self.accounts[payer].balance -= amount
        self.accounts[payee].balance += amount

    def _resolve(self, promise, status):
        promise.status = status
        self.accounts[promise.payer].held -= promise.amount

    def _remember(self, answer, payer, payee, amount):
        made = answer.content["id"]
        self.paid[made] = Payment(payer, payee, amount)
        return made


def test_given_any_sequence_of_operations_when_they_run_then_the_books_equal_the_model(owner):
    Operations.owner = owner
    run_state_machine_as_test(
        Operations,
        settings=settings(
            max_examples=60,
            stateful_step_count=20,
            deadline=None,
            derandomize=True,  # the same sequences everywhere: what fails, fails again
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


class Crowd:
    """Four people who do whatever they can think of, all at once."""

    def __init__(self):
        self.people = [person("100.00") for _ in range(4)]
        self.staff = StaffFactory()
        self.holds = [self._hold(0, 1), self._hold(2, 3)]
        self.payments = [self._payment(1, 2), self._payment(3, 0)]

    def _hold(self, payer, payee):
        return hold_of(reserve(self.people[payer], self.people[payee], "10.00"))

    def _payment(self, payer, payee):
        sent = send(self.people[payer], self.people[payee], "10.00").content["id"]
        return Transaction.objects.get(pk=sent)

    def act(self, seed):
        """Twenty operations; what was refused, counted by its code."""
        chance = random.Random(seed)
        doings = [self._send, self._reserve, self._capture, self._void, self._refund]
        refusals = Counter()
        for _ in range(20):
            try:
                answer = chance.choice(doings)(chance)
                refusals[answer.content.get("code", "done")] += 1
            except InvalidState as refusal:
                refusals[refusal.code] += 1
        return refusals

    def _send(self, chance):
        payer, payee = chance.sample(self.people, 2)
        answer = send(payer, payee, self._amount(chance))
        if answer.status == 201:
            self.payments.append(Transaction.objects.get(pk=answer.content["id"]))
        return answer

    def _reserve(self, chance):
        payer, payee = chance.sample(self.people, 2)
        answer = reserve(payer, payee, self._amount(chance))
        if answer.status == 201:
            self.holds.append(hold_of(answer))
        return answer

    def _capture(self, chance):
        hold = chance.choice(self.holds)
        return capture(hold.to_user, hold, self._amount(chance))

    def _void(self, chance):
        hold = chance.choice(self.holds)
        caller = chance.choice([hold.to_user, self.staff])
        TransactionService.void_hold(caller=caller, hold_id=hold.pk)
        return Answer(200, "{}")

    def _refund(self, chance):
        payment = chance.choice(self.payments)
        return refund(payment.to_user, payment.pk, self._amount(chance))

    @staticmethod
    def _amount(chance):
        return f"{chance.randint(1, 2500) / 100:.2f}"


def test_given_a_crowd_when_everything_happens_at_once_then_no_cent_is_lost_or_made():
    crowd = Crowd()
    outcomes = at_once(*[lambda seed=seed: crowd.act(seed) for seed in range(8)])
    assert all(isinstance(x, Counter) for x in outcomes), outcomes
    total = sum(outcomes, Counter())
    assert total.keys() <= {
        "done",
        "invalid_state",
        "insufficient_funds",
        "amount_exceeds_remaining",
    }
    assert total["done"] > 20
    assert sum(balance(user) for user in crowd.people) == Decimal("400.00")
    for user in crowd.people:
        active = Hold.objects.filter(from_user=user, status="active")
        assert held(user) == sum(hold.amount for hold in active)
    for payment in Transaction.objects.filter(type__in=["transfer", "capture"]):
        given_back = [child.amount for child in payment.children.all()]
        assert payment.refunded_amount == sum(given_back) <= payment.amount
    assert breaches() == []
