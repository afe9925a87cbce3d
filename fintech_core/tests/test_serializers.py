"""What every serializer of a request shares."""

import pytest
from rest_framework import serializers

from fintech_core.serializers import StrictSerializer, TextField


class _Asked(StrictSerializer):
    name = TextField(max_length=10, allow_blank=True)
    note = serializers.CharField(read_only=True, default="ours")


@pytest.mark.parametrize("text", ["plain", "Łódź", "😀", ""])
def test_given_text_when_reading_then_it_is_kept(text):
    assert _Asked.read({"name": text}) == {"name": text}


@pytest.mark.parametrize("text", ["\ud800", "a\udfff", "a\x00", "x" * 11, 5, True, None, ["x"]])
def test_given_what_is_no_text_when_reading_then_it_is_refused(text):
    with pytest.raises(serializers.ValidationError) as refusal:
        _Asked.read({"name": text})
    assert list(refusal.value.detail) == ["name"]


@pytest.mark.parametrize("name", ["note", "is_staff"])
def test_given_a_member_that_is_not_to_be_written_when_reading_then_it_is_refused(name):
    with pytest.raises(serializers.ValidationError) as refusal:
        _Asked.read({"name": "x", name: "y"})
    assert refusal.value.detail[name][0].code == "unknown_field"


def test_given_a_field_that_is_only_read_when_validating_then_its_default_is_seen():
    seen = []

    class Asked(_Asked):
        class Meta:
            validators = [seen.append]

    Asked.read({"name": "x"})
    assert seen == [{"note": "ours", "name": "x"}]
