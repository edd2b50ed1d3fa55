"""What `adapter.py` wrote about one or more collections -> the two charts of the docs, and their table.

    python benchmarks/adapter_chart.py docs/pictures/adapter-gain.png FILE.json [FILE.json ...]

Left: the gain in nDCG@10 by the number of judged queries, 0 being the adapter of the passages alone. Right: by the
share of clicks that are wrong. Bars are 95 % intervals. Two files about one collection are put together, the later one
counts where both have a row. Prints the rows of the table in Markdown, in points of nDCG@10.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from llama_index_embed_plus.evaluate.plots.style import FILLS, INK, finish, page

LOOKS = (("-", "o", FILLS[1][0]), ("--", "s", "#8a5a00"), (":", "^", "#6b6b6b"))
NAMES = {"demo": "Python's docs (demo)", "medquad": "MedQuAD", "scifact": "SciFact"}
Rows = dict[str, dict[str, Any]]


def read(paths: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """Collection -> what was measured, with the rows of all files about it."""
    found: dict[str, dict[str, Any]] = {}
    for path in paths:
        one = json.loads(path.read_text())
        rows = {**found.get(one["data"], {}).get("rows", {}), **one["rows"]}
        found[one["data"]] = {**one, "rows": rows}
    return found


def points(rows: Rows, kind: str) -> list[tuple[float, dict[str, Any]]]:
    """(number, row) of the rows of one kind, ascending; of judged queries the adapter without any is the first."""
    of_kind = {float(name.split()[1]): row for name, row in rows.items() if name.startswith(kind)}
    if kind == "judged" and "label-free" in rows:
        of_kind[0.0] = rows["label-free"]
    return sorted(of_kind.items(), key=lambda pair: pair[0])


def draw(found: dict[str, dict[str, Any]], path: Path) -> None:
    figure, axes = page(2, "What a query adapter gains, all-MiniLM-L6-v2")
    for axis, kind in zip(axes, ("judged", "clicks")):
        numbers = sorted({number for one in found.values() for number, _ in points(one["rows"], kind)})
        for (line, marker, colour), (name, one) in zip(LOOKS, found.items()):
            pairs = points(one["rows"], kind)
            # judged queries at even distances, a little apart so that intervals do not cover each other
            shift = 0.06 * (list(found).index(name) - (len(found) - 1) / 2)
            places = [numbers.index(number) + shift for number, _ in pairs]
            gains = [100 * row["gain"] for _, row in pairs]
            sides = [
                [100 * (row["gain"] - row["interval"][0]) for _, row in pairs],
                [100 * (row["interval"][1] - row["gain"]) for _, row in pairs],
            ]
            axis.errorbar(
                places,
                gains,
                sides,
                color=colour,
                linestyle=line,
                marker=marker,
                capsize=3,
                label=NAMES.get(name, name),
            )
        axis.axhline(0, color=INK, linewidth=0.8)
        axis.set_ylabel("gain in points of nDCG@10")
        labels = [f"{number:g}" if kind == "judged" else f"{100 * number:.0f} %" for number in numbers]
        axis.set_xticks(range(len(numbers)), labels)
    axes[0].set_xlabel("judged queries (0: the passages alone)")
    axes[1].set_xlabel("clicks that are wrong")
    low, high = (min(a.get_ylim()[0] for a in axes), max(a.get_ylim()[1] for a in axes))
    for axis in axes:
        axis.set_ylim(low, high)
    axes[0].legend(frameon=False, loc="upper left")
    finish(figure, path)


def table(found: dict[str, dict[str, Any]]) -> str:
    heads = [f"{n}: {one['test_queries']} queries, base {one['base']:.3f}" for n, one in found.items()]
    lines = ["| fitted on | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    for name in dict.fromkeys(name for one in found.values() for name in one["rows"]):
        cells = [_cell(one["rows"].get(name)) for one in found.values()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    low, high = row["interval"]
    return f"{100 * row['gain']:+.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path)
    parser.add_argument("files", type=Path, nargs="+")
    arguments = parser.parse_args()
    found = read(arguments.files)
    draw(found, arguments.picture)
    print(table(found))


if __name__ == "__main__":
    main()
