"""Use the embedding in LlamaIndex: set it once, and every index and retriever uses it."""

from llama_index.core import Document, Settings, VectorStoreIndex

from llama_index_embed_plus import PlusEmbedding

Settings.embed_model = PlusEmbedding("all-MiniLM-L6-v2")
texts = ["json.dumps writes an object as text.", "time.sleep suspends the calling thread.", "os.remove deletes a file."]
index = VectorStoreIndex.from_documents([Document(text=text) for text in texts])
for hit in index.as_retriever(similarity_top_k=2).retrieve("how do I pause my program?"):
    print(f"{hit.score:.3f}  {hit.text}")
