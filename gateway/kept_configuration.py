"""What was in force when the database was last there? The configuration, kept for a worker that starts without it.

Writes and reads: DATA_DIR/run/configuration-REVISION.kept (mode 0600), encrypted with POINTSMAN_CREDENTIAL_KEYS like
the credentials in it. Only the release that made a copy reads it, and only classes of ours come out of it.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import pickle  # What is read was written by us: Fernet's signature is checked first.
import secrets
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import fields, replace
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from policies.autorouter.tables import RouterTables
from policies.conditions import compile_condition
from policies.snapshot import RuleSnapshot

if TYPE_CHECKING:
    from gateway.snapshots import Loaded

logger = logging.getLogger(__name__)

# A key that was revoked while the whole machine was off would come back with an old copy: no copy is believed longer.
MAX_AGE_S: Final = 24 * 3600.0
# Changes come in bursts, and a hundred thousand keys take a second to write.
WRITE_EVERY_S: Final = 30.0
TOUCH_EVERY_S: Final = 60.0
# Every class that may come out of a copy stands in one of these.
_MODULES: Final = (
    "gateway.kept_configuration",
    "gateway.snapshots",
    "billing.pricebook",
    "policies.snapshot",
    "policies.autorouter.tables",
    "policies.autorouter.difficulty",
)
_PATTERN: Final = "configuration-*.kept"


class KeptConfiguration:
    """The copies of one data directory. One worker of a machine writes them; each forgets those that are outdated."""

    def __init__(self, data_dir: Path, *, credential_keys: Sequence[str], is_writer: bool) -> None:
        self._folder = data_dir / "run"
        self._credential_keys = [key.strip() for key in credential_keys if key.strip()]
        self._is_writer = is_writer
        self._written: int | None = None
        self._seen: int | None = None
        self._due_s = 0.0

    def keep(self, loaded: Loaded, *, now_s: float) -> None:
        """Call whenever the database has confirmed what is in force: forgets, writes or confirms a copy when due.

        What a change has outdated is forgotten at once, so that a revoked key never comes back with a copy.
        """
        revision = loaded.routing.revision
        try:
            if revision != self._seen:
                self._forget_all_but(revision)
                self._seen = revision
            if not self._is_writer or now_s < self._due_s:
                return
            if revision != self._written:
                self._due_s = now_s + WRITE_EVERY_S
                self._write(loaded)
                self._written = revision
            else:
                self._due_s = now_s + TOUCH_EVERY_S
                os.utime(self._path(revision))
        except FileNotFoundError:
            self._written = None  # somebody tidied up: written anew in a while
        except OSError as error:
            logger.warning("the configuration cannot be kept for a start without the database: %s", error)
        except Exception:
            # An edge: a worker that cannot keep a copy must go on following the feed.
            logger.exception("the configuration cannot be kept for a start without the database")
            self._written = revision

    def read(self, *, now_s: float) -> Loaded | None:
        """The newest copy, None when there is none that can be used."""
        for path in sorted(self._folder.glob(_PATTERN), key=_revision_of, reverse=True):
            try:
                age_s = now_s - path.stat().st_mtime
                if age_s > MAX_AGE_S:
                    logger.warning("%s is not used: it is older than a day", path.name)
                    return None
                loaded = self._decode(path.read_bytes())
            except (OSError, InvalidToken) as error:
                logger.warning("%s cannot be read: %s", path.name, str(error) or "no key of ours fits")
                return None
            except Exception:
                # An edge: whatever is wrong with a copy, the worker waits for the database as it would without one.
                logger.exception("%s cannot be used", path.name)
                return None
            if loaded is not None:
                at = datetime.fromtimestamp(now_s - age_s, UTC)
                logger.warning(
                    "the database is away: the configuration of %s (revision %s) is in force until it is back",
                    f"{at:%Y-%m-%d %H:%M:%S} UTC",
                    loaded.routing.revision,
                )
            return loaded
        return None

    def _cipher(self) -> MultiFernet:
        """Raises ValueError for keys that are none: who starts with those hears of it from the credentials."""
        return MultiFernet([Fernet(key) for key in self._credential_keys])

    def _path(self, revision: int) -> Path:
        return self._folder / f"configuration-{revision}.kept"

    def _forget_all_but(self, revision: int) -> None:
        for path in self._folder.glob(_PATTERN):
            if _revision_of(path) != revision:
                path.unlink(missing_ok=True)

    def _write(self, loaded: Loaded) -> None:
        buffer = io.BytesIO()
        # How to find changed keys again is of no use to a start: everything is read anew when the database is back.
        _Pickler(buffer, protocol=5).dump(replace(loaded, hash_by_key_id={}))
        token = self._cipher().encrypt(zlib.compress(release_fingerprint() + buffer.getvalue(), 1))
        self._folder.mkdir(parents=True, exist_ok=True)
        temporary = self._folder / f".configuration.{os.getpid()}.{secrets.token_hex(4)}"
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(token)
            temporary.replace(self._path(loaded.routing.revision))
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)

    def _decode(self, token: bytes) -> Loaded | None:
        content = zlib.decompress(self._cipher().decrypt(token))
        fingerprint = release_fingerprint()
        if not content.startswith(fingerprint):
            logger.warning("the kept configuration is of another release: the database is waited for")
            return None
        loaded: Loaded = _Unpickler(io.BytesIO(content[len(fingerprint) :])).load()
        return loaded


def release_fingerprint() -> bytes:
    """32 bytes that change with the code of any class in a copy."""
    digest = hashlib.sha256()
    for name in _MODULES:
        digest.update(Path(str(import_module(name).__file__)).read_bytes())
    return digest.digest()


def _revision_of(path: Path) -> int:
    number = path.stem.partition("-")[2]
    return int(number) if number.isdecimal() else -1


class _Pickler(pickle.Pickler):
    """Leaves out what is no data: compiled conditions (their text is there) and what the router remembers."""

    def reducer_override(self, obj: Any) -> Any:
        if type(obj) is RuleSnapshot and obj.condition is not None:
            members = {field.name: getattr(obj, field.name) for field in fields(obj)}
            return restore_rule, (members | {"condition": None},)
        if type(obj) is RouterTables and obj.memo:
            return replace(obj, memo={}).__reduce_ex__(5)
        return NotImplemented


class _Unpickler(pickle.Unpickler):
    """Makes classes of our modules and decimal numbers, nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in (("decimal", "Decimal"), ("copyreg", "__newobj__")):
            return super().find_class(module, name)
        found = super().find_class(module, name) if module in _MODULES and "." not in name else None
        if found is restore_rule or (isinstance(found, type) and found.__module__ == module):
            return found
        raise pickle.UnpicklingError(f"{module}.{name} has no place in a configuration")


def restore_rule(members: dict[str, Any]) -> RuleSnapshot:
    """A rule with its condition compiled anew. Raises ConditionError."""
    return RuleSnapshot(**members | {"condition": compile_condition(members["when"]).program})
