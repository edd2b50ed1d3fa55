"""A retrieval pipeline that needs no network: documents -> nodes -> embedded Qdrant -> retriever -> query engine.

    python examples/rag.py [FOLDER]

The documents are the documentation of a few standard library modules, and the language model is a mock that repeats its
prompt: put a real one in its place. A second run in the same folder finds its documents unchanged and embeds nothing.
"""

from __future__ import annotations

import importlib
import inspect
import sys
import tempfile
from contextlib import closing
from pathlib import Path

from llama_index.core import Document, VectorStoreIndex, ingestion, llms, storage

from llama_index_embed_plus import PlusEmbedding, PlusVectorStore, plus_node_parser

MODULES = ("argparse", "bisect", "csv", "heapq", "logging", "pickle", "shutil", "statistics", "tempfile", "zipfile")
QUESTION = "How do I copy a whole folder with everything in it?"


def read_documents() -> list[Document]:
    """Return one document per public class, function and module that documents itself."""
    documents = []
    for name in MODULES:
        module = importlib.import_module(name)
        members = {name: module} | {
            f"{name}.{part}": member
            for part, member in inspect.getmembers(module, lambda m: inspect.isclass(m) or inspect.isroutine(m))
            if not part.startswith("_") and member.__module__ == name
        }
        for path, member in members.items():
            text = inspect.getdoc(member)
            if text:
                documents.append(Document(text=f"{path}\n{text}", id_=path, metadata={"module": name}))
    return documents


def main(folder: Path) -> None:
    embedding = PlusEmbedding("all-MiniLM-L6-v2")
    file = folder / "docstore.json"
    documents = storage.docstore.SimpleDocumentStore
    docstore = documents.from_persist_path(str(file)) if file.exists() else documents()
    with closing(PlusVectorStore.from_location(folder / "qdrant", "library", embedding)) as store:
        pipeline = ingestion.IngestionPipeline(
            transformations=[plus_node_parser(embedding), embedding],
            vector_store=store,
            docstore=docstore,
        )
        nodes = pipeline.run(documents=read_documents())
        docstore.persist(str(file))
        print(f"{len(nodes)} new nodes; the collection holds {store.collection.gateway.count()}")

        index = VectorStoreIndex.from_vector_store(store, embed_model=embedding)
        print(f"\n{QUESTION}")
        for hit in index.as_retriever(similarity_top_k=3).retrieve(QUESTION):
            print(f"  {hit.score:.3f}  {hit.node.ref_doc_id}")

        answer = index.as_query_engine(llm=llms.MockLLM(), similarity_top_k=3).query(QUESTION)
        print(f"\nWhat the language model is asked, from {len(answer.source_nodes)} passages:\n\n{answer}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(Path(folder))
