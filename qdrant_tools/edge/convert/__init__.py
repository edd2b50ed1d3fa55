"""qdrant-client's requests -> the engine's, and the engine's results -> qdrant-client's."""
