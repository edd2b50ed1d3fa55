"""Write down what users ask, see and open: two lines in a LlamaIndex application, and its log is training data."""

from llama_index.core import Document, VectorStoreIndex

from llama_index_embed_plus import PlusEmbedding, RetrievalRecorder
from llama_index_embed_plus.integrations import hit_id

recorder = RetrievalRecorder("retrievals.sqlite", collection="notes").start()  # the second of the two lines

# The application, unchanged.
texts = ["json.dumps writes an object as text.", "time.sleep suspends the calling thread.", "os.remove deletes a file."]
documents = [Document(text=text) for text in texts]
retriever = VectorStoreIndex.from_documents(documents, embed_model=PlusEmbedding()).as_retriever(similarity_top_k=2)
hits = retriever.retrieve("how do I pause my program?")

# Give both ids to whoever shows the hits; when one is opened, they come back.
search_id, opened = recorder.search_id(hits[0]), hit_id(hits[0].node)
recorder.feedback(search_id, opened, "click")

recorder.flush()
for search in recorder.log.searches():
    print(f"{search.query!r} in {search.collection}, space {search.space}")
    for hit in search.hits:
        print(
            f"  {hit.rank}. {hit.id} {hit.score:.3f}", *(event.kind for event in search.feedback if event.id == hit.id)
        )
recorder.stop()
