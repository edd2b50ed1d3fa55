"""A Parquet file -> its rows, as plain Python, a few at a time.

Guarantees: what pyarrow cannot read is one error with the path; a column that would be read at once and is too large
is refused before it is. Does not know: what the columns mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from qdrant_tools.errors import InputError, PlusError, UsageError, brief, first_line
from qdrant_tools.files.json_files import open_regular
from qdrant_tools.files.rows import LONGEST_ROW, MOST_COLUMNS, Row

ROWS_AT_ONCE = 64
MOST_OF_COLUMN = 100 * LONGEST_ROW
"""Bytes of one column in a row group, which is read at once."""


def parquet_rows(
    path: Path, *, without_bytes: Callable[[list[str]], None] | None = None, missing: Exception | None = None
) -> Iterator[Row]:
    """Yield the rows; the number of a row stands for its line.

    without_bytes: columns of bytes are left out, and their names told to this; otherwise they are read.
    missing: the error where pyarrow is not installed, if it is not to be a `UsageError`.

    Raises:
        InputError: it is no Parquet file that can be read.
        UsageError: pyarrow is not installed.
    """
    file = _opened(path, missing)
    try:
        _check(path, file)
        names = list(file.schema_arrow.names)
        if without_bytes is not None:
            left_out = [name for name in names if _is_bytes(file.schema_arrow.field(name).type)]
            if left_out:
                without_bytes(left_out)
            names = [name for name in names if name not in left_out]
        number = 0
        for batch in file.iter_batches(batch_size=ROWS_AT_ONCE, columns=names):
            for values in _in_microseconds(batch).to_pylist():
                number += 1
                yield Row(values, path, number)
    # pyarrow's own errors are ValueErrors and OSErrors; OverflowError for times that Python has not
    except (ValueError, OSError, OverflowError, MemoryError, NotImplementedError) as error:
        if isinstance(error, PlusError):
            raise
        raise InputError(f"{path} is no Parquet file that can be read ({first_line(error)}): write it again") from error
    finally:
        file.close()


def _opened(path: Path, missing: Exception | None) -> Any:
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        if missing is not None:
            raise missing from error
        raise UsageError(
            f"{path} is Parquet, which needs pyarrow: pip install 'llama-index-embed-plus[files]', or write it as JSONL"
        ) from error
    try:
        open_regular(path).close()
        return parquet.ParquetFile(path, pre_buffer=False)
    # of a damaged file, pyarrow's own error is an OSError of no system call
    except (ValueError, NotImplementedError, OSError) as error:
        if isinstance(error, PlusError):
            raise
        if isinstance(error, OSError) and error.strerror:
            raise InputError(f"cannot read {path} as Parquet ({error.strerror}): write it again") from error
        raise InputError(f"{path} is no Parquet file that can be read ({first_line(error)}): write it again") from error


def _check(path: Path, file: Any) -> None:
    names = file.schema_arrow.names
    if len(names) > MOST_COLUMNS:
        raise InputError(f"{path}: more than {MOST_COLUMNS:,} columns: this is no table of rows")
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise InputError(f"{path}: two columns are named {brief(repeated)}: which one is meant cannot be told")
    sizes = (
        file.metadata.row_group(group).column(column).total_uncompressed_size
        for group in range(file.metadata.num_row_groups)
        for column in range(file.metadata.num_columns)
    )
    if (largest := max(sizes, default=0)) > MOST_OF_COLUMN:
        raise InputError(
            f"{path}: a column of a row group has {largest:,} bytes, expected at most {MOST_OF_COLUMN:,}: write "
            "smaller row groups (pyarrow: row_group_size=)"
        )


def _in_microseconds(batch: Any) -> Any:
    """Times of nanoseconds, which Python has not, as microseconds."""
    import pyarrow

    for place, kind in enumerate(batch.schema.types):
        if pyarrow.types.is_timestamp(kind) and kind.unit == "ns":
            name = batch.schema.names[place]
            rounded = batch.column(place).cast(pyarrow.timestamp("us", tz=kind.tz), safe=False)
            batch = batch.set_column(place, name, rounded)
    return batch


def _is_bytes(kind: Any) -> bool:
    """Whether a type is one of bytes, or holds such."""
    import pyarrow.types as types

    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        return True
    return any(_is_bytes(kind.field(place).type) for place in range(kind.num_fields))
