from .pages import (
    audit_page,
    before_after,
    monitor_page,
    query_differences,
    recall_latency,
    score_histograms,
    scores_by_relevance,
)
from .vectors import MapSettings, VectorMap, map_collection, map_vectors, similarity_heatmap, vector_map

__all__ = [
    "MapSettings",
    "VectorMap",
    "audit_page",
    "before_after",
    "map_collection",
    "map_vectors",
    "monitor_page",
    "query_differences",
    "recall_latency",
    "score_histograms",
    "scores_by_relevance",
    "similarity_heatmap",
    "vector_map",
]
