"""The bench: its provider and load generator must count right, or its table says nothing."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.bench.load_generator import Plan, build_body, measure, percentile_ms
from gateway.bench.processes import cpu_s, list_tree, resident_mib
from gateway.bench.rig import build_configuration
from gateway.bench.scenarios import (
    MEMORY,
    SCENARIOS,
    Result,
    Row,
    Scenario,
    describe_result,
    format_table,
    list_errors,
    read_results,
)
from gateway.configuration_file.format import read_document

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def provider() -> Iterator[tuple[int, int]]:
    """Port and process id of a mock provider."""
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway.bench.mock_provider"], cwd=ROOT, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline()), process.pid
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()


def run_load_generator(**plan: Any) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "gateway.bench.load_generator", json.dumps({"warm_s": 0.0, **plan})],
        cwd=ROOT,
        capture_output=True,
        check=True,
        timeout=60,
    )
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_each_load_is_answered_and_counted(scenario: Scenario, provider: tuple[int, int]) -> None:
    port, pid = provider
    plan = {**scenario.plan, "connections": min(10, scenario.plan.get("connections", 10))}
    plan.pop("policy_prefix", None)  # the rig's
    figures = run_load_generator(**plan, port=port, seconds=0.3, pids=[pid], our_pids=[pid])
    assert figures["errors"] == {}
    assert figures["requests"] > 0
    assert figures["foreign_cores"] >= 0
    for row in scenario.rows:
        assert figures[row.figure] >= 0
    if scenario.plan.get("rate_per_s"):
        assert figures["requests"] == 90
    if scenario.plan.get("is_stream"):
        # Role, n contents, finish reason, usage and [DONE].
        contents = int(scenario.plan["model"].partition("-")[2].partition("x")[0])
        assert figures["chunks"] == figures["requests"] * (contents + 4)


def test_the_provider_answers_like_openai(provider: tuple[int, int]) -> None:
    url = f"http://127.0.0.1:{provider[0]}/v1/chat/completions"
    plain = httpx.post(url, json={"model": "any", "messages": []}).json()
    assert plain["choices"][0]["finish_reason"] == "stop"
    assert plain["usage"]["total_tokens"] > 0
    text = httpx.post(url, json={"model": "stream-3x1", "stream": True, "messages": []}).text
    events = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    assert events.pop() == "[DONE]"
    chunks = [json.loads(event) for event in events]
    assert len(chunks) == 6
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"
    assert (chunks[-1]["choices"], chunks[-1]["usage"]) == ([], plain["usage"])


async def serve_once(answer: bytes, *, seconds: float = 0.05, **plan: Any) -> dict[str, Any]:
    """Measure a server that gives every request this answer."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]))
                if not answer:
                    break
                writer.write(answer)
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        return await measure(
            Plan(port=port, model="m", seconds=seconds, warm_s=0.0, **{"connections": 3, **plan})
        )
    finally:
        server.close()
        await asyncio.sleep(0.01)


STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"


