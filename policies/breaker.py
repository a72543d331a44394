"""Should a deployment be called now, after what its last calls brought? One state machine per deployment.

Pure: `now_s` is an argument. States, the graver first:

    credential_rejected   the provider refused our credential; until the credential's revision changes
    ejected               too many faults; 30 s times the number of ejections in a row, 300 s at most
    half_open             the ejection has run out: one probe at a time, its outcome decides
    cooling               the provider said 429; as long as it asked for, or 1 s doubling to 8 s
    ok

What a request itself caused (400, 404, 413, 422, a client that left) never counts.
"""

from __future__ import annotations

from typing import Any, Literal

State = Literal["ok", "half_open", "cooling", "ejected", "credential_rejected"]

CONSECUTIVE_FAILURES = 5
WINDOW_S = 30
WINDOW_MIN_REQUESTS = 20
WINDOW_FAILURE_RATIO = 0.5
EJECTION_S = 30.0
EJECTION_CAP_S = 300.0
COOLING_BASE_S = 1.0
COOLING_CAP_S = 8.0
# A provider that says "come back tomorrow" is asked again after this long: quotas are raised, clocks are wrong.
RETRY_AFTER_CAP_S = 300.0
# A probe whose outcome never came (its client left) blocks the next one no longer than this.
PROBE_LEASE_S = 60.0
LATENCY_SHARE = 0.2  # of the newest measurement in the running mean

REQUEST_CAUSED = frozenset({"request", "refused", "context_overflow", "cancelled"})


