from .embedding import PlusEmbedding

__all__ = ["PlusEmbedding"]
