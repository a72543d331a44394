"""Is this installation configured so that it can run? Registers Django system checks.

Reads: settings, the data directory's permissions.
"""

import os
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, register


@register()
def data_directory_is_writable(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Refuse to start when the journal could not be written."""
    data_dir = Path(settings.POINTSMAN_DATA_DIR)
    probe = data_dir if data_dir.exists() else data_dir.parent
    if not os.access(probe, os.W_OK):
        return [
            Error(
                f"The data directory {data_dir} is not writable.",
                hint="Set POINTSMAN_DATA_DIR to a folder this user may write.",
                id="pointsman.E001",
            )
        ]
    return []
