from .mteb import mteb_encoder, mteb_search
from .qa_dataset import QADataset, evaluate_retriever, from_qa_dataset, read_qa_dataset, write_qa_dataset
from .recorder import RetrievalRecorder, hit_id
from .vector_store import as_vector_store

__all__ = [
    "QADataset",
    "RetrievalRecorder",
    "as_vector_store",
    "evaluate_retriever",
    "from_qa_dataset",
    "hit_id",
    "mteb_encoder",
    "mteb_search",
    "read_qa_dataset",
    "write_qa_dataset",
]
