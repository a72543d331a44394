"""Does this process run the hot path as machine code? Finds what `gateway.compiling` has built, if it fits.

Reads: the build beside the packages of the virtual environment. Only a gateway worker asks for it, before anything of
the project is imported: everything else, the tests included, runs the same modules as Python. A build counts only for
the very sources, interpreter and processor it was made from, so that no edit is ever without effect.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.machinery
import importlib.util
import json
import os
import platform
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BUILD_DIR = Path(sys.prefix) / "pointsman-compiled"
MANIFEST = "manifest.json"
# Set to 0, a worker runs Python whatever has been built.
SWITCH = "POINTSMAN_COMPILED"


class CompiledModules:
    """Finds modules of the build, by name, before Python finds their sources."""

    def __init__(self, paths: Mapping[str, Path]) -> None:
        self.paths = paths

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The build's module of that name, None where there is none."""
        found = self.paths.get(name)
        if found is None:
            return None
        loader = importlib.machinery.ExtensionFileLoader(name, str(found))
        return importlib.util.spec_from_file_location(name, found, loader=loader)


def use_compiled() -> bool:
    """Load the build's modules from now on. False where no build fits. Call it before the project is imported."""
    manifest = read_manifest() if runs_compiled() else None
    if manifest is None:
        return False
    early = sorted(name for name in manifest["modules"] if name in sys.modules)
    if early:
        raise RuntimeError(f"imported before the compiled modules were asked for: {', '.join(early)}")
    sys.path.append(str(BUILD_DIR))
    try:
        for library in manifest["libraries"]:
            importlib.import_module(library)  # the code itself; the modules only point into it
    except ImportError:
        sys.path.remove(str(BUILD_DIR))
        return False
    paths = {name: BUILD_DIR / file for name, file in manifest["modules"].items()}
    sys.meta_path.insert(0, CompiledModules(paths))
    return True


def is_in_use() -> bool:
    """Whether this process runs the build."""
    return any(isinstance(finder, CompiledModules) for finder in sys.meta_path)


def runs_compiled() -> bool:
    """Whether a worker that starts now would run the build."""
    return os.environ.get(SWITCH) != "0" and has_build()


def has_build() -> bool:
    """Whether a build is there that fits these sources and this interpreter."""
    manifest = read_manifest()
    return manifest is not None and fits(manifest)


def read_manifest() -> dict[str, Any] | None:
    """What the build says of itself, None where there is none."""
    try:
        manifest = json.loads((BUILD_DIR / MANIFEST).read_bytes())
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) else None


def fits(manifest: Mapping[str, Any]) -> bool:
    """Whether a build was made from these sources, for this interpreter."""
    if manifest.get("interpreter") != interpreter():
        return False
    try:
        return all(hash_of(ROOT / path) == digest for path, digest in manifest["sources"].items())
    except OSError:
        return False


def interpreter() -> str:
    """What machine code must have been made for to run here."""
    return f"{sysconfig.get_config_var('EXT_SUFFIX')} {sys.version} {platform.machine()}"


def hash_of(path: Path) -> str:
    """A file's SHA-256. Raises OSError."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
