"""Texts that are longer than an encoder reads -> one warning with the settings of LlamaIndex that fit.

LlamaIndex's splitters count the tokens of another tokenizer: how many of those make a text that is read whole is found
out on the texts that were too long.

Guarantees: one warning per vector space and process. Does not know: nodes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from llama_index_embed_plus.encoders.text_encoder import TextEncoder
from qdrant_tools.client.forks import undivided

logger = logging.getLogger(__name__)

CountTokens = Callable[[str], Sequence[object]]
"""LlamaIndex's tokenizer."""

_MEASURED, _CHARACTERS = 64, 8000
"""Texts that are counted, and how much of each."""
_ROOM = 0.9
"""A passage may have more tokens per token of LlamaIndex's than all of those that were measured."""
_told: dict[str, object] = {}


def announce_overlong(encoder: TextEncoder, tokenizer: Callable[[], CountTokens], texts: Sequence[str]) -> None:
    """Warn that texts are cut at the end of what is read, unless that was said before.

    `tokenizer` opens LlamaIndex's.
    """
    own = object()
    # in one step, without a lock, which a forked child might find locked
    if encoder.quiet or _told.setdefault(encoder.space, own) is not own:
        return
    room = encoder.tokenizer.room
    with undivided():  # it may import a library
        count = tokenizer()
    size = fitting_chunk_size(encoder, count, texts)
    logger.warning(
        "%s more than the %d tokens that %s reads: what stands behind is not embedded, here and in further "
        "texts. Cut smaller, before the index is made: Settings.transformations = [plus_node_parser(embedding)] "
        "(llama_index_embed_plus.integrations) never makes a node too long; or Settings.chunk_size = %d and "
        "Settings.chunk_overlap = %d",
        *("1 text has" if len(texts) == 1 else f"{len(texts)} texts have", room, encoder.space, size, size // 10),
    )


def fitting_chunk_size(encoder: TextEncoder, count: CountTokens, texts: Sequence[str]) -> int:
    """How many tokens of LlamaIndex's own tokenizer make texts such as these short enough."""
    sample = [text[:_CHARACTERS] for text in texts[:_MEASURED]]
    prompt = encoder.spec.passage_prompt
    room = encoder.tokenizer.room - (encoder.tokenizer.counts([prompt])[0] if prompt else 0)
    ratios = [
        own / max(1, len(count(text))) for own, text in zip(encoder.tokenizer.counts(sample), sample, strict=True)
    ]
    return max(1, int(_ROOM * room / max(ratios)))
