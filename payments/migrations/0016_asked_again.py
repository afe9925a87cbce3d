"""Payouts remember that the gateway was asked more than once.

A refusal then settles nothing: the gateway may have taken the order the other time.
"""

from importlib import import_module

from django.db import migrations, models

GUARD_BEFORE = import_module("payments.migrations.0012_asked_once").GUARD
_ASKED_AGAIN = """
    IF OLD.asked_again AND NOT NEW.asked_again THEN
        RAISE EXCEPTION 'payout %: the gateway was asked again', OLD.id
            USING ERRCODE = '23514', CONSTRAINT = 'payments_payout_asked_again_for_good';
    END IF;
    RETURN NEW;"""
GUARD = GUARD_BEFORE.replace("'asked_at', ", "'asked_at', 'asked_again', ").replace(
    "\n    RETURN NEW;", _ASKED_AGAIN
)


class Migration(migrations.Migration):
    dependencies = [("payments", "0015_no_index_of_all_events")]

    operations = [
        migrations.AddField(
            model_name="payout",
            name="asked_again",
            field=models.BooleanField(db_default=False, default=False, editable=False),
        ),
        # As lists: Django would split a plain text at semicolons, inside function bodies, too.
        migrations.RunSQL([GUARD], [GUARD_BEFORE]),
    ]
