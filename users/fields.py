"""Columns with a rule of their own."""

from typing import Any

from django.db import models

from fintech_core.fields import EncryptedTextField

__all__ = ["EncryptedTextField", "LowerCaseEmailField", "lower_case"]


class LowerCaseEmailField(models.EmailField):
    """An email address, lower-case in the row and in every exact look-up.

    So `User.objects.get(email="Alice@Example.com")` finds alice@example.com, whoever asks.
    """

    def to_python(self, value: Any) -> Any:
        return lower_case(super().to_python(value))

    def get_prep_value(self, value: Any) -> Any:
        return lower_case(super().get_prep_value(value))

    def pre_save(self, model_instance: models.Model, add: bool) -> Any:
        value = lower_case(super().pre_save(model_instance, add))
        setattr(model_instance, self.attname, value)
        return value


def lower_case(email: Any) -> Any:
    return email.strip().lower() if isinstance(email, str) else email
