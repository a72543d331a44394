"""Are a request's workload, conversation, type, language and difficulty read rightly, and is its text forgotten?"""

from __future__ import annotations

import gc
import gzip
import json
import sys
import time
from pathlib import Path
from types import FunctionType, ModuleType

import pytest

from gateway.compiled import is_in_use
from policies.autorouter import fingerprint
from policies.autorouter.difficulty import FORM_NAMES, DifficultyModel
from policies.autorouter.languages import find_language
from policies.autorouter.request_facts import RequestText, read_text_facts
from policies.autorouter.request_types import TYPES, find_type
from policies.autorouter.tables import RouterTables
from policies.autorouter.words import read_words

SHARED = Path(__file__).parents[4] / "shared" / "data" / "router"
ASKED = RequestText(system="Order 118 of 2024-03-05.", first_user="hi", last_user="hi", key_id=3)


def test_numbers_in_the_system_prompt_make_no_other_workload_but_words_do() -> None:
    facts = read_text_facts(ASKED)
    assert len(facts.workload) == 16
    assert read_text_facts(ASKED._replace(system="Order 7 of 2025-11-23.")).workload == facts.workload
    assert read_text_facts(ASKED._replace(system="Invoice 118 of 2024-03-05.")).workload != facts.workload


def test_of_a_long_system_prompt_the_ends_are_compared_and_no_more_is_read() -> None:
    rules = "Answer politely. " * 60_000
    workload = {
        read_text_facts(ASKED._replace(system=f"Order {number}. {rules} Today is {number}.")).workload
        for number in (7, 118_442, 2025)
    }
    assert len(workload) == 1
    began_s = time.thread_time()
    other = read_text_facts(ASKED._replace(system=f"Invoice 7. {rules} Today is 7.")).workload
    assert time.thread_time() - began_s < 0.02  # masking all of it takes 60 ms
    assert {other} != workload
    assert {read_text_facts(ASKED._replace(system=f"Order 7. {rules} Be brief.")).workload} != workload


def test_a_workload_is_the_app_or_the_key_with_its_tools_and_schema() -> None:
    one = read_text_facts(ASKED).workload
    assert read_text_facts(ASKED._replace(key_id=4)).workload != one
    assert read_text_facts(ASKED._replace(schema='{"type": "object"}')).workload != one
    tools = read_text_facts(ASKED._replace(tool_names=("b", "a"))).workload
    assert tools != one
    assert tools == read_text_facts(ASKED._replace(tool_names=("a", "b"))).workload
    app = read_text_facts(ASKED._replace(app="support")).workload
    assert app == read_text_facts(ASKED._replace(app="support", key_id=9)).workload
    # Another tenant that calls itself so is another app, and cannot rate answers for this one.
    whose = {
        read_text_facts(ASKED._replace(app="support", tenant_id=tenant_id, key_id=tenant_id)).workload
        for tenant_id in (1, 2)
    }
    assert len(whose) == 2
    assert one == read_text_facts(ASKED._replace(last_user="other", first_user="words")).workload


def test_a_conversation_is_the_callers_session_or_what_it_began_with() -> None:
    began = read_text_facts(ASKED).conversation
    assert read_text_facts(ASKED._replace(last_user="and then?", message_count=5)).conversation == began
    assert read_text_facts(ASKED._replace(first_user="hello")).conversation != began
    session = read_text_facts(ASKED._replace(session="s1")).conversation
    assert read_text_facts(ASKED._replace(session="s1", first_user="x", system="y")).conversation == session
    assert read_text_facts(ASKED._replace(session="s1", key_id=4)).conversation != session
    long = "a" * 9000
    assert (
        read_text_facts(ASKED._replace(first_user=long)).conversation
        != read_text_facts(ASKED._replace(first_user=long + "a")).conversation
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Rewrite this sentence so that it is more concise: we are of the opinion that …", "rewrite"),
        ("Extract the names and the category of each product, as JSON fields.", "extract"),
        ("Summarise the following minutes in three bullet points.", "summarise"),
        ("Translate into German: the lamp is broken.", "translate"),
        ("Write a Python function that returns the n-th prime.", "code"),
        ("Solve the equation 3x + 4 = 19 and prove it.", "reasoning"),
        ("What is the capital of Peru?", "question"),
        ("Write a short poem for an invitation letter.", "writing"),
        ("hello there", "chat"),
    ],
)
def test_the_words_tell_the_type(text: str, expected: str) -> None:
    assert find_type(text) == expected


