"""What becomes of drafts that were written with bad luck, or bad intent? Each is refused or warned of in words."""

from __future__ import annotations

import datetime as dt
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connection, transaction

from gateway.dataplane.asking import _hour_and_weekday
from policies import canaries, cataloguing, publishing
from policies.errors import InUseError
from policies.models import Deployment, Policy
from policies.publishing import PolicyError
from tests.make_configuration import ACTOR, make_deployment, make_price, make_tenant
from tests.policies.api.callers import caller_with


def rule(name: str = "rest", when: str = "", *, deployments: Any = ("a",), **members: Any) -> dict[str, Any]:
    return {"name": name, "when": when, "deployments": list(deployments), **members}


NOTHING = [{"name": name, "weight": 0} for name in "ab"]
RIGHT_TO_LEFT = "\u202e"


@pytest.fixture
def policy() -> Policy:
    for name in "ab":
        make_price(deployment=make_deployment(name=name, region="eu"))
    row = publishing.create_policy(public_id="acme/auto", actor=ACTOR)
    make_tenant().policies.add(row)
    return row


def send(policy: Policy, *rules: dict[str, Any]) -> tuple[int, list[tuple[str, str, str]]]:
    """Save a draft through the management API: the answer's code, and each problem's severity, place and words."""
    caller = caller_with()
    path = f"policies/{policy.pk}/draft"
    body = {"document": {"rules": list(rules)}}
    sent = caller.send("PUT", path, body, If_Match=caller.get(path)["ETag"])
    found = sent.json()
    problems = found["problems"] if sent.status_code == 200 else found["errors"]
    return sent.status_code, [(one["severity"], one["path"], one["message"]) for one in problems]


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("rules", "severity", "path", "words"),
    [
        ([rule(fallbacks=["a"])], "error", "rules[0].fallbacks[0]", "named twice"),
        ([rule(fallbacks=["acme/auto"])], "error", "rules[0].fallbacks[0]", "no policy leads back to itself"),
        ([rule(strategy="weighted", deployments=NOTHING)], "error", "rules[0].deployments", "more than 0"),
        ([rule("one", "turn > 5 || has_tools"), rule("two", "turn > 7 && has_images"), rule()], "warning", "rules[1]",
         "never reached: 'one'"),
        ([rule("one", "turn > 5"), rule("two", "has_tools"), rule("three", "turn > 5 || has_tools"), rule()],
         "warning", "rules[2]", "'one' and 'two' before it take all"),
        ([rule("one", "turn > 5 || has_tools"), rule("two", "turn <= 5 && !has_tools"), rule()], "warning", "rules[2]",
         "'one' and 'two' before it take all"),
        ([rule("night", "hour >= 24"), rule()], "warning", "rules[0].when", "no request meets this"),
        ([rule("both", "turn > 5 && turn < 3"), rule()], "warning", "rules[0].when", "no request meets this"),
        ([rule(f"rule {n}", f"turn == {n}") for n in range(201)], "error", "rules", "at most 200 rules"),
        ([rule("a\nb")], "error", "rules[0].name", "printable"),
        ([rule(f"a{RIGHT_TO_LEFT}b")], "error", "rules[0].name", "printable"),
        ([rule("\u3164")], "error", "rules[0].name", "can be seen"),
        ([rule("\u0301")], "error", "rules[0].name", "can be seen"),
        ([rule("caf\u00e9", "has_tools"), rule("cafe\u0301")], "error", "rules[1].name", "the same name"),
        ([rule("two  words", "has_tools"), rule("two words")], "error", "rules[1].name", "the same name"),
        ([rule(deployments=["\u0430"])], "error", "rules[0].deployments[0]", "no deployment named"),
        ([rule(is_enabled=False)], "error", "rules", "no deployment could serve"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_said_at_its_place(
    policy: Policy, rules: list[dict[str, Any]], severity: str, path: str, words: str
) -> None:
    code, problems = send(policy, *rules)
    assert code == 200, "a draft may be unfinished"
    assert [one for one in problems if one[:2] == (severity, path) and words in one[2]], problems
    if severity == "error":
        with pytest.raises(PolicyError):
            publishing.publish(policy=policy, actor=ACTOR)


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("when", "words"),
    [
        (f"task == '{'a' * 1_000_000}'", "at most 2000 characters"),
        ("(" * 900 + "true" + ")" * 900, "nested too deeply"),
        (f"has_tools // {RIGHT_TO_LEFT} && false", "write \\u202E inside quotes"),
        ("tags.team == 'red\u200b'", "write \\u200B inside quotes"),
        ("task == '\U000e0041'", "write \\U000E0041 inside quotes"),
        ("input_tokens > 99999999999999999999", "invalid int"),
        ("input_tokens / 0 > 1", "division by zero"),
        ("input_tokens > '5'", "not defined for"),
    ],
)
def test_a_condition_that_nobody_can_use_or_read_is_not_even_saved(
    policy: Policy, when: str, words: str
) -> None:
    code, problems = send(policy, rule("odd", when), rule())
    assert code == 422
    ((severity, path, message),) = problems
    assert (severity, path) == ("error", "rules[0].when")
    assert words in message


@pytest.mark.django_db
def test_what_may_not_stand_in_a_condition_may_be_written_as_an_escape(policy: Policy) -> None:
    assert send(policy, rule("odd", "tags.team == 'red\\u200B'"), rule()) == (200, [])


@pytest.mark.django_db
def test_a_tenant_whose_regions_leave_nothing_stops_a_publication(policy: Policy) -> None:
    tenant = make_tenant(allowed_regions=["us"])
    tenant.policies.add(policy)
    _, problems = send(policy, rule(deployments=["a", "b"]))
    assert [words for severity, _, words in problems if severity == "error" and tenant.name in words]
    with pytest.raises(PolicyError, match="in the regions they allow"):
        publishing.publish(policy=policy, actor=ACTOR)


@pytest.mark.django_db
def test_what_a_canary_serves_by_is_in_use(policy: Policy) -> None:
    publishing.publish(policy=policy, actor=ACTOR, document={"rules": [rule()]})
    send(policy, rule(deployments=["b"]))
    canaries.start_canary(policy=policy, percent=5, actor=ACTOR)
    send(policy, rule())
    with pytest.raises(InUseError, match="is named by rule 'rest'"):
        cataloguing.delete_deployment(deployment=Deployment.objects.get(name="b"), actor=ACTOR)


def test_a_deployment_is_not_deleted_while_a_version_that_names_it_is_published(
    transactional_db: None, policy: Policy
) -> None:
    spare = make_deployment(name="spare")
    document = {"rules": [rule(deployments=["a"], fallbacks=["spare"])]}
    is_deleting = threading.Event()

    def delete() -> str:
        try:
            is_deleting.set()
            cataloguing.delete_deployment(deployment=spare, actor=ACTOR)
        except InUseError as refusal:
            return str(refusal)
        finally:
            connection.close()
        return "deleted"

    with ThreadPoolExecutor(1) as threads:
        with transaction.atomic():
            publishing.publish(policy=policy, actor=ACTOR, document=document)
            deleting = threads.submit(delete)
            assert is_deleting.wait(10)
            # Long enough for who does not wait for the publication to be through.
            deleting_early = _wait(deleting)
        assert not deleting_early
        assert "is named by rule 'rest'" in deleting.result(10)
    assert Deployment.objects.filter(pk=spare.pk).exists()


def _wait(future: Any) -> bool:
    try:
        future.result(0.3)
    except TimeoutError:
        return False
    return True


@pytest.mark.parametrize(
    ("utc", "hour", "weekday"),
    [
        # Berlin, 2026: clocks go from 2:00 to 3:00 on 29 March, and from 3:00 to 2:00 on 25 October (both Sundays).
        ("2026-03-28T22:59", 23, 6),
        ("2026-03-28T23:00", 0, 7),
        ("2026-03-29T00:59", 1, 7),
        ("2026-03-29T01:00", 3, 7),
        ("2026-03-29T22:00", 0, 1),
        ("2026-10-25T00:59", 2, 7),
        ("2026-10-25T01:00", 2, 7),
        ("2026-10-25T22:59", 23, 7),
        ("2026-10-25T23:00", 0, 1),
    ],
)
def test_hour_and_weekday_are_the_tenants_across_a_change_of_clocks(
    utc: str, hour: int, weekday: int
) -> None:
    unix_s = dt.datetime.fromisoformat(utc).replace(tzinfo=dt.UTC).timestamp()
    assert _hour_and_weekday("Europe/Berlin", unix_s // 60) == (hour, weekday)
