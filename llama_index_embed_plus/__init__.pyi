from .documents.reading import read_passages
from .encoders.adapter import AdaptedEncoder, QueryAdapter
from .encoders.open import open_encoder
from .encoders.text_encoder import TextEncoder
from .errors import PlusError
from .evaluate.retrieval.comparison import compare
from .evaluate.retrieval.files import HeldOut, read_held_out, read_qrels, read_queries
from .evaluate.retrieval.retrieval import evaluate_retrieval
from .export.export import export_onnx
from .integrations.node_parser import plus_node_parser
from .integrations.recorder import RetrievalRecorder
from .integrations.spans import SearchSpans
from .integrations.vector_store import PlusVectorStore
from .serving.embedding import PlusEmbedding
from .training.adapter.run import fit_adapter
from .training.data.splits import split_queries
from .training.run import train
from .training.settings import AdapterSettings, TrainSettings

__version__: str

__all__ = [
    "AdaptedEncoder",
    "AdapterSettings",
    "HeldOut",
    "PlusEmbedding",
    "PlusError",
    "PlusVectorStore",
    "QueryAdapter",
    "RetrievalRecorder",
    "SearchSpans",
    "TextEncoder",
    "TrainSettings",
    "compare",
    "evaluate_retrieval",
    "export_onnx",
    "fit_adapter",
    "open_encoder",
    "plus_node_parser",
    "read_held_out",
    "read_passages",
    "read_qrels",
    "read_queries",
    "split_queries",
    "train",
]
