"""How do rows become a Parquet file? Typed columns, amounts as decimals; needs pyarrow (the extra `parquet`).

Writes: the file that it is given, a row group of some thousand rows at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from billing.money import NANO_DIGITS, usd_decimal
from billing.spreadsheets import Column

GROUP_ROWS: Final = 10_000
DIGITS: Final = 38
# Of unit prices times quantities in millions: twelve digits of a rate and six of a quantity.
DECIMAL_SCALE: Final = 18


def is_installed() -> bool:
    """Say whether pyarrow can be imported."""
    return find_spec("pyarrow") is not None


class ParquetFile:
    """Unknown is null. Texts are written as they are: no spreadsheet opens this as formulas."""

    def __init__(self, path: Path, columns: Sequence[Column]) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        types = {
            "text": pa.string(),
            "count": pa.int64(),
            "usd": pa.decimal128(DIGITS, NANO_DIGITS),
            "decimal": pa.decimal128(DIGITS, DECIMAL_SCALE),
            "ratio": pa.float64(),
            "number": pa.float64(),
            "day": pa.date32(),
            "time": pa.timestamp("ms", tz="UTC"),
            "flag": pa.bool_(),
        }
        self._columns = columns
        self._schema = pa.schema([(column.name, types[column.kind]) for column in columns])
        self._table = pa.Table
        self._writer = parquet.ParquetWriter(str(path), self._schema, compression="zstd")
        self._rows: list[list[Any]] = []

    def write(self, row: Any) -> None:
        self._rows.append(
            [
                usd_decimal(value) if column.kind == "usd" and value is not None else value
                for value, column in zip(row, self._columns, strict=True)
            ]
        )
        if len(self._rows) == GROUP_ROWS:
            self._flush()

    def close(self) -> None:
        if self._rows:
            self._flush()
        self._writer.close()

    def _flush(self) -> None:
        by_column = {
            column.name: list(values)
            for column, values in zip(self._columns, zip(*self._rows, strict=True), strict=True)
        }
        self._writer.write_table(self._table.from_pydict(by_column, schema=self._schema))
        self._rows = []
