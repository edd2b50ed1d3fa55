"""Commands on stored vectors: what is like what, twice there, about the same, or of a kind. None opens a model."""