class DeploymentHealth:
    """What one worker knows about one deployment."""

    __slots__ = (
        "_back_since_s",
        "_bucket_failures",
        "_bucket_requests",
        "_bucket_seconds",
        "_consecutive_failures",
        "_cooling_count",
        "_cooling_until_s",
        "_ejected_until_s",
        "_ejection_count",
        "_probe_until_s",
        "_reason",
        "_rejected_revision",
        "first_token_ms",
    )

    def __init__(self) -> None:
        self.first_token_ms: float | None = None
        self._consecutive_failures = 0
        # One bucket a second over the window; a bucket counts only while its second is in the window.
        self._bucket_seconds = [-1] * WINDOW_S
        self._bucket_requests = [0] * WINDOW_S
        self._bucket_failures = [0] * WINDOW_S
        self._ejected_until_s: float | None = None  # stays set through half_open
        self._ejection_count = 0
        self._back_since_s = float("-inf")
        self._probe_until_s = 0.0
        self._cooling_until_s = 0.0
        self._cooling_count = 0
        self._rejected_revision: int | None = None
        self._reason = ""

    def problem(self, now_s: float, credential_revision: int | None = None) -> str | None:
        """Return why it should not be called now, None when it may be. Changes nothing."""
        # Almost always nothing was ever wrong: three comparisons on the hot path.
        if self._rejected_revision is not None and (
            credential_revision is None or credential_revision == self._rejected_revision
        ):
            return "credential_rejected"
        if self._ejected_until_s is not None and (
            now_s < self._ejected_until_s or now_s < self._probe_until_s
        ):
            return "ejected"
        if now_s < self._cooling_until_s:
            return "cooling"
        return None

    def state(self, now_s: float, credential_revision: int | None = None) -> State:
        """Name the state; half_open also while its probe is under way."""
        problem = self.problem(now_s, credential_revision)
        if problem == "credential_rejected":
            return "credential_rejected"
        if self._ejected_until_s is not None:
            return "ejected" if now_s < self._ejected_until_s else "half_open"
        return "cooling" if problem == "cooling" else "ok"

    def try_probe(self, now_s: float) -> bool:
        """Ask to make a call now. In half_open one caller at a time gets True; otherwise everybody does."""
        if self._ejected_until_s is None or now_s < self._ejected_until_s:
            return True
        if now_s < self._probe_until_s:
            return False
        self._probe_until_s = now_s + PROBE_LEASE_S
        return True

    def abandon_probe(self) -> None:
        """A call ended without telling anything about the deployment: another may probe."""
        self._probe_until_s = 0.0

    def on_success(self, now_s: float, first_token_ms: float | None = None) -> None:
        """An answer came. Ends half_open; an ejection that has not run out stays (the call is older than it)."""
        self._count(now_s, is_failure=False)
        self._consecutive_failures = 0
        self._cooling_count = 0
        self._rejected_revision = None
        if first_token_ms is not None and 0 <= first_token_ms < float("inf"):
            mean = self.first_token_ms
            self.first_token_ms = (
                first_token_ms if mean is None else mean + LATENCY_SHARE * (first_token_ms - mean)
            )
        if self._ejected_until_s is not None and now_s >= self._ejected_until_s:
            self._close(now_s)

    def on_failure(self, now_s: float, kind: str) -> None:
        """A call failed through the deployment's fault. Kinds in REQUEST_CAUSED are ignored."""
        if kind in REQUEST_CAUSED:
            self.abandon_probe()
            return
        self._count(now_s, is_failure=True)
        self._consecutive_failures += 1
        if self._ejected_until_s is not None:
            if now_s >= self._ejected_until_s:
                self._eject(now_s, f"probe failed: {kind}")
            return
        if self._consecutive_failures >= CONSECUTIVE_FAILURES:
            self._eject(now_s, f"{self._consecutive_failures} failures in a row, last: {kind}")
            return
        requests, failures = self._counts(now_s)
        if requests >= WINDOW_MIN_REQUESTS and failures >= WINDOW_FAILURE_RATIO * requests:
            self._eject(now_s, f"{failures} of {requests} calls failed in {WINDOW_S} s, last: {kind}")

    def on_rate_limited(self, now_s: float, retry_after_s: float | None = None) -> None:
        """The provider said 429: it lives, and wants a pause. Never ejects; ends half_open."""
        if retry_after_s is None or not retry_after_s >= 0:
            pause_s = min(COOLING_CAP_S, COOLING_BASE_S * 2.0 ** min(self._cooling_count, 10))
        else:
            pause_s = min(retry_after_s, RETRY_AFTER_CAP_S)
        self._cooling_count += 1
        # Of several refusals in flight the longest pause stands.
        self._cooling_until_s = max(self._cooling_until_s, now_s + pause_s)
        if self._ejected_until_s is not None and now_s >= self._ejected_until_s:
            self._close(now_s)
        self._reason = "the provider said 429"

    def on_credential_rejected(self, revision: int) -> None:
        """The provider answered 401 or 403: out until the credential has another revision, or a call succeeds."""
        self._rejected_revision = revision
        self.abandon_probe()

    def as_report(self, now_s: float, credential_revision: int | None = None) -> dict[str, Any]:
        """For people: state, until (unix seconds or None), requests and failures in the window, latency, reason."""
        state = self.state(now_s, credential_revision)
        requests, failures = self._counts(now_s)
        until: float | None = None
        reason = ""
        if state == "credential_rejected":
            reason = "the provider refused our credential"
        elif state != "ok":
            reason = self._reason
            if state == "ejected":
                until = self._ejected_until_s
            elif state == "cooling":
                until = self._cooling_until_s
        return {
            "state": state,
            "until": until,
            "requests": requests,
            "failures": failures,
            "first_token_ms": None if self.first_token_ms is None else round(self.first_token_ms, 1),
            "reason": reason,
        }

    def _eject(self, now_s: float, reason: str) -> None:
        # A deployment that held out for the longest ejection since it came back starts anew.
        if self._ejected_until_s is None and now_s - self._back_since_s > EJECTION_CAP_S:
            self._ejection_count = 0
        self._ejection_count += 1
        self._ejected_until_s = now_s + min(EJECTION_CAP_S, EJECTION_S * self._ejection_count)
        self._probe_until_s = 0.0
        self._reason = reason

    def _close(self, now_s: float) -> None:
        """Back in service, with a clean slate: what led to the ejection must not lead to the next."""
        self._ejected_until_s = None
        self._back_since_s = now_s
        self._probe_until_s = 0.0
        self._consecutive_failures = 0
        self._bucket_seconds = [-1] * WINDOW_S

    def _count(self, now_s: float, *, is_failure: bool) -> None:
        second = int(now_s)
        index = second % WINDOW_S
        if self._bucket_seconds[index] != second:
            self._bucket_seconds[index] = second
            self._bucket_requests[index] = 0
            self._bucket_failures[index] = 0
        self._bucket_requests[index] += 1
        if is_failure:
            self._bucket_failures[index] += 1

    def _counts(self, now_s: float) -> tuple[int, int]:
        """Requests and failures of the window that ends now."""
        newest = int(now_s)
        requests = failures = 0
        for index, second in enumerate(self._bucket_seconds):
            if newest - WINDOW_S < second <= newest:
                requests += self._bucket_requests[index]
                failures += self._bucket_failures[index]
        return requests, failures
