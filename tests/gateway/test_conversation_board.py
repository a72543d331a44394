"""Which deployment served a conversation last?"""

from __future__ import annotations

from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.conversation_board import SLOT_COUNT, TTL_S, WAYS, ConversationBoard

TALK = "00112233445566ff"


class Clock:
    now_s = 1_000_000.0

    def __call__(self) -> float:
        return self.now_s


def test_workers_of_one_machine_share_what_they_know(tmp_path: Path) -> None:
    one, other = ConversationBoard(tmp_path), ConversationBoard(tmp_path)
    assert other.find(TALK) is None
    one.keep(TALK, 7)
    assert other.find(TALK) == 7
    other.keep(TALK, 8)
    assert one.find(TALK) == 8
    one.close()
    assert other.find(TALK) == 8
    assert ConversationBoard(tmp_path).find(TALK) == 8  # a restarted worker knows it too


def test_a_conversation_is_forgotten_after_a_while_and_use_keeps_it(tmp_path: Path) -> None:
    clock = Clock()
    board = ConversationBoard(tmp_path, clock=clock)
    board.keep(TALK, 7)
    clock.now_s += TTL_S - 1
    board.keep(TALK, 7)
    clock.now_s += TTL_S - 1
    assert board.find(TALK) == 7
    clock.now_s += 2
    assert board.find(TALK) is None


def test_where_a_place_is_full_the_one_used_longest_ago_gives_way(tmp_path: Path) -> None:
    clock = Clock()
    board = ConversationBoard(tmp_path, clock=clock)
    # Same first four bytes, so the same slots.
    talks = [f"00000001{number:08x}" for number in range(1, WAYS + 2)]
    for number, talk in enumerate(talks):
        clock.now_s += 1
        board.keep(talk, number)
    assert board.find(talks[0]) is None
    assert [board.find(talk) for talk in talks[1:]] == list(range(1, WAYS + 1))


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(1, 2**32 - 1)), min_size=1, max_size=30))
def test_what_was_kept_last_is_found_or_forgotten_never_another(
    tmp_path: Path, kept: list[tuple[int, int]]
) -> None:
    board = ConversationBoard(tmp_path)
    for number, deployment_id in kept:
        board.keep(f"{number:016x}", deployment_id)
    for number, deployment_id in dict(kept).items():
        assert board.find(f"{number:016x}") in (deployment_id, None)
    assert board.find(f"{kept[-1][0]:016x}") == kept[-1][1]
    assert SLOT_COUNT > WAYS
