from .classes import Classification, classify, read_labels
from .clusters import Cluster, Clustering, cluster
from .liked import Strategy, similar
from .near import DuplicateGroup, DuplicateReport, duplicates

__all__ = [
    "Classification",
    "Cluster",
    "Clustering",
    "DuplicateGroup",
    "DuplicateReport",
    "Strategy",
    "classify",
    "cluster",
    "duplicates",
    "read_labels",
    "similar",
]
