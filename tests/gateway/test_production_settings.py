"""Are the settings for production safe, and do they say so themselves?"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import SystemCheckError

SCRIPT = """
import json, django
django.setup()
from django.conf import settings
from django.core.management import call_command
from django.test import Client
call_command("check", deploy=True, fail_level="WARNING")
settings.MIDDLEWARE = [name for name in settings.MIDDLEWARE if "whitenoise" not in name]
secure = Client().get("/sign-in", headers={"X-Forwarded-Proto": "https"})
plain = Client().get("/sign-in")
print(json.dumps({
    "hsts": secure.headers.get("Strict-Transport-Security"),
    "csrf_secure": bool(secure.cookies["csrftoken"]["secure"]),
    "session_secure": settings.SESSION_COOKIE_SECURE,
    "session_age_s": settings.SESSION_COOKIE_AGE,
    "fallbacks": settings.SECRET_KEY_FALLBACKS,
    "plain": [plain.status_code, plain.headers.get("Location")],
    "metrics": Client().get("/metrics").status_code,
}))
"""


def started_with(data_dir: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("POINTSMAN_") and name != "DATABASE_URL"
    }
    environment = {
        **kept,
        **variables,
        "POINTSMAN_DATA_DIR": str(data_dir),
        "DJANGO_SETTINGS_MODULE": "gateway.settings",
    }
    return subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_with_https_nothing_is_left_to_warn_of(tmp_path: Path) -> None:
    old_key = "an-old-key-of-fifty-characters-and-more-0123456789-abcdef"
    result = started_with(
        tmp_path,
        POINTSMAN_HTTPS="1",
        POINTSMAN_BEHIND_PROXY="1",
        POINTSMAN_SECRET_KEY_FALLBACKS=old_key,
        POINTSMAN_SESSION_HOURS="8",
    )
    assert result.returncode == 0, result.stderr
    said: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    assert said == {
        "hsts": "max-age=2592000",
        "csrf_secure": True,
        "session_secure": True,
        "session_age_s": 8 * 3600,
        "fallbacks": [old_key],
        "plain": [301, "https://testserver/sign-in"],
        "metrics": said["metrics"],
    }
    assert said["metrics"] in (401, 403)  # its own token, not a way to another address


def test_without_it_the_check_says_what_is_missing() -> None:
    with pytest.raises(SystemCheckError) as refusal:
        call_command("check", deploy=True, fail_level="WARNING")
    for code in ("security.W004", "security.W008", "security.W012", "security.W016"):
        assert code in str(refusal.value)
