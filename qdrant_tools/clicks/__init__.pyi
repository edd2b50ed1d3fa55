from .reading import FORMS, ClickReader, form_of, read_clicks
from .records import ClickSettings

__all__ = ["FORMS", "ClickReader", "ClickSettings", "form_of", "read_clicks"]
