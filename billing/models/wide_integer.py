"""How are whole numbers kept that 64 bits are too few for? Billionths of a currency that is worth little: a million
dollars in dong are 2.5 * 10^19 of them.

Pure. Numbers in PostgreSQL, int in Python.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from django.db import models

DIGITS: Final = 30

if TYPE_CHECKING:
    _Base = models.BigIntegerField[Any, int]
else:
    _Base = models.DecimalField


class WideIntegerField(_Base):
    """A whole number of at most 30 digits."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{**options, "max_digits": DIGITS, "decimal_places": 0})

    def deconstruct(self) -> Any:
        """What a migration writes: the digits are the field's own."""
        name, path, args, options = super().deconstruct()
        return (
            name,
            path,
            args,
            {k: v for k, v in options.items() if k not in ("max_digits", "decimal_places")},
        )

    def from_db_value(self, value: Decimal | None, *_: Any) -> int | None:
        """Sums of the column come this way too."""
        return None if value is None else int(value)

    def to_python(self, value: Any) -> Any:
        """An int as it is; texts as the base reads them, without a fraction."""
        return value if value is None or isinstance(value, int) else int(super().to_python(value))
