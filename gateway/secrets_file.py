"""Where do this installation's own secrets come from? Environment first, else a file made once.

Reads: environment, DATA_DIR/secrets.json. Writes: DATA_DIR/secrets.json (mode 0600) when it is missing.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
from pathlib import Path


def load_or_create_secrets(data_dir: Path) -> dict[str, str]:
    """Return {"secret_key", "pepper", "credential_keys", "metrics_token"}.

    `credential_keys` is a comma-separated list of Fernet keys, newest first. Several processes may start at
    once: the file is created whole under another name and linked into place, so the first one wins. Ends the
    process with a clear line when the folder is not ours to use.
    """
    try:
        return _load_or_create(data_dir)
    except OSError as refusal:
        # Settings are read before there is anybody to report an error to: a sentence, not a traceback.
        raise SystemExit(
            f"Pointsman cannot use {refusal.filename}: {refusal.strerror}. "
            "Set POINTSMAN_DATA_DIR to a folder of this user, or start as the folder's owner."
        ) from None


def _load_or_create(data_dir: Path) -> dict[str, str]:
    path = data_dir / "secrets.json"
    if not path.exists():
        if not data_dir.exists():
            data_dir.mkdir(parents=True, exist_ok=True)
            # As root, PostgreSQL's own user must pass through to its cluster; it cannot list the folder either.
            data_dir.chmod(0o711 if os.geteuid() == 0 else 0o700)
        made = {
            "secret_key": secrets.token_urlsafe(50),
            "pepper": secrets.token_urlsafe(32),
            "credential_keys": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
            "metrics_token": secrets.token_urlsafe(24),
        }
        temporary = data_dir / f".secrets.{os.getpid()}.{secrets.token_hex(4)}"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(made, file)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)
        except FileExistsError:
            pass
        finally:
            temporary.unlink()
    stored: dict[str, str] = json.loads(path.read_text())
    return stored
