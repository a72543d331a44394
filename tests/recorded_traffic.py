"""Recorded provider traffic, read in place. Tests that need it are skipped with a reason where it is missing."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

SHARED = Path(__file__).resolve().parent.parent.parent / "shared"
CASSETTES = SHARED / "data" / "cassettes"
OPENAI_ENDPOINTS = {"chat.completions": "chat", "completions": "completions", "embeddings": "embeddings"}

needs_recorded_traffic = pytest.mark.skipif(
    not CASSETTES.is_dir(),
    reason="recorded provider traffic (../shared/data/cassettes) is not on this machine",
)


def load_openai_records() -> list[dict[str, Any]]:
    """Every chat, completions and embeddings record of the OpenAI format."""
    records = []
    for path in sorted(CASSETTES.glob("*.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            records += [json.loads(line) for line in lines]
    return [record for record in records if record["endpoint"] in OPENAI_ENDPOINTS]
