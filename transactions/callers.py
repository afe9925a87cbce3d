"""Who calls, asked of the database: what a request says of its caller is as old as the request."""

from users.models import User


def is_staff_still(caller: User) -> bool:
    """Whether they came as staff and are: active, with their rights not taken away since."""
    return (
        caller.is_staff
        and User.objects.filter(pk=caller.pk, is_active=True, is_staff=True).exists()
    )
