"""Print what a model is: its space, how it would be run, and every fact with its source."""

from __future__ import annotations

import json
from typing import Any

from rich.table import Table

from llama_index_embed_plus.cli.console import out
from llama_index_embed_plus.describe import Description, describe


def show_model(model: str, *, as_json: bool) -> None:
    """Describe a model as a table, or as one JSON object."""
    found = describe(model)
    if as_json:
        print(json.dumps(_row(found), ensure_ascii=False, default=str))
        return
    out.print(f"{found.space}  ({found.build}), {found.folder}", markup=False, soft_wrap=True)
    table = Table("fact", "value", "from")
    for fact in found.facts:
        table.add_row(fact.name, _shown(fact.value), fact.source)
    out.print(table, markup=False)
    for build, report in found.builds.items():
        parity = report.get("parity")
        if isinstance(parity, dict):
            agreement = f"cosine {parity['cosine_mean']:.5f} in the mean, {parity['cosine_min']:.5f} at worst"
            out.print(f"build {build}: {agreement}, against {parity['reference']}", markup=False, soft_wrap=True)
    for note in found.notes:
        out.print(f"note: {note}", markup=False, soft_wrap=True)


def _row(found: Description) -> dict[str, Any]:
    facts = {fact.name: {"value": fact.value, "source": fact.source} for fact in found.facts}
    return {
        "space": found.space,
        "build": found.build,
        "folder": str(found.folder),
        "facts": facts,
        "builds": {name: dict(report) for name, report in found.builds.items()},
        "notes": list(found.notes),
    }


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    return "none" if value in ("", None) else repr(value) if isinstance(value, str) else str(value)
