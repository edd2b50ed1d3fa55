"""Processes that answer searches from copies of the collections."""
