"""What did applying a configuration file do, or why not, and where in the file?

Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from gateway.configuration_file.values import FileError, Problem, join
from policies import publishing
from policies.errors import ConfigurationError, InvalidValueError

Action = Literal[
    "create", "change", "nothing", "add", "end", "publish", "issue", "rotate", "delete", "disable", "revoke"
]


@dataclass(frozen=True, slots=True)
class Step:
    """One line of the plan: what happens to which object."""

    action: Action
    kind: str
    name: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.action:<8} {self.kind:<10} {self.name}" + (f"  {self.detail}" if self.detail else "")


@dataclass(slots=True)
class Outcome:
    """What applying did: the plan, remarks, and the secrets that were made (object -> secret), shown once."""

    steps: list[Step] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    secrets: dict[str, str] = field(default_factory=dict)

    @property
    def is_change(self) -> bool:
        return any(step.action != "nothing" for step in self.steps)


@contextmanager
def at(path: str) -> Iterator[None]:
    """Turn a verb's refusal into a problem at a place in the file."""
    try:
        yield
    except publishing.PolicyError as refusal:
        raise FileError(
            [
                Problem(join(path, problem.path) if problem.path else path, problem.message)
                for problem in refusal.problems
                if problem.severity == "error"
            ]
            or [Problem(path, str(refusal))]
        ) from None
    except InvalidValueError as refusal:
        raise FileError(
            [
                Problem(join(path, name) if name else path, text)
                for name, texts in refusal.problems.items()
                for text in texts
            ]
        ) from None
    except ConfigurationError as refusal:
        raise FileError([Problem(path, str(refusal))]) from None
