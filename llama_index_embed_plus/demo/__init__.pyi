from .corpus import load_docstrings
from .pipeline import Demo, DemoReport

__all__ = ["Demo", "DemoReport", "load_docstrings"]
