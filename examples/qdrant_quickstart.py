"""Index texts into Qdrant and search them, without LlamaIndex. The folder may be a server's URL instead."""

import sys

from llama_index_embed_plus import open_encoder
from qdrant_tools.client.connect import connect
from qdrant_tools.collections.manager import CollectionManager
from qdrant_tools.indexing import index_passages
from qdrant_tools.records import Passage
from qdrant_tools.search.dense import search

texts = ["json.dumps writes an object as text.", "time.sleep suspends the calling thread.", "os.remove deletes a file."]
encoder, client = open_encoder("all-MiniLM-L6-v2"), connect(sys.argv[1] if len(sys.argv) > 1 else "quickstart-qdrant")
collection = CollectionManager(client).ensure("notes", encoder)
print(index_passages(collection, [Passage(text.split()[0], text) for text in texts], encoder))
for hit in search(collection, "how do I pause my program?", encoder, k=2):
    print(f"{hit.score:.3f}  {hit.id:12} {hit.text}")
client.close()
