"""A log of searches and of what people said of their answers -> an adapter, and whether it may serve: in one call."""
