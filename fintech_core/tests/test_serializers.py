"""What every serializer of a request shares."""

import pytest
from django.core.validators import MaxLengthValidator, RegexValidator
from hypothesis import given
from hypothesis import strategies as st
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


class _Payment(StrictSerializer):
    """Every kind of field that may or may not be there."""

    name = TextField(max_length=10)
    note = TextField(max_length=20, required=False, allow_blank=True, default="none")
    kind = serializers.ChoiceField(choices=["a", "b"], required=False)
    pairs = serializers.DictField(child=TextField(max_length=3), required=False, default=dict)


def _read_by(read, data):
    try:
        return read(data)
    except serializers.ValidationError as refusal:
        return refusal.get_full_details()


_TEXTS = st.sampled_from(["", " ", "plain", " kept ", "Łódź", "x" * 11, "a\0", "\ud800", "a", "c"])
_VALUES = _TEXTS | st.sampled_from([None, True, 5, 1.5, [], ["x"], {}, {"k": "v"}, {"k": "long"}])


class TestTheShortWay:
    @given(
        st.dictionaries(
            st.sampled_from(["name", "note", "kind", "pairs", "is_staff"]), _VALUES, max_size=5
        )
        | _VALUES
    )
    def test_given_any_request_when_reading_then_it_answers_as_the_long_way(self, data):
        form = _Payment()
        assert _read_by(_Payment.read, data) == _read_by(
            super(StrictSerializer, form).run_validation, data
        )

    def test_given_a_right_request_with_one_member_too_many_when_reading_then_it_is_refused(self):
        with pytest.raises(serializers.ValidationError) as refusal:
            _Payment.read({"name": "x", "is_staff": True})
        assert refusal.value.detail["is_staff"][0].code == "unknown_field"

    def test_given_a_default_that_is_made_when_reading_then_each_request_has_its_own(self):
        assert _Payment.read({"name": "x"})["pairs"] is not _Payment.read({"name": "x"})["pairs"]

    def test_given_more_to_a_class_than_its_fields_when_reading_then_it_is_asked(self):
        class Whole(_Payment):
            def validate(self, attrs):
                return {**attrs, "whole": True}

        class Single(_Payment):
            def validate_name(self, name):
                return name.upper()

        class Own(_Payment):
            def to_internal_value(self, data):
                return {**super().to_internal_value(data), "own": True}

        assert Whole.read({"name": "x"})["whole"]
        assert Single.read({"name": "x"})["name"] == "X"
        assert Own.read({"name": "x"})["own"]

    def test_given_part_of_a_request_when_reading_then_nothing_is_added(self):
        form = _Payment(data={"note": "x"}, partial=True)
        assert form.is_valid()
        assert form.validated_data == {"note": "x"}

    def test_given_a_field_under_another_name_when_reading_then_it_is_found_there(self):
        class Renamed(StrictSerializer):
            name = TextField(source="first_name")

        assert Renamed.read({"name": "x"}) == {"first_name": "x"}


def test_given_a_text_field_with_a_validator_of_its_own_when_reading_then_it_is_asked():
    class Plain(TextField):
        def __init__(self, **options):
            super().__init__(**options)
            self.validators.append(RegexValidator("^[a-z]*$"))

    class Asked(StrictSerializer):
        name = Plain()

    assert Asked.read({"name": "x"}) == {"name": "x"}
    with pytest.raises(serializers.ValidationError):
        Asked.read({"name": "X"})


def test_given_a_length_among_the_validators_when_reading_then_it_is_asked():
    class Asked(StrictSerializer):
        name = TextField(validators=[MaxLengthValidator(5)])

    with pytest.raises(serializers.ValidationError):
        Asked.read({"name": "x" * 6})
