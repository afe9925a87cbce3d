from datetime import timedelta

import pytest
import time_machine
from django.db import connection
from django.utils import timezone

from users import services, tokens
from users.exceptions import InvalidCredentials, TokenNotValid
from users.models import Session, User
from users.tasks import delete_dead_sessions
from users.tests.factories import PASSWORD, StaffFactory, UserFactory, hashed, sign_in
from users.tests.helpers import at_once, bearer, get, login, post, refusal, wrong_fields

NEW_PASSWORD = "a quite different sentence"


def refresh(token):
    return post("auth/refresh/", {"refresh": token})


def verify(token):
    return post("auth/verify/", {"token": token})


def assert_dead(*pairs):
    for pair in pairs:
        assert refusal(get("users/me/", bearer(pair.access))) == (401, "token_not_valid")
        assert refusal(verify(pair.access)) == (401, "token_not_valid")
        assert refusal(verify(pair.refresh)) == (401, "token_not_valid")
        assert refusal(refresh(pair.refresh)) == (401, "token_not_valid")


def assert_alive(pair):
    assert get("users/me/", bearer(pair.access)).status_code == 200
    assert verify(pair.access).status_code == 200
    assert verify(pair.refresh).status_code == 200


@pytest.mark.django_db(transaction=True)
class TestRefresh:
    def test_given_a_living_token_when_refreshing_then_a_new_pair_that_works(self):
        old = sign_in(UserFactory())
        response = refresh(old.refresh)
        assert response.status_code == 200
        new = tokens.TokenPair(**response.json())
        assert new.refresh != old.refresh
        assert_alive(new)

    def test_given_a_dead_token_shown_again_when_refreshing_then_the_family_dies_for_good(self):
        old = sign_in(UserFactory())
        new = tokens.TokenPair(**refresh(old.refresh).json())
        assert refusal(refresh(old.refresh)) == (401, "token_not_valid")
        assert Session.objects.get().revoked_reason == "reuse"
        assert_dead(old, new)

    def test_given_reuse_in_one_family_when_using_another_then_it_lives(self):
        alice = UserFactory()
        stolen, other = sign_in(alice), sign_in(alice)
        refresh(stolen.refresh)
        refresh(stolen.refresh)
        assert_alive(other)

    def test_given_one_token_at_once_when_refreshing_then_one_wins_and_the_family_dies(self):
        pair = sign_in(UserFactory())
        responses = at_once(*[lambda: refresh(pair.refresh)] * 6)
        won = [r for r in responses if r.status_code == 200]
        assert len(won) == 1
        assert all(refusal(r) == (401, "token_not_valid") for r in responses if r not in won)
        assert_dead(pair, tokens.TokenPair(**won[0].json()))

    def test_given_a_chain_of_refreshes_when_time_passes_then_seven_days_from_the_last(self):
        pair = sign_in(UserFactory())
        with time_machine.travel(timezone.now() + timedelta(days=6), tick=False):
            pair = services.refresh_session(refresh=pair.refresh)
        with time_machine.travel(timezone.now() + timedelta(days=12), tick=False):
            pair = services.refresh_session(refresh=pair.refresh)
        with (
            time_machine.travel(timezone.now() + timedelta(days=20), tick=False),
            pytest.raises(TokenNotValid),
        ):
            services.refresh_session(refresh=pair.refresh)

    def test_given_an_access_token_of_16_minutes_when_calling_then_401(self):
        pair = sign_in(UserFactory())
        with time_machine.travel(timezone.now() + timedelta(minutes=16), tick=False):
            assert refusal(get("users/me/", bearer(pair.access))) == (401, "token_not_valid")
            assert refresh(pair.refresh).status_code == 200

    @pytest.mark.parametrize("token", ["x", "a.b.c", "é", "x" * 2048])
    def test_given_rubbish_when_refreshing_then_401(self, token):
        assert refusal(refresh(token)) == (401, "token_not_valid")

    @pytest.mark.parametrize("token", ["", None, 5, [], "x" * 3000, "a\x00b"])
    def test_given_a_bad_shape_when_refreshing_then_400(self, token):
        assert wrong_fields(refresh(token)) == ["refresh"]

    def test_given_an_access_token_when_refreshing_then_401(self):
        pair = sign_in(UserFactory())
        assert refusal(refresh(pair.access)) == (401, "token_not_valid")
        assert_alive(pair)

    def test_given_a_session_that_was_removed_when_refreshing_then_401(self):
        pair = sign_in(UserFactory())
        Session.objects.all().delete()
        assert_dead(pair)


