"""When is a deployment out, and how does it come back?"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from policies.breaker import (
    CONSECUTIVE_FAILURES,
    COOLING_CAP_S,
    EJECTION_CAP_S,
    EJECTION_S,
    PROBE_LEASE_S,
    RETRY_AFTER_CAP_S,
    DeploymentHealth,
)

START_S = 1_700_000_000.0


def ejected(now_s: float = START_S) -> DeploymentHealth:
    health = DeploymentHealth()
    for _ in range(CONSECUTIVE_FAILURES):
        health.on_failure(now_s, "timeout")
    return health


def test_five_failures_in_a_row_eject_and_four_do_not() -> None:
    health = DeploymentHealth()
    for _ in range(4):
        health.on_failure(START_S, "timeout")
    assert health.problem(START_S) is None
    health.on_failure(START_S, "timeout")
    assert health.problem(START_S) == "ejected"


def test_a_success_between_failures_starts_the_row_anew() -> None:
    health = DeploymentHealth()
    for kind in ["f", "f", "f", "f", "s", "f", "f", "f", "f"]:
        if kind == "f":
            health.on_failure(START_S, "broken")
        else:
            health.on_success(START_S)
    assert health.problem(START_S) is None


def test_half_of_twenty_requests_failing_within_the_window_eject() -> None:
    health = DeploymentHealth()
    for number in range(20):
        assert health.problem(START_S + number) is None
        if number % 2:
            health.on_failure(START_S + number, "http_error")
        else:
            health.on_success(START_S + number)
    assert health.problem(START_S + 19) == "ejected"


def test_failures_older_than_the_window_are_forgotten() -> None:
    health = DeploymentHealth()
    for number in range(9):
        health.on_success(START_S)
        health.on_failure(START_S, "http_error")
        assert health.problem(START_S) is None, number
    for _ in range(4):
        health.on_success(START_S + 31)
        health.on_failure(START_S + 31, "http_error")
    assert health.problem(START_S + 31) is None
    assert health.as_report(START_S + 31)["requests"] == 8


def test_after_the_ejection_one_probe_at_a_time_decides() -> None:
    health = ejected()
    back_s = START_S + EJECTION_S
    assert health.problem(back_s - 0.1) == "ejected"
    assert health.problem(back_s) is None
    assert health.state(back_s) == "half_open"
    assert health.try_probe(back_s) is True
    assert health.problem(back_s + 1) == "ejected"
    assert health.try_probe(back_s + 1) is False
    health.on_success(back_s + 2, 50.0)
    assert health.state(back_s + 2) == "ok"
    assert health.try_probe(back_s + 2) is True
    assert health.try_probe(back_s + 2) is True


def test_each_failed_probe_lengthens_the_ejection_up_to_the_cap() -> None:
    health = ejected()
    now_s = START_S
    lengths = []
    for _ in range(14):
        until_s = health.as_report(now_s)["until"]
        lengths.append(until_s - now_s)
        now_s = until_s
        assert health.try_probe(now_s)
        health.on_failure(now_s, "connect_error")
    assert lengths[:3] == [30, 60, 90]
    assert lengths[-1] == EJECTION_CAP_S


def test_a_long_good_time_forgets_earlier_ejections() -> None:
    health = ejected()
    health.on_success(START_S + 40)
    for _ in range(CONSECUTIVE_FAILURES):
        health.on_failure(START_S + 60, "timeout")
    assert health.as_report(START_S + 60)["until"] == START_S + 60 + 60
    health.on_success(START_S + 130)
    for _ in range(CONSECUTIVE_FAILURES):
        health.on_failure(START_S + 500, "timeout")
    assert health.as_report(START_S + 500)["until"] == START_S + 500 + 30


def test_a_probe_that_never_ends_blocks_others_for_its_lease_only() -> None:
    health = ejected()
    back_s = START_S + EJECTION_S
    assert health.try_probe(back_s)
    assert not health.try_probe(back_s + PROBE_LEASE_S - 1)
    assert health.try_probe(back_s + PROBE_LEASE_S)
    health.abandon_probe()
    assert health.try_probe(back_s + PROBE_LEASE_S)


def test_an_answer_from_before_the_ejection_does_not_end_it() -> None:
    health = ejected()
    health.on_success(START_S + 1, 10.0)
    assert health.problem(START_S + 2) == "ejected"


def test_a_429_cools_as_long_as_the_provider_asked_for() -> None:
    health = DeploymentHealth()
    health.on_rate_limited(START_S, 12.0)
    assert health.problem(START_S + 11.9) == "cooling"
    assert health.problem(START_S + 12.0) is None
    assert health.as_report(START_S)["until"] == START_S + 12


def test_429s_without_a_time_double_their_pause_up_to_the_cap() -> None:
    health = DeploymentHealth()
    now_s, pauses = START_S, []
    for _ in range(6):
        health.on_rate_limited(now_s)
        until_s = health.as_report(now_s)["until"]
        pauses.append(until_s - now_s)
        now_s = until_s
    assert pauses == [1, 2, 4, 8, 8, 8]
    health.on_success(now_s)
    health.on_rate_limited(now_s)
    assert health.as_report(now_s)["until"] == now_s + 1


def test_no_number_of_429s_ejects_and_an_absurd_pause_is_capped() -> None:
    health = DeploymentHealth()
    for _ in range(100):
        health.on_rate_limited(START_S, 1e9)
    assert health.state(START_S) == "cooling"
    assert health.problem(START_S + RETRY_AFTER_CAP_S) is None
    health.on_rate_limited(START_S, float("nan"))
    assert health.problem(START_S + RETRY_AFTER_CAP_S + COOLING_CAP_S) is None


def test_a_refused_credential_keeps_it_out_until_its_revision_changes() -> None:
    health = DeploymentHealth()
    health.on_credential_rejected(3)
    assert health.problem(START_S + 1e6, 3) == "credential_rejected"
    assert health.problem(START_S + 1e6, 4) is None
    assert health.as_report(START_S, 3)["state"] == "credential_rejected"
    health.on_success(START_S)
    assert health.problem(START_S, 3) is None


def test_what_the_request_caused_never_counts() -> None:
    health = DeploymentHealth()
    for kind in ["request", "refused", "context_overflow", "cancelled"] * 20:
        health.on_failure(START_S, kind)
    assert health.state(START_S) == "ok"
    assert health.as_report(START_S)["requests"] == 0


def test_latency_is_a_running_mean_that_ignores_nonsense() -> None:
    health = DeploymentHealth()
    assert health.first_token_ms is None
    health.on_success(START_S, 100.0)
    health.on_success(START_S, 200.0)
    assert health.first_token_ms == 120.0
    for nonsense in (None, float("nan"), float("inf"), -1.0):
        health.on_success(START_S, nonsense)
    assert health.first_token_ms == 120.0


_events = st.lists(
    st.tuples(
        st.sampled_from(["success", "fault", "request", "429", "429+", "401", "probe", "abandon"]),
        st.floats(0, 40),
    ),
    max_size=120,
)


@given(_events)
def test_whatever_happens_the_state_agrees_with_itself_and_every_pause_ends(
    events: list[tuple[str, float]],
) -> None:
    health = DeploymentHealth()
    now_s = START_S
    faults = 0
    for event, pause_s in events:
        now_s += pause_s
        if event == "success":
            health.on_success(now_s, pause_s)
        elif event == "fault":
            faults += 1
            health.on_failure(now_s, "timeout")
        elif event == "request":
            health.on_failure(now_s, "refused")
        elif event == "429":
            health.on_rate_limited(now_s)
        elif event == "429+":
            health.on_rate_limited(now_s, pause_s * 100)
        elif event == "401":
            health.on_credential_rejected(1)
        elif event == "probe" and health.try_probe(now_s) and health.state(now_s, 2) == "half_open":
            assert not health.try_probe(now_s)
        elif event == "abandon":
            health.abandon_probe()
        report = health.as_report(now_s, 2)
        problem = health.problem(now_s, 2)
        assert report["state"] != "credential_rejected"  # the revision in force is another one
        assert report["failures"] <= report["requests"]
        if report["state"] == "ok":
            assert problem is None
        if problem == "cooling":
            assert report["state"] in ("cooling", "half_open")
        if report["until"] is not None:
            assert now_s < report["until"] <= now_s + EJECTION_CAP_S
        if faults < CONSECUTIVE_FAILURES:
            assert report["state"] not in ("ejected", "half_open")
    # Left alone, nothing stays closed for longer than the longest ejection and a probe's lease.
    assert health.problem(now_s + EJECTION_CAP_S + PROBE_LEASE_S, 2) is None


@given(st.lists(st.booleans(), min_size=1, max_size=200))
def test_it_is_ejected_exactly_when_the_numbers_say_so(outcomes: list[bool]) -> None:
    health = DeploymentHealth()
    row = failures = 0
    for requests, is_success in enumerate(outcomes, start=1):
        if is_success:
            row = 0
            health.on_success(START_S)
        else:
            row += 1
            failures += 1
            health.on_failure(START_S, "http_error")
        if not is_success and (row >= 5 or (requests >= 20 and failures * 2 >= requests)):
            assert health.problem(START_S) == "ejected"
            return
        assert health.problem(START_S) is None
