from .labels import ClassificationSettings, ClusteringSettings, classification, clustering
from .pairs import bitext_mining, duplicates, pair_classification
from .run import Skipped, Task, TaskOptions, TaskResult, find_tasks, read_task, run_task
from .scores import Candidates, Summaries, reranking, semantic_similarity, summarisation

__all__ = [
    "Candidates",
    "ClassificationSettings",
    "ClusteringSettings",
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
