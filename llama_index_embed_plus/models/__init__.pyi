from .families import Family, family_of
from .hub import resolve
from .spec import EncoderSpec, Overrides

__all__ = ["EncoderSpec", "Family", "Overrides", "family_of", "resolve"]
