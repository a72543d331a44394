"""Changing top-level members must leave every other byte alone."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire.json_splice import replace_members, top_level_members

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=12),
    lambda children: (
        st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=6), children, max_size=3)
    ),
    max_leaves=12,
)
objects = st.dictionaries(
    st.sampled_from(["model", "a", 'q"u', "stream", "ü", "n", "back\\slash"]), json_values, max_size=6
)
layouts = st.sampled_from(
    [{"separators": (",", ":")}, {"indent": 2}, {"ensure_ascii": False}, {"separators": (" , ", " : ")}]
)


@given(objects, json_values, layouts, st.booleans())
def test_only_the_named_member_changes(document, model, layout, is_model_first):
    document = {"model": model, **document} if is_model_first else {**document, "model": model}
    body = json.dumps(document, **layout).encode()
    changed = replace_members(body, {"model": b'"new"', "n": None, "added": b"[1]"}, present=document)
    expected = {name: value for name, value in document.items() if name != "n"}
    assert json.loads(changed) == {**expected, "model": "new", "added": [1]}


@given(objects, layouts)
def test_the_raw_text_of_other_members_is_kept(document, layout):
    document = {**document, "model": "old"}
    body = json.dumps(document, **layout).encode()
    changed = replace_members(body, {"model": b'"new"'}, present=document)
    for name, _, start, end in top_level_members(body):
        if name != "model":
            assert body[start:end] in changed


@pytest.mark.parametrize(
    "body",
    [
        b'{"model": "a", "model": "b"}',
        b'{"model": "a", "\\u006dodel": "b"}',
        b'{"x": {"model": "a"}, "model": "b"}',
        b'{"x": "model", "model": "b"}',
        b'{"\\u006dodel": "b", "x": {"model": "a"}}',
    ],
)
def test_a_name_that_stands_twice_or_in_disguise_is_replaced_everywhere_at_the_top(body):
    document = json.loads(body)
    changed = replace_members(body, {"model": b'"new"'}, present=document)

    def model_values(pairs):
        return [value for name, value in pairs if name == "model"]

    at_top: list[object] = []
    json.loads(changed, object_pairs_hook=lambda pairs: at_top.append(model_values(pairs)) or dict(pairs))
    assert set(at_top[-1]) == {"new"}
    assert json.loads(changed).get("x") == document.get("x")


def test_an_empty_object_takes_a_member():
    assert replace_members(b" { } ", {"a": b"1"}, present={}) == b' {"a":1 } '


def test_numbers_beyond_64_bits_reach_the_provider_as_written():
    body = b'{"model":"a","seed":123456789012345678901234567890,"temperature":1.0}'
    assert replace_members(body, {"model": b'"bb"'}, present={"model": 1}) == body.replace(b'"a"', b'"bb"')


def test_a_text_without_its_end_is_given_up_at_once():
    assert top_level_members(b'{"' + b"a" * 5000) == []


@pytest.mark.parametrize("name", ["model", "\\u006dodel"])
@pytest.mark.parametrize("shift", range(4))
@pytest.mark.parametrize("is_first", [True, False])
def test_a_large_body_hides_no_second_name_wherever_it_stands(name, shift, is_first):
    filler = "a model of modelling, " * 5_000
    second = f'"n": 1{" " * shift}, "{name}": "b", '
    middle = f'"x": "{filler}", {second}"y": "{filler}"'
    body = (f'{{"model": "a", {middle}}}' if is_first else f'{{{middle}, "model": "a"}}').encode()
    changed = replace_members(body, {"model": b'"new"'}, present=json.loads(body))
    pairs = json.loads(changed, object_pairs_hook=list)
    assert [value for member, value in pairs if member == "model"] == ["new", "new"]
    plain = body.replace(second.encode(), b"")
    assert replace_members(plain, {"model": b'"new"'}, present=json.loads(plain)) == plain.replace(
        b'"a"', b'"new"'
    )


def test_a_name_written_with_escapes_is_found_though_a_part_of_the_body_has_the_same_one():
    body = b'{"x":{"max_tokens":"7"},"max_token\\u0073":null}'
    changed = json.loads(replace_members(body, {"max_tokens": b"5"}, present=json.loads(body)))
    assert changed == {"x": {"max_tokens": "7"}, "max_tokens": 5}
