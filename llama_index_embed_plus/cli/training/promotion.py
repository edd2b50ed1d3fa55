"""What `promote run` is given -> the alias that it switches, and what the new model is compared with.

Guarantees: an alias is made only after asking, and not for a model that would be refused anyway; every refusal names
the command that leads on. Does not know: the steps of a promotion.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from llama_index_embed_plus.cli.console import ask, note
from llama_index_embed_plus.encoders.open import BackendName, open_encoder
from llama_index_embed_plus.models.artifact import TRAIN_REPORT
from llama_index_embed_plus.models.files import read_json
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.errors import CollectionError, PlusError, UsageError
from qdrant_tools.promotion.plan import Kind, read_state, refusal_of
from qdrant_tools.records import Encoder
from qdrant_tools.search.adapters import adapter_of, without_adapter


def alias_of(manager: CollectionManager, name: str, alias: str | None, *, yes: bool, in_place: bool) -> str:
    """The alias to switch: the name itself, one that leads to that collection, or a new one after asking.

    Raises:
        UsageError: `alias` beside a name that is one, or that leads elsewhere.
        CollectionError: nobody to ask, or who was asked said no.
        CollectionNotFoundError: nothing has this name.
    """
    target, aliases = manager.resolve(name), manager.aliases()
    if name in aliases:
        if alias not in (None, name):
            raise UsageError(f"{name!r} is an alias itself: leave out --alias {alias}")
        return name
    state = read_state(manager, target)
    if in_place or (state is not None and state.kind == "in-place" and state.alias == name):
        return name
    leading = sorted(other for other, to in aliases.items() if to == target)
    chosen = alias or (leading[0] if len(leading) == 1 else f"{name}-live")
    if chosen in manager.names() or aliases.get(chosen, target) != target:
        raise UsageError(f"{chosen!r} is the name of something else here: choose another with --alias NAME")
    if chosen in leading:
        note(f"{name!r} is served as {chosen!r}: that alias is switched, and what readers open")
        return chosen
    why = f"{name!r} is a collection, and only an alias can be switched"
    if not yes and not ask(f"{why}. Make the alias {chosen!r} of it, for applications to open from now on?"):
        raise CollectionError(
            f"{why}: say --yes to make the alias {chosen!r}, which applications open from then on, --alias NAME for "
            "another one, or --in-place for new vectors under the same name"
        )
    manager.switch_alias(chosen, target)
    note(f"made the alias {chosen!r} of {target!r}: let applications open {chosen!r} from now on")
    return chosen


def refuse_unproved(encoder: Encoder, name: str, model: str, *, force: bool, accept_synthetic: bool) -> None:
    """Raise `CollectionError` for a model that its training refused, before anything is made for it."""
    refusal = refusal_of(encoder)
    only_synthetic = getattr(encoder, "only_synthetic", False) is True
    if refusal is None or force or (only_synthetic and accept_synthetic):
        return
    command = f"embed-plus prove {shlex.quote(name)} --model {shlex.quote(model)}"
    others = f"{command} --queries QUERIES.jsonl --qrels QRELS.tsv --examples EXAMPLES.jsonl"
    if only_synthetic:
        ways = f"prove it on real queries, or accept that (--accept-synthetic): {others}"
    else:
        ways = f"judge a sample of passages ({command} --write-sheet SHEET.csv), prove it on other queries ({others}), "
        ways += "or promote it nevertheless (--force)"
    raise CollectionError(f"{name!r} keeps its encoder: {refusal}; {ways}")


def serving_now(manager: CollectionManager, alias: str, encoder: Encoder, kind: Kind, backend: BackendName) -> Encoder:
    """The encoder to compare with, where nobody named one: the model without its adapter, or what it was trained from.

    Raises:
        UsageError: what serves cannot be known from the model.
    """
    source = manager.open(alias)
    if kind == "adapter":
        # with the adapter that serves there now, if one does
        serving = manager.open(alias, without_adapter(encoder)).encoder
        assert serving is not None
        return serving
    base = _base_of(encoder, source.space, backend)
    if base is None:
        named = f"{source.space}{f' with {source.adapter}' if source.adapter else ''}"
        raise UsageError(f"{alias!r} serves {named}: name that model with --before, to compare with on the queries")
    return base


def _base_of(encoder: Encoder, space: str, backend: BackendName) -> Encoder | None:
    """What a model was trained from, by its report, if that is here and filled the collection."""
    folder = getattr(encoder, "folder", None)
    report = read_json(Path(folder), TRAIN_REPORT) if folder is not None else None
    lineage = report.get("lineage") if report is not None else None
    name = lineage.get("base") if isinstance(lineage, dict) else None
    if not isinstance(name, str):
        return None
    try:
        base = open_encoder(name, backend=backend)
    except PlusError:
        return None
    return base if base.space == space and adapter_of(base) is None else None
