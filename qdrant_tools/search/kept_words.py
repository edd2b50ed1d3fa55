"""What was chosen for hybrid search -> kept with the collection, for every search that says nothing.

The fusion stands in the metadata, and is changed by one update. k1 and b are part of the stored words: other ones are
counted anew, from the stored texts. Guarantees: nothing is embedded; what is not proved better is not applied. Does not
know: how it was chosen.
"""

from __future__ import annotations

from dataclasses import replace

from qdrant_tools.client.connect import refuse_read_only
from qdrant_tools.collections.collection import Collection
from qdrant_tools.collections.metadata import metadata_of
from qdrant_tools.errors import InputError
from qdrant_tools.records import Progress
from qdrant_tools.search.added_words import add_lexical
from qdrant_tools.search.fusion import Fusion
from qdrant_tools.search.hybrid import lexical_of
from qdrant_tools.search.word_tuning import WordTuning


def keep_fusion(collection: Collection, fusion: Fusion | None) -> Collection:
    """Keep how a hybrid search fuses that says nothing; None: forget it. Returns the collection as it is then.

    Raises:
        NotSupportedError: the collection has no lexical vectors.
        LocationError: the folder is only read.
    """
    refuse_read_only(collection.client)
    lexical_of(collection)
    # read again: a search may have been chosen meanwhile
    latest = metadata_of(collection.gateway.info()) or collection.metadata
    kept = replace(latest, fusion=fusion)
    if kept != latest:
        collection.gateway.update(metadata=kept.for_qdrant())
    return replace(collection, metadata=kept)


def apply_word_tuning(collection: Collection, report: WordTuning, *, progress: Progress | None = None) -> Collection:
    """Keep the fusion that was chosen, and count the words anew if another k1 or b was.

    `progress` receives the passages whose words are counted anew.

    Raises:
        InputError: the report is about another collection, or proves nothing.
    """
    if report.collection != collection.name:
        raise InputError(f"the report is about collection {report.collection!r}, this is {collection.name!r}")
    if not report.proved:
        raise InputError(f"nothing is to be applied: {report.reason}")
    chosen, lexical = report.chosen, lexical_of(collection)
    if (chosen.k1, chosen.b) != (lexical.k1, lexical.b):
        words = replace(lexical, k1=chosen.k1, b=chosen.b, stemmed_by=None)
        collection = add_lexical(collection, words, again=True, progress=progress)
    return keep_fusion(collection, chosen.fusion)
