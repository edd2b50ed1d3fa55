"""The rows of tools that keep traces in a form of their own: a module per tool, one for all that look alike."""
