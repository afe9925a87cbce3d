"""A superuser with every trigger off: what he changes in refunds to source is named."""

import pytest
from django.conf import settings
from django.test import override_settings

from payments.models import DepositRefund
from payments.tests.test_refunds import PATH, give_back, paid, told
from transactions.models import Transaction
from transactions.tests.helpers import breaches
from transactions.tests.proofs import tamper
from users.tests.factories import StaffFactory

pytestmark = pytest.mark.django_db(transaction=True)

REFUND = "payments_depositrefund"
MADE = "transactions_transaction"
LEDGER = "transactions_transactionledger"
TAMPERINGS = {
    "an order deleted": (
        f"DELETE FROM {REFUND} WHERE id = '{{sent}}'",
        "invariant 5: transaction {sent_by}: nobody ordered this refund to its source",
    ),
    "a failure deleted": (
        f"DELETE FROM {REFUND} WHERE id = '{{failed}}'",
        "invariant 5: transaction {back_by}: the refund that it brings back has not failed",
    ),
    "an amount": (
        f"UPDATE {REFUND} SET amount = 2 WHERE id = '{{sent}}'",
        "invariant 5: deposit refund {sent}: transaction {sent_by} is not its own",
    ),
    "a failure that became a success": (
        f"UPDATE {REFUND} SET status = 'succeeded', reversal_id = NULL, failure_code = ''"
        " WHERE id = '{failed}'",
        "invariant 5: deposit refund {failed}: transaction {back_by} brought it back, it is"
        " succeeded",
    ),
    "another reversal": (
        f"UPDATE {REFUND} SET reversal_id = '{{deposit}}' WHERE id = '{{failed}}'",
        "invariant 5: deposit refund {failed}: transaction {deposit} does not bring it back",
    ),
    "its orderer": (
        f"UPDATE {REFUND} SET requested_by_id = '{{owner}}' WHERE id = '{{sent}}'",
        "invariant 5: deposit refund {sent}: somebody refunded their own money",
    ),
    "another account": (
        f"UPDATE {LEDGER} SET account = 'fees' WHERE transaction_id = '{{sent_by}}'"
        " AND wallet_id IS NULL",
        "a refund goes to a wallet or back to the gateway",
    ),
    "less that was refunded": (
        f"UPDATE {MADE} SET refunded_amount = 9.99 WHERE id = '{{deposit}}'",
        "invariant 4: transaction {deposit}: what was refunded is not the sum of the refunds",
    ),
    "more that was refunded than was ever sent": (
        f"UPDATE {MADE} SET refunded_amount = 30.01 WHERE id = '{{deposit}}'",
        "invariant 4: transaction {deposit}: what was refunded is not the sum of the refunds",
    ),
    "another deposit": (
        f"UPDATE {MADE} SET parent_id = id WHERE id = '{{sent_by}}'",
        "invariant 5: transaction {sent_by}: it does not undo the transaction that it names",
    ),
}


@pytest.mark.parametrize("what", TAMPERINGS)
def test_given_a_superuser_who_tampers_when_verifying_then_it_is_named(owner, what):
    with override_settings(PAYMENT_GATEWAYS={**settings.PAYMENT_GATEWAYS, "other": PATH}):
        staff, intent = StaffFactory(permissions=["payments.refund_deposit"]), paid("100.00")
        give_back(staff, intent, "20.00")
        failed = DepositRefund.objects.get()
        told(failed, "return.failed")
        give_back(staff, intent, "10.00")
    sent = DepositRefund.objects.exclude(pk=failed.pk).get()
    assert Transaction.objects.count() == 4
    names = {
        "sent": sent.pk,
        "sent_by": sent.transaction_id,
        "failed": failed.pk,
        "back_by": failed.reversal_id,
        "deposit": intent.transaction_id,
        "owner": intent.user_id,
    }
    assert breaches() == []
    statement, told_of = TAMPERINGS[what]
    tamper(owner, statement.format(**names))
    assert told_of.format(**names) in "\n".join(map(str, breaches()))
