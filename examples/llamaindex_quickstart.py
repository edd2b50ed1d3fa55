"""Use the embedding and the store in LlamaIndex. A second run doubles nothing: the ids follow from the texts.

python examples/llamaindex_quickstart.py
"""

from llama_index.core import Document, Settings, StorageContext, VectorStoreIndex

from llama_index_embed_plus import PlusEmbedding, PlusVectorStore, plus_node_parser

Settings.embed_model = PlusEmbedding("all-MiniLM-L6-v2")
Settings.transformations = [plus_node_parser(Settings.embed_model)]
store = PlusVectorStore.from_location("embed-plus-data", "library", Settings.embed_model)
texts = ["json.dumps writes an object as text.", "time.sleep suspends the calling thread.", "os.remove deletes a file."]
documents = [Document(id_=text.split()[0], text=text) for text in texts]
index = VectorStoreIndex.from_documents(documents, StorageContext.from_defaults(vector_store=store))
for hit in index.as_retriever(similarity_top_k=2).retrieve("how do I pause my program?"):
    print(f"{hit.score:.3f}  {hit.text}")
print(f"{len(store.get_nodes())} nodes; a later start: VectorStoreIndex.from_vector_store(store)")
store.close()
