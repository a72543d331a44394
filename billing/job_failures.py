"""Why did a background job fail, in words, and what is there to do?

Pure, apart from letting go of a connection that broke. The words are for whoever started the job; `detail` is the
technical line, for operators, without what looks like a credential.
"""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass
from typing import Final, Literal

from django.db import InterfaceError, OperationalError, connection
from xlsxwriter.exceptions import FileSizeError

from policies.errors import ConfigurationError

FailureKind = Literal[
    "disk_full", "no_folder", "too_large", "database_away", "database_full", "worker_died", "mail_refused",
    "refused", "unexpected",
]  # fmt: skip
WORDS: Final[dict[FailureKind, str]] = {
    "disk_full": (
        "The disk of the background worker is full. Make room in the data directory, or ask for less; then try again."
    ),
    "no_folder": (
        "The background worker may not write into its data directory. Its owner or its rights have to be mended; "
        "then try again."
    ),
    "too_large": (
        "It was too much for one run: it needed more memory, time or file size than there is. Ask for fewer days, or "
        "filter further; large tables come best as CSV or JSON Lines."
    ),
    "database_away": (
        "The database could not be reached, or the connection broke. Nothing is wrong with what was asked: try again "
        "when the database answers."
    ),
    "database_full": "The disk of the database is full. Make room there; then try again.",
    "worker_died": (
        "The background worker ended in the middle of it, three times: stopped, killed for want of memory, or cut off "
        "from its database. Ask for fewer days, or see why it ends; then try again."
    ),
    "mail_refused": (
        "The mail server could not be reached, or refused the message. See that EMAIL_URL is right and that the "
        "addresses exist."
    ),
    "unexpected": (
        "It failed for a reason that has no words here. Try again; if it fails again, an operator finds more in the "
        "log of the background worker."
    ),
}
MAX_DETAIL: Final = 500
_ERRNO_KINDS: Final[dict[int, FailureKind]] = {
    errno.ENOSPC: "disk_full",
    errno.EDQUOT: "disk_full",
    errno.EACCES: "no_folder",
    errno.EPERM: "no_folder",
    errno.EROFS: "no_folder",
    errno.EFBIG: "too_large",
    errno.ENOMEM: "too_large",
}
# PostgreSQL's error codes: https://www.postgresql.org/docs/current/errcodes-appendix.html
_SQLSTATE_KINDS: Final[dict[str, FailureKind]] = {
    "53100": "database_full",
    "53200": "too_large",
    "54000": "too_large",
    "57014": "too_large",
}
# Connections that are refused or ended: no state at all, class 08, shutdown, start-up, too many of them.
_AWAY_STATES: Final = ("08", "57P", "53300")
_SECRETS: Final = re.compile(
    r"(?<=://)[^\s/@]+@"  # USER:PASSWORD@ of an address
    r"|(?i:\b(?:password|passwd|pwd|secret|token|api[_-]?key)\b\s*[=:]\s*)\S+"
    r"|(?i:\bbearer\s+)\S+"
    r"|\b(?:sk|pk|rk|pm|key)-[A-Za-z0-9_-]{6,}"
)


@dataclass(frozen=True, slots=True)
class Failure:
    """What to tell of a failure. `detail` is one line, and empty where the words say all there is."""

    kind: FailureKind
    text: str
    detail: str = ""

    @property
    def is_passing(self) -> bool:
        """Whether the same job may succeed by itself a little later."""
        return self.kind == "database_away"


def explain_failure(error: BaseException) -> Failure:
    """Say what an exception means for whoever waits for the job."""
    if isinstance(error, ConfigurationError):
        said = str(error).strip()
        return Failure(
            "refused", f"{said[:1].upper()}{said[1:]}" if said.endswith(".") else f"It was refused: {said}."
        )
    return _tell(_kind_of(error), error)


def explain_refused_mail(error: BaseException) -> Failure:
    """The same of a message that the mail server did not take, or that did not get there."""
    return _tell("mail_refused", error)


def explain_death(times: int) -> Failure:
    """What to tell of a job whose process said nothing any more, again and again."""
    return Failure(
        "worker_died", WORDS["worker_died"], f"The claim ran out {times} times without a word of its process."
    )


def let_go_of_a_broken_connection() -> None:
    """Make the next query connect anew, so that the failure itself can be written down."""
    if not connection.in_atomic_block:
        connection.close_if_unusable_or_obsolete()


def hide_secrets(line: str) -> str:
    """Replace what looks like a credential: exceptions quote addresses and settings."""
    return _SECRETS.sub("[hidden]", line)


def _tell(kind: FailureKind, error: BaseException) -> Failure:
    first_line = str(error).partition("\n")[0]
    return Failure(kind, WORDS[kind], hide_secrets(f"{type(error).__name__}: {first_line}")[:MAX_DETAIL])


def _kind_of(error: BaseException) -> FailureKind:
    if isinstance(error, MemoryError | FileSizeError):
        return "too_large"
    if isinstance(error, OperationalError | InterfaceError):
        state = str(getattr(error.__cause__, "sqlstate", None) or "")
        if state in _SQLSTATE_KINDS:
            return _SQLSTATE_KINDS[state]
        return "database_away" if not state or state.startswith(_AWAY_STATES) else "unexpected"
    if isinstance(error, OSError) and error.errno is not None:
        return _ERRNO_KINDS.get(error.errno, "unexpected")
    return "unexpected"
