"""JSON as the API writes it."""

from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

import pytest
from rest_framework.renderers import JSONRenderer

from fintech_core.renderers import as_json

ANSWER = {
    "id": UUID(int=7),
    "amount": Decimal("1.50"),
    "at": datetime(2026, 11, 22, 13, 0, 0, 120, UTC),
    "text": 'Łódź 😀 "\\/ \u2028 \u2029 \x7f </script>',
    "nothing": None,
    "many": [1, 2.5, True, {}],
}


@pytest.mark.parametrize("answer", [ANSWER, [], {}, "text", None, [ANSWER]])
def test_given_an_answer_when_writing_it_then_as_rest_framework_would(answer):
    expected = JSONRenderer().render(answer).decode() or "null"
    assert as_json(answer) == expected


def test_given_a_number_that_json_lacks_when_writing_it_then_it_is_refused():
    with pytest.raises(ValueError, match="not JSON compliant"):
        as_json({"amount": float("nan")})
