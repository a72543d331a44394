"""What does a request ask of routing? A parsed body, its headers and its key -> `Ask` and `Features`.

Pure. The console's test panel reads a pasted request through the same functions, without headers.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from gateway.dataplane.errors import BadRequest
from gateway.wire.openai_request import ParsedRequest
from gateway.wire.openai_text import read_text
from gateway.wire.openai_wishes import NO_WISHES
from policies.asks import Ask
from policies.autorouter.request_facts import read_text_facts
from policies.autorouter.request_types import TYPES
from policies.autorouter.tables import RouterTables
from policies.features import Features
from policies.naming import find_named_policy
from policies.snapshot import KeyGrant, RoutingSnapshot

NO_HEADERS: Mapping[bytes, bytes] = {}
SESSION_HEADERS = (b"x-pointsman-session", b"x-session-id")
# A fact -> the header that tells it; the tag of its name does too.
HEADER_OF = {
    "task": b"x-pointsman-task",
    "priority": b"x-pointsman-priority",
    "quality": b"x-pointsman-quality",
    "max_latency_ms": b"x-pointsman-max-latency-ms",
}
FACT_HEADERS = frozenset({b"x-title", b"http-referer", b"referer", *HEADER_OF.values()})
_TIME = frozenset({"hour", "weekday"})
_DEFAULTS = Features()._asdict()


def read_ask(parsed: ParsedRequest, *, is_pinned: bool, conversation_deployment: str = "") -> Ask:
    """The caller's wishes, and the name of the deployment that served the conversation last."""
    wishes = parsed.wishes
    if wishes is NO_WISHES:
        return Ask(
            parsed.model, (), is_pinned, parsed.endpoint, conversation_deployment=conversation_deployment
        )
    return Ask(
        parsed.model,
        is_pinned=is_pinned,
        endpoint=parsed.endpoint,
        conversation_deployment=conversation_deployment,
        **wishes._asdict(),
    )


def read_features(
    parsed: ParsedRequest,
    headers: Mapping[bytes, bytes],
    grant: KeyGrant,
    snapshot: RoutingSnapshot,
    *,
    now_unix_s: float,
    needs_all: bool = False,
) -> Features:
    """The facts that conditions and the router may look at. Raises BadRequest naming a header.

    What only the words or the tenant's clock tell is read for policies that look at it, or always with `needs_all`.
    """
    metadata = parsed.tags
    # A dictionary in the order of the fields: half the time of a call with thirty names.
    values: dict[str, Any] = _DEFAULTS.copy()
    values["requested_model"] = parsed.model
    values["endpoint"] = parsed.endpoint
    values["tenant"] = grant.tenant.name
    values["project"] = grant.project_name
    values["key"] = grant.key_name
    values["tags"] = metadata
    values["is_stream"] = parsed.is_stream
    if metadata or not FACT_HEADERS.isdisjoint(headers):
        _add_told_facts(values, headers, metadata)
    values.update(parsed.facts)
    needs_time = needs_text = needs_all
    for name in (parsed.model, *parsed.wishes.models):
        policy = snapshot.policies.get(name) or (
            find_named_policy(name, snapshot, grant) if ":" in name else None
        )
        if policy is not None:
            needs_text = needs_text or policy.needs_text
            needs_time = needs_time or not _TIME.isdisjoint(policy.feature_names)
    if needs_time:
        values["hour"], values["weekday"] = _hour_and_weekday(grant.tenant.time_zone, now_unix_s // 60)
    if needs_text:
        values.update(_text_facts(parsed, headers, grant, snapshot.router, values))
    return Features._make(values.values())


def _add_told_facts(values: dict[str, Any], headers: Mapping[bytes, bytes], tags: Mapping[str, str]) -> None:
    """What the caller says in so many words, in headers or in tags. Most callers say nothing."""
    get = headers.get
    # Of a page's address only what names the app: queries carry search words and tokens.
    values["app"] = _text(get(b"x-title")) or _page(get(b"http-referer")) or _page(get(b"referer"))
    for name, header in HEADER_OF.items():
        told = _text(get(header)) or tags.get(name)
        if told:
            values[name] = _whole(told) if name == "max_latency_ms" else told


def _text_facts(
    parsed: ParsedRequest,
    headers: Mapping[bytes, bytes],
    grant: KeyGrant,
    tables: RouterTables,
    values: Mapping[str, Any],
) -> dict[str, Any]:
    session = ""
    for name in SESSION_HEADERS:
        if name in headers:
            session = _text(headers[name])
            break
    text = read_text(
        parsed, app=values["app"], key_id=grant.key_id, tenant_id=grant.tenant.id, session=session
    )
    facts = read_text_facts(text, tables=tables)
    task = values["task"]
    # The caller's own label is worth more than what was read, where it is one that the router knows.
    is_known = task in TYPES or task in tables.extra_types
    return {
        "workload": facts.workload,
        "task_type": task if is_known else facts.task_type,
        "language": facts.language,
        "conversation": facts.conversation,
        "difficulty": facts.difficulty,
        "is_tool_result": text.is_tool_result,
    }


@lru_cache(maxsize=1024)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


@lru_cache(maxsize=1024)
def _hour_and_weekday(time_zone: str, unix_minute: float) -> tuple[int, int]:
    """The hour (0-23) and day of the week (1 Monday) there: the same for a minute, as clocks differ by whole ones."""
    local = datetime.fromtimestamp(unix_minute * 60, _zone(time_zone))
    return local.hour, local.isoweekday()


def _text(value: bytes | None) -> str:
    return value.decode("latin-1")[:200] if value else ""


def _page(value: bytes | None) -> str:
    return _text(value.partition(b"?")[0].partition(b"#")[0]) if value else ""


def _whole(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise BadRequest(
            "x-pointsman-max-latency-ms must be a whole number of milliseconds.",
            code="invalid_value",
            param="x-pointsman-max-latency-ms",
        )
    return int(text)
