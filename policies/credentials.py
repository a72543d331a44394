"""How do we keep a secret that we present to a provider, and how do workers read it?

Pure, except: Reads: settings.POINTSMAN_CREDENTIAL_KEYS; `resolve_credential` also the environment and files
that a reference names. Stored form: KEYID:FERNETTOKEN, where KEYID names the key without revealing it.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings

from policies.errors import CredentialError
from policies.models import Provider

MAX_CREDENTIAL_CHARACTERS = 10_000
MAX_FILE_BYTES = 64 * 1024
# Our own secrets are nobody's credential: whoever may name a reference could have them sent to a host of their own.
_OWN_VARIABLES = frozenset(
    {"POINTSMAN_SECRET_KEY", "POINTSMAN_KEY_PEPPER", "POINTSMAN_CREDENTIAL_KEYS", "POINTSMAN_METRICS_TOKEN"}
    | {"DATABASE_URL", "CELERY_BROKER_URL", "EMAIL_URL", "PGPASSWORD"}
)
_SYSTEM_FOLDERS = ("/proc", "/sys", "/dev")
_ENVIRONMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


def encrypt_credential(text: str) -> str:
    """Encrypt a credential with the newest key. Raises CredentialError for what no header could carry."""
    check_credential(text)
    newest = _list_keys()[0]
    return f"{key_id(newest)}:{Fernet(newest).encrypt(text.encode()).decode()}"


def decrypt_credential(stored: str) -> str:
    """Return the clear text of a stored credential. Raises CredentialError when no key fits."""
    wanted_id, _, token = stored.partition(":")
    keys = _list_keys()
    # The named key first: with many retired keys the others are tried only for rows of unknown origin.
    keys.sort(key=lambda key: key_id(key) != wanted_id)
    try:
        return MultiFernet([Fernet(key) for key in keys]).decrypt(token.encode()).decode()
    except InvalidToken:
        raise CredentialError(
            f"the stored credential needs key {wanted_id}, which is not in POINTSMAN_CREDENTIAL_KEYS"
        ) from None


def is_encrypted_with_newest_key(stored: str) -> bool:
    """Say whether a stored credential needs no re-encryption after a key change."""
    return stored.partition(":")[0] == key_id(_list_keys()[0])


def key_id(key: str) -> str:
    """Return 8 hex digits that name an encryption key without helping to find it."""
    return hashlib.sha256(b"pointsman credential key " + key.encode()).hexdigest()[:8]


def resolve_credential(provider: Provider) -> str | None:
    """Return the clear credential of a provider, None when it has none.

    Raises CredentialError when a reference leads nowhere or the ciphertext cannot be read.
    """
    if provider.credential_reference:
        return read_reference(provider.credential_reference)
    if provider.credential_ciphertext:
        return decrypt_credential(provider.credential_ciphertext)
    return None


def read_reference(reference: str) -> str:
    """Read the secret behind `env:NAME` or `file:PATH`, without the surrounding white space.

    Raises CredentialError naming the reference, never what it held.
    """
    check_reference(reference)
    kind, _, place = reference.partition(":")
    if kind == "env":
        text = os.environ.get(place, "").strip()
        if not text:
            raise CredentialError(f"{reference}: the environment variable {place} is not set")
    else:
        try:
            text = _read_file(Path(place)).decode().strip()
        except (OSError, UnicodeDecodeError) as failure:
            reason = failure.strerror if isinstance(failure, OSError) else "not a text file"
            raise CredentialError(f"{reference}: {reason}") from None
        if not text:
            raise CredentialError(f"{reference}: the file is empty")
    check_credential(text)
    return text


def _read_file(path: Path) -> bytes:
    """Read a small regular file that is none of ours or the system's, wherever a link leads. Raises OSError."""
    real = path.resolve()
    if any(real.is_relative_to(folder) for folder in (settings.POINTSMAN_DATA_DIR, *_SYSTEM_FOLDERS)):
        raise PermissionError(0, "a file of this gateway itself or of the system is no provider's credential")
    # Without waiting: a named pipe would hold the worker up for ever.
    descriptor = os.open(real, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        state = os.fstat(descriptor)
        if not stat.S_ISREG(state.st_mode) or state.st_size > MAX_FILE_BYTES:
            raise OSError(0, "not a small regular file")
        return file.read(MAX_FILE_BYTES)


def check_reference(reference: str) -> None:
    """Raise CredentialError unless the text has the form `env:NAME` or `file:/ABSOLUTE/PATH`."""
    kind, _, place = reference.partition(":")
    if kind == "env" and _ENVIRONMENT_NAME.match(place):
        if place in _OWN_VARIABLES:
            raise CredentialError(f"{reference}: a secret of this gateway itself is no provider's credential")
        return
    if kind == "file" and place.startswith("/") and "\0" not in place:
        return
    # What was given may be a secret pasted into the wrong field, so it is not repeated here.
    raise CredentialError("a credential reference has the form env:NAME or file:/ABSOLUTE/PATH")


def check_credential(text: str) -> None:
    """Raise CredentialError for a text that an HTTP header cannot carry."""
    if not text:
        raise CredentialError("the credential is empty")
    if len(text) > MAX_CREDENTIAL_CHARACTERS:
        raise CredentialError(f"the credential has more than {MAX_CREDENTIAL_CHARACTERS} characters")
    if not text.isascii() or not text.isprintable():
        raise CredentialError("the credential holds characters that an HTTP header cannot carry")


def _list_keys() -> list[str]:
    keys = [key.strip() for key in settings.POINTSMAN_CREDENTIAL_KEYS if key.strip()]
    if not keys:
        raise CredentialError("POINTSMAN_CREDENTIAL_KEYS is empty")
    try:
        for key in keys:
            Fernet(key)
    except ValueError:
        raise CredentialError("POINTSMAN_CREDENTIAL_KEYS holds something that is not a Fernet key") from None
    return keys


def find_credential_problem(provider: Provider) -> str:
    """Why this process cannot use a provider's credential; empty when it can, or when there is none."""
    try:
        resolve_credential(provider)
    except CredentialError as problem:
        return str(problem)
    return ""


def credential_state(provider: Provider) -> tuple[str, str]:
    """Say what is known about a provider's credential without reading it: (state, detail).

    States: "set", "reference" (detail: which), "not needed", "missing".
    """
    if provider.credential_reference:
        return "reference", provider.credential_reference
    if provider.credential_ciphertext:
        return "set", ""
    return ("not needed" if provider.auth_style == Provider.AuthStyle.NONE else "missing"), ""
