"""Which values may an environment variable of ours have? A wrong one ends the start with one line that names it.

Reads: the environment. Addresses are never repeated: they hold passwords.
"""

from __future__ import annotations

import os
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
