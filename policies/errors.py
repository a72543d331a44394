"""How can a change of configuration be refused?

Pure. The tree:

    ConfigurationError          any refusal; the text is for the person who asked
    ├── InvalidValueError       a value is wrong; `problems` maps the field to what is wrong with it
    ├── NameTakenError          another row has this natural key
    ├── NotFoundError           a row that was named does not exist
    ├── InUseError              history or other rows need what was to be deleted or changed
    └── CredentialError         a credential or its reference cannot be read
"""

from __future__ import annotations

from collections.abc import Mapping


class ConfigurationError(Exception):
    """A change that was refused. The text never holds a secret."""


class InvalidValueError(ConfigurationError):
    """A value is wrong. `problems`: field name -> sentences; "" stands for the row as a whole."""

    def __init__(self, problems: Mapping[str, list[str]]) -> None:
        self.problems = {field: list(texts) for field, texts in problems.items()}
        super().__init__(
            "; ".join(
                f"{field}: {text}" if field else text
                for field, texts in self.problems.items()
                for text in texts
            )
        )


class NameTakenError(ConfigurationError):
    """Another row has this natural key."""


class NotFoundError(ConfigurationError):
    """A row that was named does not exist."""


class InUseError(ConfigurationError):
    """History or other rows need what was to be deleted or changed."""


class CredentialError(ConfigurationError):
    """A credential or its reference cannot be read."""
