from .mteb import mteb_encoder, mteb_search
from .node_parser import PlusNodeParser, plus_node_parser
from .qa_dataset import QADataset, evaluate_retriever, from_qa_dataset, read_qa_dataset, write_qa_dataset
from .recorder import RetrievalRecorder, hit_id
from .spans import SearchSpans
from .vector_store import PlusVectorStore

__all__ = [
    "PlusNodeParser",
    "PlusVectorStore",
    "QADataset",
    "RetrievalRecorder",
    "SearchSpans",
    "evaluate_retriever",
    "from_qa_dataset",
    "hit_id",
    "mteb_encoder",
    "mteb_search",
    "plus_node_parser",
    "read_qa_dataset",
    "write_qa_dataset",
]
