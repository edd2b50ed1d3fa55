from .retrieval.comparison import Comparison, compare
from .retrieval.exact import PassageVectors, embed_passages
from .retrieval.files import (
    HeldOut,
    read_held_out,
    read_qrels,
    read_queries,
    read_run,
    write_qrels,
    write_queries,
    write_run,
)
from .retrieval.report import RetrievalReport, score_run
from .retrieval.retrieval import evaluate_retrieval

__all__ = [
    "Comparison",
    "HeldOut",
    "PassageVectors",
    "RetrievalReport",
    "compare",
    "embed_passages",
    "evaluate_retrieval",
    "read_held_out",
    "read_qrels",
    "read_queries",
    "read_run",
    "score_run",
    "write_qrels",
    "write_queries",
    "write_run",
]
