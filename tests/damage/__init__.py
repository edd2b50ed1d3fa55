"""A harness that kills, damages, fills and misuses the embedded engine, and counts what was lost.

`make soak` runs it for as long as asked; `test_harness.py` runs a short version of each part. The right answer always
comes from qdrant-client's `:memory:`, to which the same operations are applied.
"""
