"""Index texts into Qdrant and search them, without LlamaIndex. The folder may be a server's URL instead."""

import sys

from llama_index_embed_plus import open_encoder
from qdrant_tools import CollectionManager, connect

texts = ["json.dumps writes an object as text.", "time.sleep suspends the calling thread.", "os.remove deletes a file."]
client = connect(sys.argv[1] if len(sys.argv) > 1 else "quickstart-qdrant")
docs = CollectionManager(client).ensure("notes", open_encoder("all-MiniLM-L6-v2"))
print(docs.index({"id": text.split()[0], "text": text} for text in texts))
for hit in docs.search("how do I pause my program?", k=2):
    print(f"{hit.score:.3f}  {hit.id:12} {hit.text}")
client.close()
