"""The forms in which tracing tools write spans: a module per tool or convention."""
