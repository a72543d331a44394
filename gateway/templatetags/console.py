"""How do templates write icons, amounts, times and states? Filters and tags for the console's templates.

Pure, except: Reads: icon files under templates/icons.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from decimal import Decimal
from functools import cache
from typing import Any, Literal

from django import template
from django.conf import settings
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django.utils.html import escape, format_html
from django.utils.safestring import SafeString, mark_safe

from billing.currencies import format_amount, round_amount
from billing.money import MINUS, format_usd, grouped
from billing.pricebook import ABOVE, PriceError, read_rate_key
from policies.permissions import Ability, may

register = template.Library()

_BACKTICKS = re.compile(r"`([^`]+)`")

# Verbs of the audit log whose past is not made with -ed.
PAST_OF = {
    "cancel": "cancelled",
    "drop": "dropped",
    "pay": "paid",
    "reset": "reset",
    "retry": "retried",
    "send": "sent",
    "stop": "stopped",
    "unpin": "unpinned",
}

# State -> (badge colour, word). One colour scheme for the whole console: colour is for state only.
STATES = {
    "ok": ("green", "ok"),
    "error": ("red", "error"),
    "refused": ("yellow", "refused"),
    "cancelled": ("secondary", "cancelled"),
    "interrupted": ("red", "interrupted"),
    "in_flight": ("azure", "running"),
    "waiting": ("secondary", "waiting"),
    "running": ("azure", "running"),
    "done": ("green", "done"),
    "failed": ("red", "failed"),
    "half_open": ("yellow", "probing"),
    "cooling": ("yellow", "cooling"),
    "ejected": ("red", "ejected"),
    "credential_rejected": ("red", "credential rejected"),
    "idle": ("secondary", "no traffic yet"),
    "disabled": ("secondary", "disabled"),
    "enabled": ("green", "enabled"),
    "live": ("green", "live"),
    "revoked": ("secondary", "revoked"),
    "expired": ("secondary", "expired"),
    "expiring": ("yellow", "ends soon"),
    "active": ("green", "active"),
    "near_limit": ("yellow", "near the limit"),
    "used_up": ("red", "used up"),
    "grew": ("yellow", "grew"),
    "unpriced": ("yellow", "unpriced"),
    "estimated": ("azure", "estimated"),
    "unknown": ("yellow", "usage unknown"),
    "missing": ("yellow", "missing"),
    "set": ("green", "set"),
    "reference": ("green", "reference"),
    "unreadable": ("red", "unreadable"),
    "not needed": ("secondary", "not needed"),
    "reviewed": ("azure", "reviewed"),
    "issued": ("azure", "issued"),
    "paid": ("green", "paid"),
    "closed": ("green", "closed"),
    "to_close": ("yellow", "to be closed"),
    "to_approve": ("azure", "to approve"),
}


@cache
def _read_icon(name: str) -> SafeString:
    return mark_safe((settings.BASE_DIR / "templates" / "icons" / f"{name}.svg").read_text())  # noqa: S308  (our files)


@register.simple_tag
def icon(name: str) -> SafeString:
    """Write an icon of templates/icons inline; it is decoration, text stands beside it."""
    return _read_icon(name)


@register.simple_tag
def state(name: str, text: str = "") -> SafeString:
    """Write a state as a badge."""
    colour, word = STATES.get(name, ("secondary", name.replace("_", " ")))
    return format_html('<span class="badge bg-{}-lt">{}</span>', colour, text or word)


@register.filter
def usd(nanousd: int | None) -> str:
    """Write nano-USD as people read it, with a real minus; None is a dash, because unknown is not zero."""
    return "–" if nanousd is None else format_usd(nanousd)


@register.filter
def amount(nano: int | None, currency: str) -> str:
    """Write billionths of a currency exactly; None is a dash."""
    return "–" if nano is None else format_amount(nano, currency)


@register.filter
def rounded_amount(nano: int | None, currency: str) -> str:
    """Write an estimate in billionths of a currency, to its smallest unit; None is a dash."""
    return "–" if nano is None else format_amount(round_amount(nano, currency), currency)


@register.filter
def when(at: dt.datetime | str | None) -> SafeString | str:
    """Write a time relative to now, or after a month the UTC day, with the exact UTC time on hover."""
    if isinstance(at, str):
        at = parse_datetime(at)
    if at is None:
        return "–"
    exact = at.astimezone(dt.UTC)
    return format_html(
        '<time datetime="{}" title="{} UTC" data-relative>{}</time>',
        exact.isoformat(),
        f"{exact:%Y-%m-%d %H:%M:%S}.{exact.microsecond // 1000:03d}",
        _relative(exact, timezone.now()),
    )


def _relative(at: dt.datetime, now: dt.datetime) -> str:
    seconds = abs((now - at).total_seconds())
    for limit, size, name in (
        (60, 1, "s"),
        (3600, 60, "min"),
        (86400, 3600, "h"),
        (30 * 86400, 86400, "d"),
    ):
        if seconds < limit:
            text = f"{int(seconds / size)} {name}"
            break
    else:
        return f"{at:%Y-%m-%d}"
    return "just now" if seconds < 5 else f"in {text}" if at > now else f"{text} ago"


@register.filter
def exact(at: dt.datetime | str | None) -> SafeString | str:
    """Write the exact UTC time."""
    if isinstance(at, str):
        at = parse_datetime(at)
    if at is None:
        return "–"
    at = at.astimezone(dt.UTC)
    return format_html('<time datetime="{}">{} UTC</time>', at.isoformat(), f"{at:%Y-%m-%d %H:%M:%S}")


@register.filter
def duration(ms: float | Literal[""] | None) -> str:
    """Write milliseconds with as many digits as mean something: 0.8 ms, 420 ms, 1.24 s, 2 min 5 s."""
    if ms is None or ms == "":  # templates make an empty text of what is not there
        return "–"
    if ms < 10:
        return f"{ms:.1f} ms"
    if ms < 1000:
        return f"{ms:.0f} ms"
    if ms < 60_000:
        return f"{ms / 1000:.2f} s"
    return f"{int(ms // 60_000)} min {int(ms % 60_000 // 1000)} s"


@register.filter
def count(number: float | Literal[""] | None) -> str:
    """Write a count with thousands separators; None is a dash."""
    return "–" if number is None or number == "" else grouped(number)


@register.filter
def short_count(number: int) -> SafeString | str:
    """Write a large count short, exact on hover: 12,816,979 is 12.8 M. Below a million it is exact."""
    for size, unit in ((10**12, "T"), (10**9, "G"), (10**6, "M")):
        if number >= size:
            return format_html('<span title="{}">{} {}</span>', f"{number:,}", f"{number / size:.1f}", unit)
    return grouped(number)


@register.filter
def percent(ratio: float | None) -> str:
    """Write a ratio as per cent: 0.0412 is 4.1 %."""
    return (
        "–"
        if ratio is None
        else f"{ratio * 100:.1f} %"
        if 0 < ratio < 0.995
        else f"{ratio * 100:.0f} %".replace("-", MINUS)
    )


@register.filter
def signed_percent(ratio: float | None) -> str:
    """Write a ratio that may be negative as per cent, in whole ones: 0.25 is 25 %, -0.5 is −50 %."""
    if ratio is None:
        return "–"
    whole = round(abs(ratio) * 100)
    return f"{MINUS if ratio < 0 and whole else ''}{whole:,} %"


@register.filter
def pretty_json(value: Any) -> str:
    """Write JSON for people."""
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


@register.filter
def code_words(text: str) -> SafeString:
    """Text in which names stand in backticks, with those as code."""
    return mark_safe(_BACKTICKS.sub(r"<code>\1</code>", escape(text)))  # noqa: S308  (escaped before)


@register.filter
def words(name: str) -> str:
    """Write a code as words: cache_read_tokens is "cache read tokens"."""
    return str(name).replace("_", " ")


@register.filter
def done(action: str) -> str:
    """Write what the audit log calls an action as what somebody did: roll_back is "rolled back", pay is "paid"."""
    verb, _, rest = words(action).partition(" ")
    past = PAST_OF.get(verb) or verb + ("d" if verb.endswith("e") else "ed")
    return f"{past} {rest}".strip()


@register.filter
def can(user: Any, ability: str) -> bool:
    """Ask for an ability by its name: {% if user|can:"CONFIGURE" %}."""
    return may(user, Ability[ability])


@register.filter
def slice_end(text: object, length: int) -> str:
    """The last characters: of request ids the random ones, which tell them apart."""
    return str(text)[-length:]


@register.filter
def rate(usd: Decimal | str | None) -> str:
    """Write a rate exactly, without exponent, to the cent at least: 0.80, 0.024; None or no text is not stated."""
    if usd is None or usd == "":
        return "–"
    whole, _, part = f"{Decimal(usd):f}".partition(".")
    return f"{whole}.{part.rstrip('0'):0<2}"


@register.filter
def rate_name(name: str) -> str:
    """Write a rate's name: input_usd_per_mtok@flex>200000 is "input / Mtok, flex tier, above 200,000 tokens in"."""
    try:
        key = read_rate_key(name)
    except PriceError:
        return words(name)
    plain = words(key.name.removesuffix("_usd_per_mtok")) + " / Mtok"
    piece = {
        "usd_per_request": "each request",
        "usd_per_search": "each search",
        "usd_per_image": "each image",
        "usd_per_audio_hour": "an hour of audio",
    }
    parts = [piece.get(key.name, plain)]
    if key.service_tier:
        parts.append(f"{key.service_tier} tier")
    if key.window:
        parts.append(f"{key.window} UTC")
    if key.limit:
        parts.append(
            f"above {key.start_tokens:,} tokens in" if key.limit == ABOVE else f"beyond {key.start_tokens:,}"
        )
    return ", ".join(parts)
