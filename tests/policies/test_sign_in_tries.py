"""Does somebody who guesses have to wait, whichever worker they ask and however fast they are?"""

from __future__ import annotations

import datetime as dt
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from django.core.cache import cache
from django.db import connection
from django.test import Client

from policies.models import SignInTries
from policies.people import add_person
from policies.permissions import Role
from policies.sign_in_tries import (
    FORGOTTEN_AT_ONCE,
    MAX_TOKEN_TRIES,
    MAX_TRIES,
    WAIT,
    forget_tries,
    take_token_try,
    take_try,
)

NOW = dt.datetime(2030, 1, 1, 12, tzinfo=dt.UTC)
SECOND = dt.timedelta(seconds=1)


def take(username: str = "walter", address: str = "10.0.0.1", now: dt.datetime = NOW) -> bool:
    return take_try(username=username, address=address, now=now)


def test_of_many_tries_at_once_no_more_get_through_than_one_after_the_other(transactional_db: None) -> None:
    workers = 8
    together = Barrier(workers)

    def guess(_: int) -> list[bool]:
        together.wait(10)
        try:
            return [take() for _ in range(5)]
        finally:
            connection.close()

    with ThreadPoolExecutor(workers) as threads:
        results = [result for found in threads.map(guess, range(workers)) for result in found]
    assert (len(results), sum(results)) == (workers * 5, MAX_TRIES)
    assert take("walter", "10.0.0.2")
    assert take("wanda")
    assert not take("WALTER")


@pytest.mark.django_db
def test_the_wait_counts_from_the_last_try_that_was_looked_at() -> None:
    times = [NOW + 100 * SECOND * n for n in range(MAX_TRIES)]
    assert all(take(now=at) for at in times)
    assert not take(now=times[-1] + 10 * SECOND)
    assert not take(now=times[-1] + WAIT - SECOND)  # what was refused prolonged nothing
    assert take(now=times[-1] + WAIT)
    assert sum(take(now=times[-1] + WAIT) for _ in range(10)) == MAX_TRIES - 1


@pytest.mark.django_db
def test_who_gets_in_starts_afresh() -> None:
    for _ in range(MAX_TRIES):
        take()
    forget_tries(username="Walter", address="10.0.0.1")
    assert take()


def test_wrong_tokens_are_counted_for_all_workers_and_passwords_apart(transactional_db: None) -> None:
    def guess(_: int) -> list[bool]:
        try:
            return [take_token_try(address="10.0.0.1", now=NOW) for _ in range(8)]
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as threads:
        results = [result for found in threads.map(guess, range(4)) for result in found]
    assert (len(results), sum(results)) == (32, MAX_TOKEN_TRIES)
    assert take_token_try(address="10.0.0.2", now=NOW)
    assert take(username="", address="10.0.0.1")
    assert SignInTries.objects.count() == 3
    assert take_token_try(address="10.0.0.1", now=NOW + WAIT)


@pytest.mark.django_db
def test_invented_names_do_not_fill_the_table_and_no_name_stands_in_it() -> None:
    for number in range(3):
        take(f"a password typed as a name {number}")
    assert SignInTries.objects.count() == 3 <= FORGOTTEN_AT_ONCE
    assert not SignInTries.objects.filter(who_hash__contains="password").exists()
    take("later", now=NOW + WAIT)
    assert SignInTries.objects.count() == 1


@pytest.mark.django_db
def test_five_wrong_passwords_close_the_door_in_every_worker(settings: Any) -> None:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # fast
    _, password = add_person(username="walter", role=Role.VIEWER, actor="test")

    def sign_in(secret: str, username: str = "walter") -> int:
        cache.clear()  # another worker's memory
        return int(Client().post("/sign-in", {"username": username, "password": secret}).status_code)

    assert [sign_in("wrong") for _ in range(4)] == [200] * 4
    assert sign_in("", "walter") == 200  # nothing was tried
    assert sign_in(password) == 302
    assert [sign_in("wrong") for _ in range(MAX_TRIES)] == [200] * MAX_TRIES
    assert sign_in(password) == 429
    assert sign_in("wrong", "wanda") == 200