@pytest.mark.django_db(transaction=True)
class TestLogout:
    def test_given_a_session_when_signing_out_then_204_and_all_its_tokens_are_dead(self):
        pair = sign_in(UserFactory())
        response = post("auth/logout/", {"refresh": pair.refresh})
        assert response.status_code == 204
        assert response.content == b""
        assert_dead(pair)

    def test_given_two_sessions_when_signing_out_of_one_then_the_other_lives(self):
        alice = UserFactory()
        one, other = sign_in(alice), sign_in(alice)
        post("auth/logout/", {"refresh": one.refresh})
        assert_alive(other)

    def test_given_a_refresh_that_rotated_when_signing_out_with_the_old_one_then_all_die(self):
        old = sign_in(UserFactory())
        new = services.refresh_session(refresh=old.refresh)
        assert post("auth/logout/", {"refresh": old.refresh}).status_code == 204
        assert_dead(old, new)

    def test_given_a_lost_answer_when_signing_out_again_then_204(self):
        pair = sign_in(UserFactory())
        answers = [post("auth/logout/", {"refresh": pair.refresh}) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [204, 204]

    @pytest.mark.parametrize("kind", ["access", "rubbish"])
    def test_given_no_refresh_token_when_signing_out_then_401(self, kind):
        pair = sign_in(UserFactory())
        token = pair.access if kind == "access" else "rubbish"
        assert refusal(post("auth/logout/", {"refresh": token})) == (401, "token_not_valid")
        assert_alive(pair)


@pytest.mark.django_db(transaction=True)
class TestPasswordChange:
    def change(self, pair, current=PASSWORD, new=NEW_PASSWORD):
        body = {"current_password": current, "new_password": new}
        return post("users/me/password/", body, bearer(pair.access))

    def test_given_the_right_password_when_changing_it_then_every_session_ends(self):
        alice = UserFactory()
        one, other = sign_in(alice), sign_in(alice)
        assert self.change(one).status_code == 204
        assert_dead(one, other)
        assert set(Session.objects.values_list("revoked_reason", flat=True)) == {"password_changed"}
        assert refusal(login(alice.email)) == (401, "invalid_credentials")
        assert login(alice.email, NEW_PASSWORD).status_code == 200

    def test_given_a_wrong_current_password_when_changing_it_then_400(self):
        pair = sign_in(UserFactory())
        assert wrong_fields(self.change(pair, current="wrong")) == ["current_password"]
        assert_alive(pair)

    def test_given_a_weak_new_password_when_changing_it_then_400(self):
        pair = sign_in(UserFactory(email="charlie.brown@example.com"))
        for weak in ("short", "1234567890123", "charlie.brown"):
            assert set(wrong_fields(self.change(pair, new=weak))) == {"new_password"}
        assert_alive(pair)

    def test_given_the_old_password_as_the_new_one_when_changing_it_then_400(self):
        pair = sign_in(UserFactory())
        response = self.change(pair, new=PASSWORD)
        assert wrong_fields(response) == ["new_password"]
        assert response.json()["errors"][0]["code"] == "password_unchanged"
        assert_alive(pair)

    def test_given_raw_sql_when_the_password_changes_then_every_session_ends(self):
        alice, bob = UserFactory(), UserFactory()
        pair, others = sign_in(alice), sign_in(bob)
        with connection.cursor() as cursor:
            cursor.execute("UPDATE users_user SET password = %s WHERE id = %s", ["!", alice.pk])
        assert_dead(pair)
        assert_alive(others)

    def test_given_a_password_changed_during_login_when_the_session_opens_then_refused(self):
        alice = UserFactory()
        checked_before = User.objects.get(pk=alice.pk)
        User.objects.filter(pk=alice.pk).update(password=hashed(NEW_PASSWORD))
        with pytest.raises(InvalidCredentials):
            services._open_session(checked_before)

    def test_given_two_changes_at_once_when_both_know_the_old_password_then_one_wins(self):
        alice = UserFactory()
        results = at_once(
            *[
                lambda new=new: services.change_password(
                    user_id=alice.pk, current_password=PASSWORD, new_password=new
                )
                for new in ("the first new sentence", "the second new sentence")
            ]
        )
        assert [type(result).__name__ for result in results].count("ValidationError") == 1


@pytest.mark.django_db(transaction=True)
class TestDeactivation:
    @pytest.mark.parametrize("how", ["service", "raw sql"])
    def test_given_sessions_when_deactivated_then_access_and_refresh_are_dead(self, how):
        alice = UserFactory()
        pair = sign_in(alice)
        if how == "service":
            boss = StaffFactory(permissions=["users.change_user"])
            services.set_active(user_id=alice.pk, is_active=False, actor=boss)
        else:
            with connection.cursor() as cursor:
                cursor.execute("UPDATE users_user SET is_active = false WHERE id = %s", [alice.pk])
        assert_dead(pair)
        assert refusal(login(alice.email)) == (401, "invalid_credentials")

    def test_given_a_reactivated_user_when_using_old_tokens_then_they_stay_dead(self):
        alice = UserFactory()
        pair = sign_in(alice)
        User.objects.filter(pk=alice.pk).update(is_active=False)
        User.objects.filter(pk=alice.pk).update(is_active=True)
        assert_dead(pair)
        assert_alive(sign_in(alice))

    def test_given_other_changes_when_the_user_is_saved_then_the_session_lives(self):
        alice = UserFactory()
        pair = sign_in(alice)
        alice.first_name = "Alicia"
        alice.save()
        assert_alive(pair)


@pytest.mark.django_db(transaction=True)
class TestVerify:
    def test_given_a_living_token_when_verifying_then_200_and_an_empty_object(self):
        pair = sign_in(UserFactory())
        for token in (pair.access, pair.refresh):
            response = verify(token)
            assert (response.status_code, response.json()) == (200, {})

    def test_given_a_rotated_refresh_token_when_verifying_then_401_but_no_reuse(self):
        old = sign_in(UserFactory())
        new = services.refresh_session(refresh=old.refresh)
        assert refusal(verify(old.refresh)) == (401, "token_not_valid")
        assert_alive(new)

    def test_given_rubbish_when_verifying_then_401(self):
        assert refusal(verify("rubbish")) == (401, "token_not_valid")


@pytest.mark.django_db(transaction=True)
class TestDeadSessions:
    def test_given_dead_and_living_sessions_when_cleaning_up_then_the_living_stay(self):
        alice = UserFactory()
        living, revoked_lately, revoked, expired = (sign_in(alice) for _ in range(4))
        now = timezone.now()
        for pair, change in [
            (revoked_lately, {"revoked_at": now, "revoked_reason": "logout"}),
            (revoked, {"revoked_at": now - timedelta(days=8), "revoked_reason": "logout"}),
            (expired, {"expires_at": now - timedelta(seconds=1)}),
        ]:
            claims = tokens.read_refresh(pair.refresh)
            Session.objects.filter(pk=claims.session_id).update(**change)
        delete_dead_sessions(something_newer=1)
        assert Session.objects.count() == 2
        assert_alive(living)
        assert_dead(revoked_lately, revoked, expired)

    def test_given_many_when_cleaning_up_then_in_bounded_batches(self):
        alice = UserFactory()
        for _ in range(5):
            sign_in(alice)
        Session.objects.update(expires_at=timezone.now() - timedelta(days=1))
        assert services.delete_dead_sessions(batch_size=2, batches_max=2) == 4
        assert services.delete_dead_sessions(batch_size=2, batches_max=2) == 1
