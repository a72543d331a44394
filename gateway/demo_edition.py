"""Is the demo that was set up here the one that this code brings? A newer one's traffic would come on top of it.

Reads: the files that say what the demo's traffic is, the change feed. Writes: change_event.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Final

from policies import changes
from policies.models import ChangeEvent

OBJECT_TYPE: Final = "demo"
# Whatever is changed in them may be other requests, at other times.
_SAID_BY: Final = ("demo_books.py", "demo_traffic.py", "demo_week.py", "demo_workloads.py")


@cache
def edition() -> str:
    """The name of this code's demo: a hash of what says it."""
    digest = hashlib.sha256()
    for name in _SAID_BY:
        digest.update(Path(__file__).with_name(name).read_bytes())
    return digest.hexdigest()[:12]


def note_edition(*, tenant_id: int, actor: str) -> None:
    """Keep which demo is being set up. Call in the transaction that does it."""
    changes.record_change(
        actor=actor, action="create", object_type=OBJECT_TYPE, object_id=tenant_id, object_name=edition()
    )


def is_ours(*, actor: str) -> bool:
    """Whether the demo that is here is this code's."""
    noted = ChangeEvent.objects.filter(actor=actor, object_type=OBJECT_TYPE, action="create")
    return noted.filter(object_name=edition()).exists()
