"""Which values may an environment variable of ours have? A wrong one ends the start with one line that names it.

Reads: the environment. Addresses are never repeated: they hold passwords.
"""

from __future__ import annotations

import os
import re
from typing import Any

import environ


def whole_number(name: str, default: int, *, least: int = 0, most: int) -> int:
    """The number that a variable holds, `default` where it is empty. Raises SystemExit for anything else."""
    text = os.environ.get(name, "").strip()
    if not text:
        return default
    if not (text.isascii() and text.isdecimal()) or not least <= int(text[:9]) <= most:
        raise SystemExit(f"{name} is {text[:40]!r}: set it to a whole number from {least} to {most}.")
    return int(text)


# As browsers write it: no path, no user, no slash at the end; extensions and desktop apps have schemes of their own.
_ORIGIN = re.compile(
    r"([a-z][a-z0-9+.-]*)://[a-z0-9._-]+(?::\d{1,5})?|([a-z]+)://\[[0-9a-f:.]+\](?::\d{1,5})?"
)
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


def origins(name: str) -> tuple[str, ...]:
    """The origins of a list with commas, each as browsers send it; `*` stands for all. Raises SystemExit."""
    found = []
    for text in os.environ.get(name, "").split(","):
        origin = text.strip().lower()
        if origin and origin != "*" and not _ORIGIN.fullmatch(origin):
            raise SystemExit(
                f"{name} holds {text.strip()[:80]!r}: set it to origins such as https://app.example.com, without a "
                "path or a slash at the end, separated by commas, or to * for all."
            )
        if origin:
            found.append(origin.removesuffix(_DEFAULT_PORTS.get(origin.partition("://")[0], "")))
    return tuple(found)


def database_settings(name: str) -> dict[str, Any]:
    """Django's settings of the PostgreSQL that an address names. Raises SystemExit for another address."""
    if os.environ[name].startswith(("postgres://", "postgresql://")):
        try:
            settings = dict(environ.Env().db(name))
        except (ValueError, environ.ImproperlyConfigured):
            settings = {}
        if settings.get("NAME"):
            return settings
    raise SystemExit(
        f"{name} cannot be read: set it to postgres://USER:PASSWORD@HOST:PORT/NAME, with % codes for special "
        "characters in the password, or unset it for the embedded PostgreSQL."
    )


def mail_settings(name: str) -> dict[str, Any]:
    """Django's settings of a mail server; an empty variable's mails stand in the log. Raises SystemExit."""
    try:
        return dict(environ.Env().email_url_config(os.environ.get(name) or "consolemail://"))
    except (KeyError, ValueError, environ.ImproperlyConfigured):
        raise SystemExit(
            f"{name} cannot be read: set it to smtp+tls://USER:PASSWORD@HOST:587 (smtp+ssl://…:465, smtp://…:25), or "
            "unset it: mails then stand in the log."
        ) from None
