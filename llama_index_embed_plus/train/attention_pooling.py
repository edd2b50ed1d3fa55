"""Token states and attention -> one vector per text, in training: `pooling.pool` as a sentence-transformers module.

sentence-transformers has no pooling weighted by attention; this module stands in for its own while such a model is
trained. Guarantees: the numbers of `pooling.pool`, which serving uses. Does not know: texts, files.
"""

from __future__ import annotations

from typing import Any

import torch
from sentence_transformers.sentence_transformer.modules import Pooling

from llama_index_embed_plus.pooling import ATTENTION, MEAN, pool
from llama_index_embed_plus.spec import EncoderSpec


class AttentionAwarePooling(torch.nn.Module):
    """Pools by `spec.pooling`, `attention` included."""

    def __init__(self, transformer: Any, spec: EncoderSpec) -> None:
        super().__init__()
        self.modes, self.include_prompt = spec.pooling, spec.include_prompt
        self.width = int(transformer.get_embedding_dimension())
        self._attention: torch.Tensor | None = None
        transformer.auto_model.config.output_attentions = True
        self._listen(transformer.auto_model)

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
        prompt = features.get("prompt_length", 0) if not self.include_prompt else 0
        tokens = int(prompt.flatten()[0]) if isinstance(prompt, torch.Tensor) else int(prompt)
        states, mask = features["token_embeddings"], features["attention_mask"]
        features["sentence_embedding"] = pool(states, mask, self.modes, prompt_tokens=tokens, attention=self._attention)
        return features

    def get_embedding_dimension(self) -> int:
        return self.width * len(self.modes)

    def writable(self) -> Pooling:
        """The nearest module that sentence-transformers can read: mean for `attention`; the manifest says more."""
        return Pooling(
            self.width, tuple(MEAN if mode == ATTENTION else mode for mode in self.modes), self.include_prompt
        )

    def _listen(self, model: Any) -> None:
        """Keep the last layer's attention of every pass: sentence-transformers calls `forward` past all hooks."""
        forward = model.forward

        def listened(*args: Any, **kwargs: Any) -> Any:
            output = forward(*args, **kwargs)
            self._attention = output.attentions[-1]
            return output

        model.forward = listened