def test_structure_comes_before_words_and_a_sites_own_types_before_both() -> None:
    asked = ASKED._replace(last_user="Translate the contract.")
    assert read_text_facts(asked).task_type == "translate"
    assert read_text_facts(asked._replace(has_images=True)).task_type == "vision"
    assert read_text_facts(asked._replace(tool_names=("search",))).task_type == "agent"
    assert read_text_facts(asked._replace(input_tokens=50_000)).task_type == "long_context"
    tables = RouterTables(extra_types={"legal": ("contract", "clause")})
    assert read_text_facts(asked._replace(has_images=True), tables=tables).task_type == "legal"


def test_types_agree_with_the_labels_of_realistic_instructions() -> None:
    path = SHARED / "request_types.jsonl.gz"
    if not path.exists():
        pytest.skip(f"no data beside the project: {path.name}")
    # The data's labels are coarser: what it calls knowledge we call a question.
    same = {"math": "reasoning", "summarize": "summarise", "write": "writing", "knowledge": "question"}
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    right = sum(find_type(row["prompt"]) == same.get(row["type"], row["type"]) for row in rows)
    assert all(find_type(row["prompt"]) in TYPES for row in rows)
    assert right / len(rows) >= 0.6


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("What is the best way to cook rice for two?", "en"),
        ("Wie kann ich die Rechnung für den März ändern?", "de"),
        ("Quel est le prix de la lampe dans les magasins ?", "fr"),
        ("¿Cuál es el precio de los libros para el colegio?", "es"),
        ("Qual è il prezzo della lampada che ho visto nel negozio?", "it"),
        ("Qual é o preço da lâmpada que você tem na loja?", "pt"),
        ("Wat is de prijs van het boek dat ik niet heb?", "nl"),
        ("Сколько стоит эта лампа?", "ru"),
        ("这盏灯多少钱？", "zh"),
        ("このランプはいくらですか？", "ja"),
        ("이 램프는 얼마입니까?", "ko"),
        ("كم سعر هذا المصباح؟", "ar"),
        ("xyzzy 42", ""),
        ("", ""),
    ],
)
def test_the_language_is_told_by_script_and_common_words(text: str, expected: str) -> None:
    assert find_language(text, read_words(text).listed) == expected


def test_difficulty_is_in_the_unit_interval_and_half_where_nothing_is_known() -> None:
    assert read_text_facts(ASKED).difficulty == 0.5
    weights = (9.0,) * (8 + len(FORM_NAMES))
    tables = RouterTables(difficulty=DifficultyModel(weights, 5.0, {"m": 1.0}))
    for text in ("", "a", "word " * 5000, "\ud800 broken", "1\n2\n" * 300):
        assert 0 <= read_text_facts(ASKED._replace(last_user=text), tables=tables).difficulty <= 1


def test_no_text_is_kept() -> None:
    # Put together here, so that it is no constant of this function.
    secret = "-".join(("zanzibar", "quicksilver"))
    tables = RouterTables(extra_types={"legal": ("contract",)})
    text = RequestText(
        system=f"You are {secret}.",
        first_user=f"first {secret}",
        last_user=f"last {secret} contract",
        session=f"s-{secret}",
        app=f"app-{secret}",
        schema=f'{{"title": "{secret}"}}',
        key_id=1,
    )
    facts = read_text_facts(text, tables=tables)
    assert facts.task_type == "legal"
    del text
    gc.collect()
    kept = [part for part in _reachable(tables, facts) if isinstance(part, str | bytes) and _tells(part)]
    assert kept == []


def _tells(part: str | bytes) -> bool:
    return "quicksilver" in part if isinstance(part, str) else b"quicksilver" in part


def _reachable(*further: object) -> list[object]:
    """Everything that the modules of the automatic router, or `further`, hold: caches too, code not."""
    modules = [module for name, module in sys.modules.items() if name.startswith("policies.autorouter")]
    waiting: list[object] = [*further, *(vars(module) for module in modules)]
    seen: dict[int, object] = {}
    while waiting:
        found = waiting.pop()
        if id(found) in seen or isinstance(found, ModuleType | FunctionType | type):
            continue
        seen[id(found)] = found
        waiting.extend(gc.get_referents(found))
    return list(seen.values())


@pytest.mark.skipif(is_in_use(), reason="compiled code has its constants built in")
def test_the_memory_of_system_prompts_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprint, "MEMORY_SIZE", 5)
    fingerprint._memory.clear()
    for number in range(20):
        read_text_facts(ASKED._replace(system="x" * number))
    assert len(fingerprint._memory) <= 5
