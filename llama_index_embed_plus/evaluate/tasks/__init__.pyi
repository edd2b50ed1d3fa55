from .labels import ClassificationSettings, ClusteringSettings, classification, clustering
from .layouts import Skipped, Task, find_tasks
from .pairs import bitext_mining, duplicates, pair_classification
from .run import LoadedTask, TaskOptions, TaskResult, read_task, run_task
from .scores import RerankingQuery, Summaries, reranking, semantic_similarity, summarisation

__all__ = [
    "ClassificationSettings",
    "ClusteringSettings",
    "LoadedTask",
    "RerankingQuery",
    "Skipped",
    "Summaries",
    "Task",
    "TaskOptions",
    "TaskResult",
    "bitext_mining",
    "classification",
    "clustering",
    "duplicates",
    "find_tasks",
    "pair_classification",
    "read_task",
    "reranking",
    "run_task",
    "semantic_similarity",
    "summarisation",
]
