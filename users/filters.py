"""What staff may filter the list of users by."""

from typing import Any

import django_filters
from django.db.models import QuerySet

from users import queries
from users.models import KYCStatus, User


class UserFilter(django_filters.FilterSet):
    kyc_status = django_filters.ChoiceFilter(choices=KYCStatus.choices)
    search = django_filters.CharFilter(
        method="find",
        max_length=254,
        help_text="Words that begin the email, a name or the phone number; or the user's id.",
    )

    class Meta:
        model = User
        fields: list[str] = []

    def find(self, users: QuerySet[User], _: str, text: Any) -> QuerySet[User]:
        return queries.search_users(users, str(text))
