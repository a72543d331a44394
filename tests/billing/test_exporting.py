"""Do all records leave whole, readable by programs and harmless to spreadsheets?"""

from __future__ import annotations

import csv
import io
import tracemalloc
import uuid
from pathlib import Path

import orjson
import pytest
from django.core.management import CommandError, call_command

from billing import exporting
from billing.exporting import export_requests
from billing.request_view import find_request
from tests import make

pytestmark = pytest.mark.django_db


def test_json_lines_are_what_the_api_shows_oldest_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make.world()
    requests = [make.request_lines(world) for _ in range(7)]
    make.ingest(tmp_path, [line for lines in requests for line in lines])
    monkeypatch.setattr(exporting, "CHUNK", 3)
    rows = [orjson.loads(line) for line in "".join(export_requests(file_format="jsonl")).splitlines()]
    assert {row["id"] for row in rows} == {lines[0]["id"] for lines in requests}
    assert [row["started_at"] for row in rows] == sorted(row["started_at"] for row in rows)
    shown = find_request(uuid.UUID(rows[0]["id"]), key_id=None)
    assert shown is not None
    # What is said of a single request beside its record.
    del shown["explanation"], shown["saving"]
    assert (rows[0].pop("charge_nanousd"), rows[0].pop("charge_usd")) == (make.COST_NANOUSD, "0.000141")
    assert rows[0] == shown
    assert rows[0]["attempts"][0]["usage"]["output_tokens"] == 500


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_csv_runs_no_formula_of_a_client(tmp_path: Path, start: str) -> None:
    world = make.world()
    intent, outcome = make.request_lines(world)
    intent["model"] = f'{start}cmd|"/c calc"!A1'
    make.ingest(tmp_path, [intent, outcome])
    (row,) = csv.DictReader(io.StringIO("".join(export_requests(file_format="csv")), newline=""))
    assert row["requested_model"] == f"'{intent['model']}"
    assert (row["cost_usd"], row["cost_nanousd"]) == ("0.000141", str(make.COST_NANOUSD))
    assert (row["usage_input_tokens"], row["is_stream"], row["first_token_ms"]) == ("1000", "false", "4.5")
    assert orjson.loads(row["attempts"])[0]["deployment"] == world.deployment.name
    assert orjson.loads(row["decision"]) == intent["decision"]


def test_every_count_of_usage_is_a_column_and_new_ones_stand_at_the_end(tmp_path: Path) -> None:
    intent, outcome = make.request_lines(make.world())
    counts = {
        "image_in": 258,
        "image_out": 1290,
        "images": 2,
        "audio_s": 61,
        "searches": 3,
        "cache_write_1h": 7,
    }
    outcome["usage"] |= {**counts, "cache_write": 9}
    outcome["attempts"][0]["usage"] |= {**counts, "cache_write": 9}
    make.ingest(tmp_path, [intent, outcome])
    text = "".join(export_requests(file_format="csv"))
    (row,) = csv.DictReader(io.StringIO(text, newline=""))
    usage = orjson.loads("".join(export_requests(file_format="jsonl")))["usage"]
    shown = {name: row[f"usage_{name}"] for name in usage}
    assert shown == {name: "" if value is None else str(value) for name, value in usage.items()}
    heads = text.splitlines()[0].split(",")
    later = [
        "cache_write_1h_tokens",
        "search_count",
        "image_input_tokens",
        "image_output_tokens",
        "image_count",
        "audio_s",
    ]
    assert heads[-7:] == ["tags", *(f"usage_{name}" for name in later)], "places that were there stay"
    assert [row[name] for name in heads[-6:]] == ["7", "3", "258", "1290", "2", "61"]


def test_unknown_is_an_empty_cell_and_not_zero(tmp_path: Path) -> None:
    make.ingest(tmp_path, [make.intent_line(make.world())])
    (row,) = csv.DictReader(io.StringIO("".join(export_requests(file_format="csv"))))
    assert (row["status"], row["cost_usd"], row["usage_input_tokens"]) == ("interrupted", "", "")


def test_the_command_takes_times_and_dates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = make.request_lines(make.world())
    make.ingest(tmp_path, lines)
    call_command("export_requests", "--format", "jsonl", "--since", "2020-01-01")
    assert orjson.loads(capsys.readouterr().out)["id"] == lines[0]["id"]
    call_command("export_requests", "--until", "2020-01-01T00:00:00Z")
    assert capsys.readouterr().out == ""
    for wrong in ("yesterday", "2026-02-31"):
        with pytest.raises(CommandError):
            call_command("export_requests", "--since", wrong)


def test_memory_does_not_grow_with_the_number_of_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "CHUNK", 50)
    world = make.world()
    peaks = []
    for worker, count in (("a", 200), ("b", 800)):
        make.ingest(
            tmp_path, [line for _ in range(count) for line in make.request_lines(world)], worker=worker
        )
        tracemalloc.start()
        rows = sum(piece.count("\n") for piece in export_requests(file_format="jsonl"))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert rows == 1000
    assert peaks[1] < 1.5 * peaks[0]
