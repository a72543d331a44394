"""Does the README name what exists?"""

from __future__ import annotations

import re
from pathlib import Path

from billing.pricebook import RATE_NAMES
from gateway.configuration_file import format as file_format
from gateway.configuration_file.format import read_configuration

PROJECT = Path(__file__).resolve().parents[1]
README = (PROJECT / "README.md").read_text()


def section(title: str) -> str:
    return README.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]


def test_every_path_of_the_where_is_table_exists() -> None:
    rows = re.findall(r"^\|[^|]+\|([^|]+)\|$", section("Where is…?"), re.MULTILINE)
    paths = [path for row in rows for path in re.findall(r"`([^`]+)`", row)]
    assert len(paths) > 100
    assert [path for path in paths if not (PROJECT / path).exists()] == []


def test_every_command_of_the_table_exists_and_the_other_way_round() -> None:
    table = section("Settings").split("| command | what it does |", 1)[1]
    cells = re.findall(r"^\| (`.+`) \|", table, re.MULTILINE)
    listed = {call.split()[0] for cell in cells for call in re.findall(r"`([^`]+)`", cell)}
    files = PROJECT.glob("*/management/commands/[a-z]*.py")
    # What `up` starts.
    assert listed == {file.stem for file in files} - {"serve", "ingest"}


def test_every_linked_file_exists() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert links
    assert [link for link in links if not (PROJECT / link).exists()] == []


def test_every_setting_of_the_table_is_read_by_the_settings_and_the_other_way_round() -> None:
    listed = set(re.findall(r"^\| `([A-Z_]+)` \|", section("Settings"), re.MULTILINE))
    # What decides which code is loaded is read before the settings are.
    source = "".join((PROJECT / "gateway" / name).read_text() for name in ("settings.py", "compiled.py"))
    read = set(re.findall(r"""["'](POINTSMAN_[A-Z_]+|DATABASE_URL|CELERY_BROKER_URL)["']""", source))
    assert listed == read


def test_the_configuration_example_is_a_configuration_file() -> None:
    example = section("Configuration as a file").split("```yaml\n", 1)[1].split("```", 1)[0]
    file = read_configuration(example, folder=PROJECT)
    assert file.tenants[0]["projects"][0]["keys"][0]["secret"] == "env:ACME_DEV_KEY"


def test_every_field_of_a_configuration_file_is_named() -> None:
    named = set(re.findall(r"[a-z_]+", section("Configuration as a file")))
    tables = [table for name, table in vars(file_format).items() if name.startswith("_") and name.isupper()]
    fields = {name for table in tables if isinstance(table, dict) for name in table}
    assert len(fields) > 60
    # Rates have a page of their own in the console, and `book` has one value here.
    assert fields - named - set(RATE_NAMES) == {"book"}
