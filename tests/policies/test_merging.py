"""Does nobody lose work when two people edit one draft?"""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from policies.merging import apply_edits, list_edits, list_overlaps


def document(*names: str, baseline: str = "", **changed: str) -> dict[str, Any]:
    """Rules by name; `changed` gives rules a condition."""
    return {"baseline": baseline, "rules": [{"name": name, "when": changed.get(name, "")} for name in names]}


def merged(base: dict[str, Any], mine: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    return apply_edits(
        base=base, mine=mine, theirs=theirs, chosen=[edit.key for edit in list_edits(base, mine)]
    )


def test_edits_of_different_rules_are_both_kept() -> None:
    base = document("a", "b", "c")
    mine = document("a", "b", "c", "mine", a="has_images")
    theirs = document("theirs", "b", "c", baseline="gpt-5", b="has_tools")
    both = merged(base, mine, theirs)
    assert both == {
        "baseline": "gpt-5",
        "rules": [
            {"name": "a", "when": "has_images"},
            {"name": "theirs", "when": ""},
            {"name": "b", "when": "has_tools"},
            {"name": "c", "when": ""},
            {"name": "mine", "when": ""},
        ],
    }


def test_only_what_is_chosen_is_put_on_top() -> None:
    base, mine = document("a", "b"), document("a", baseline="gpt-5", a="has_images")
    theirs = document("a", "b", a="has_audio")
    assert [edit.key for edit in list_edits(base, mine)] == ["setting:baseline", "changed:0:a", "removed:0:b"]
    one = apply_edits(base=base, mine=mine, theirs=theirs, chosen={"removed:0:b"})
    assert one == document("a", a="has_audio")
    assert apply_edits(base=base, mine=mine, theirs=theirs, chosen=()) == theirs


def test_a_new_order_is_one_edit_and_moves_no_rule_of_theirs() -> None:
    base, mine = document("a", "b", "c"), document("c", "a", "b")
    assert [edit.kind for edit in list_edits(base, mine)] == ["order"]
    assert merged(base, mine, document("a", "new", "b", "c")) == document("c", "new", "a", "b")


def test_of_one_rule_that_both_changed_each_keeps_the_members_they_changed() -> None:
    base = {"rules": [{"name": "a", "when": "", "timeout_s": None, "slider": 5}]}
    mine = {"rules": [{"name": "a", "when": "has_images", "timeout_s": None}]}
    theirs = {"rules": [{"name": "a", "when": "", "timeout_s": 30, "slider": 5}]}
    assert merged(base, mine, theirs)["rules"] == [{"name": "a", "when": "has_images", "timeout_s": 30}]
    assert list_overlaps(base, mine, theirs) == set()


def test_what_would_replace_something_of_theirs_is_named() -> None:
    base = document("a", "b", "c", baseline="x")
    mine = document("a", "d", "c", baseline="y", a="has_images", c="has_audio")
    theirs = document("a", "b", "d", baseline="z", a="has_tools", b="has_files", d="has_schema")
    assert list_overlaps(base, mine, theirs) == {
        "setting:baseline",
        "changed:0:a",
        "removed:0:b",
        "changed:0:c",
        "added:0:d",
    }
    assert list_overlaps(base, mine, base) == set()
    assert list_overlaps(base, mine, mine) == set()


names = st.lists(st.sampled_from("abcde"), unique=True, max_size=5)


def some_document(named: list[str], when: str) -> dict[str, Any]:
    changed: dict[str, str] = dict.fromkeys(named[:2], when)
    return document(*named, **changed)


documents = st.builds(some_document, names, st.sampled_from(["", "x", "y"]))


@given(base=documents, mine=documents)
def test_on_top_of_an_unchanged_draft_all_edits_give_ones_own_document(
    base: dict[str, Any], mine: dict[str, Any]
) -> None:
    both = merged(base, mine, base)
    by_name = {rule["name"]: rule for rule in both["rules"]}
    assert by_name == {rule["name"]: rule for rule in mine["rules"]}
    assert list_edits(base, base) == []
