"""What do the words of a request tell the router? Its workload, type, language, conversation and difficulty.

Pure (see `fingerprint` for the one bounded memory of hashes). The text is read once and never kept: what leaves this
module are hashes, names out of closed lists, and one number.
"""

from __future__ import annotations

from typing import NamedTuple

from policies.autorouter.difficulty import UNKNOWN
from policies.autorouter.fingerprint import find_conversation, find_workload
from policies.autorouter.languages import find_language
from policies.autorouter.request_types import find_type_of_words
from policies.autorouter.tables import RouterTables
from policies.autorouter.words import read_words


class RequestText(NamedTuple):
    """The parts of a request that the facts are read from. `is_tool_result`: the last message is a tool's result."""

    system: str = ""
    first_user: str = ""
    last_user: str = ""
    tool_names: tuple[str, ...] = ()
    schema: str = ""
    app: str = ""
    key_id: int = 0
    session: str = ""
    has_images: bool = False
    has_audio: bool = False
    has_files: bool = False
    is_tool_result: bool = False
    message_count: int = 1
    input_tokens: int = 0
    tenant_id: int = 0


class TextFacts(NamedTuple):
    """What was read. `language` "": unknown. `difficulty` in 0..1, 0.5: unknown."""

    workload: str
    task_type: str
    language: str
    conversation: str
    difficulty: float


def read_text_facts(text: RequestText, *, tables: RouterTables | None = None) -> TextFacts:
    """Read the facts. Without tables there is no learnt difficulty, and there are no types but the built-in ones."""
    words = read_words(text.last_user)
    difficulty = None if tables is None else tables.difficulty
    return TextFacts(
        workload=find_workload(
            key_id=text.key_id,
            app=text.app,
            system=text.system,
            tool_names=text.tool_names,
            schema=text.schema,
            tenant_id=text.tenant_id,
        ),
        task_type=find_type_of_words(
            words,
            has_images=text.has_images,
            has_tools=bool(text.tool_names),
            is_tool_result=text.is_tool_result,
            message_count=text.message_count,
            input_tokens=text.input_tokens,
            extra_types=None if tables is None else tables.extra_types,
        ),
        language=find_language(text.last_user, words.listed),
        conversation=find_conversation(
            session=text.session,
            key_id=text.key_id,
            system=text.system,
            tool_names=text.tool_names,
            first_user=text.first_user,
        ),
        difficulty=UNKNOWN if difficulty is None else round(difficulty.difficulty(words), 3),
    )
