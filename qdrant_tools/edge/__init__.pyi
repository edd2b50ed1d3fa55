from .async_client import AsyncEmbeddedClient
from .client import EmbeddedClient
from .storage.recover import recover

__all__ = ["AsyncEmbeddedClient", "EmbeddedClient", "recover"]
