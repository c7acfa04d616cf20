"""Numbers and texts as people read them in errors and plans."""

from __future__ import annotations

from collections.abc import Collection, Sequence

_UNITS = ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "k"))


def say_count(number: int) -> str:
    """Three or four digits and a unit: 812, 9,999, 12.3 k, 2.05 B."""
    if abs(number) < 10_000:
        return f"{number:,}"
    size, unit = next((size, unit) for size, unit in _UNITS if abs(number) >= size)
    digits = 2 if abs(number) < 10 * size else 1
    return f"{number / size:.{digits}f} {unit}"


def align_columns(rows: Sequence[Sequence[str]], left: Collection[int] = (0,)) -> list[str]:
    """The rows as lines of one width a column; columns of `left` begin alike (-1: the last), the others end alike."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    starts = {column % len(widths) for column in left}
    return [
        "  ".join(
            cell.ljust(width) if i in starts else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def shorten(text: str, limit: int = 120) -> str:
    """The text in one line of at most `limit` characters."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
