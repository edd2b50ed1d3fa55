"""Traces of RAG applications, as tracing tools export them -> logged searches."""