async def test_refusals_and_lost_connections_are_errors_and_not_answers() -> None:
    refused = await serve_once(b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n")
    assert (refused["requests"], refused["errors"]) == (0, {"status 500": 3})
    lost = await serve_once(b"")
    assert (lost["requests"], lost["errors"]) == (0, {"connection lost": 3})


async def test_a_stream_without_its_end_mark_is_an_error() -> None:
    body = b'data: {"choices":[]}\n\n'
    answer = STREAM_HEAD + b"content-length: %d\r\n\r\n" % len(body) + body
    figures = await serve_once(answer, is_stream=True)
    assert (figures["requests"], figures["errors"]) == (0, {"stream without end": 3})


async def test_an_event_that_is_cut_anywhere_counts_once() -> None:
    body = b'data: {"choices":[]}\n\n' * 3 + b"data: [DONE]\n\n"
    pieces = b"".join(b"1\r\n" + body[i : i + 1] + b"\r\n" for i in range(len(body))) + b"0\r\n\r\n"
    figures = await serve_once(STREAM_HEAD + b"transfer-encoding: chunked\r\n\r\n" + pieces, is_stream=True)
    assert figures["requests"] > 0
    assert figures["chunks"] == 4 * figures["requests"]


def test_a_body_has_about_the_size_that_was_asked_for() -> None:
    for size in (100_000, 1_000_000):
        assert 0.9 * size < len(build_body(Plan(port=1, model="m", body_bytes=size))) < 1.1 * size


def test_a_plan_without_bounds_is_refused() -> None:
    with pytest.raises(ValueError, match="at most"):
        Plan(port=1, model="m", seconds=10_000)


def test_percentiles_are_of_the_nearest_rank() -> None:
    times_s = [number / 1000 for number in range(100, 0, -1)]
    assert (percentile_ms(times_s, 50), percentile_ms(times_s, 99)) == (50.0, 99.0)
    assert percentile_ms([0.002], 99) == 2.0
    assert percentile_ms([], 50) is None


def test_cpu_and_memory_are_those_of_the_whole_tree() -> None:
    burn = "import time; e = time.process_time() + 0.2\nwhile time.process_time() < e: pass\ninput()"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}])"
    process = subprocess.Popen([sys.executable, "-c", parent], stdin=subprocess.PIPE)
    try:
        give_up_s = time.monotonic() + 20
        while cpu_s([process.pid]) < 0.2 and time.monotonic() < give_up_s:
            time.sleep(0.02)
        assert cpu_s([process.pid]) >= 0.2
        assert len(list_tree([process.pid])) == 2
        assert resident_mib([process.pid]) > 5
    finally:
        process.communicate(b"\n", timeout=10)
    assert cpu_s([process.pid]) == 0


def test_added_times_are_taken_within_a_round_and_the_median_is_shown() -> None:
    row = Row("added", "p50_ms", "ms", bar=1.0, is_added=True)
    scenario = Scenario("latency", {}, (row,))
    rounds = [
        {
            "direct": {"p50_ms": direct, "errors": {}},
            "gateway": {"p50_ms": ours, "errors": {"status 500": 2} if ours > 20 else {}},
        }
        for direct, ours in ((0.2, 0.7), (10.0, 10.6), (0.2, 30.2))
    ]
    (result,) = read_results(scenario, rounds)
    assert (result.gateway, result.others, result.is_met) == (0.6, {"direct": 0.2}, True)
    assert list_errors(scenario, rounds) == ["latency, gateway: 2 x status 500"]


def test_a_figure_over_its_bar_is_not_met_and_a_missing_one_is_unknown() -> None:
    results = [Result("memory", MEMORY, 151.0), Result("memory", MEMORY, None, {"nginx": None})]
    assert [result.is_met for result in results] == [False, None]
    table = format_table(results).splitlines()
    assert "NO" in table[2] and "151" in table[2]
    assert "?" in table[3]
    assert len({len(line) for line in table}) == 1
    assert describe_result(results[0])["is_met"] is False


def test_the_gateway_under_test_has_a_policy_of_ten_rules() -> None:
    file = read_document(build_configuration(1), folder=ROOT)
    assert [len(policy["rules"]) for policy in file.policies] == [10, 10, 10]


@pytest.mark.slow
def test_the_command_prints_the_table_and_leaves_nothing_behind(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("POINTSMAN_")}
    environment |= {"TMPDIR": str(tmp_path), "POINTSMAN_DATA_DIR": str(tmp_path / "unused")}
    tmp_path.chmod(0o755)
    options = ["--json", "--seconds", "0.3", "--rounds", "1", "--only", "auto,memory"]
    done = subprocess.run(
        [sys.executable, "manage.py", "bench", *options],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["errors"] == []
    assert [row["scenario"] for row in report["rows"]] == ["auto", "memory"]
    for row in report["rows"]:
        assert row["gateway"] > 0
        assert row["is_met"] is (row["gateway"] <= row["bar"])
    assert not list(tmp_path.glob("pmbench-*"))
