"""A model folder, run by torch: token batches -> vectors.

transformers computes the token states; `models.pooling` does the rest. A LoRA that is kept apart from its base is added
to the base's weights when the model is loaded.

Guarantees: weights come from safetensors only; code of a model folder runs only if the caller trusts it; a checkpoint
that lacks a weight is DamagedModelError, so no weight is left random. Does not know: texts.
"""

from __future__ import annotations

import copy
import logging
import math
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from llama_index_embed_plus.encoders.text_encoder import Runtime, out_of_memory_message
from llama_index_embed_plus.encoders.tokens import TokenBatch
from llama_index_embed_plus.errors import DamagedModelError, MissingExtraError, ModelError
from llama_index_embed_plus.models.families import family_of
from llama_index_embed_plus.models.files import has_lora
from llama_index_embed_plus.models.lora import lora_base, lora_settings
from llama_index_embed_plus.models.pooling import ATTENTION, Stretch, apply_head, pool, pool_stretches, unit
from llama_index_embed_plus.models.spec import EncoderSpec
from llama_index_embed_plus.models.weights import tensors_of, weight_files
from qdrant_tools.client.forks import undivided
from qdrant_tools.errors import NotSupportedError, PlusError, UsageError, first_line
from qdrant_tools.records import Vectors

try:
    import torch
    import transformers
except ImportError as error:
    raise MissingExtraError("running a checkpoint with torch", extra="train") from error

_BUILDS = {"float32": "torch-fp32", "bfloat16": "torch-bf16", "float16": "torch-fp16"}
_ENCODER_HALVES = ("t5", "mt5", "umt5", "t5gemma")
"""Encoder-decoder families of which only the encoder embeds texts, as in sentence-transformers."""


logger = logging.getLogger(__name__)


class _Child:
    """What this process is to the one it was forked from."""

    generation = 0
    """How many forks lie between it and the process that imported torch."""
    lost_threads = False
    """Whether it has less threads than its parent, and nobody was told."""
    thread = threading.local()


def _lose_threads() -> None:
    _Child.generation += 1
    _Child.lost_threads = torch.get_num_threads() > 1
    torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_lose_threads)


def check_child(device: torch.device) -> None:
    """Keep torch to one thread in a forked child, and say so once.

    OpenMP would wait for ever for the threads of the parent, which a child has not.

    Raises:
        NotSupportedError: it wants a GPU that its parent has used, which CUDA forbids.
    """
    if device.type == "cuda" and torch.cuda._is_in_bad_fork():
        raise NotSupportedError(
            "this process was forked after its parent had used the GPU, which CUDA does not allow: start it with "
            "'spawn', open the model after the fork only, or use device='cpu'"
        )
    if getattr(_Child.thread, "generation", 0) != _Child.generation:
        # again in every thread: OpenMP counts for each of them
        torch.set_num_threads(1)
        _Child.thread.generation = _Child.generation
    if _Child.lost_threads:
        _Child.lost_threads = False
        logger.warning(
            "this process was forked from one that had loaded torch: torch has one thread here, and gives the same "
            "vectors to rounding; for more, open the model after the fork only, or start the process with 'spawn'"
        )


_SMALL = 10_000_000
"""Numbers that a model may make for itself, such as tables of positions and masks."""


class PooledEncoder(torch.nn.Module):
    """(ids, mask) -> vectors: transformer, pooling, head, truncation, normalisation. `export.trace` records it."""

    def __init__(self, folder: Path, spec: EncoderSpec, *, trust_remote_code: bool = False) -> None:
        super().__init__()
        self.spec = spec
        family = family_of(folder)
        if family is not None and family.needs_code and not trust_remote_code:
            raise UsageError(
                f"{folder}: this model's architecture is code in its own repository ({family.source}); read that code, "
                "then allow it in Python with Runtime(trust_remote_code=True): no command does"
            )
        self.transformer = load_transformer(
            folder / spec.transformer_path, attention=ATTENTION in spec.pooling, trust_remote_code=trust_remote_code
        )
        self.head = torch.nn.ModuleList()
        for step in spec.head:
            files = weight_files(folder / step.path) if step.path else []
            tensors = {name: t for file in files for name, t in tensors_of(file).items()}
            # As buffers they move to the device with the rest, and are written into a traced graph. Torch allows no dot
            # in the name of a buffer; `_named` puts it back.
            holder = torch.nn.Module()
            for name, tensor in tensors.items():
                holder.register_buffer(name.replace(".", "_"), torch.from_numpy(tensor.read()))
            self.head.append(holder)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor, prompt_tokens: Any = 0) -> Any:
        """ids, mask (n, t) -> (n, dimension)."""
        states, weights = self.states(ids, mask)
        return self.finish(pool(states, mask, self.spec.pooling, prompt_tokens=prompt_tokens, attention=weights))

    def states(self, ids: torch.Tensor, mask: torch.Tensor) -> tuple[Any, Any]:
        """ids, mask (n, t) -> the states of the tokens (n, t, h), and the last attention if the pooling reads it."""
        attention = ATTENTION in self.spec.pooling
        output = self.transformer(
            input_ids=ids, attention_mask=mask, **({"output_attentions": True} if attention else {})
        )
        weights = output.attentions[-1] if attention else None
        return output.last_hidden_state.float(), weights  # sums over many tokens need float32

    def finish(self, vectors: Any) -> Any:
        """Pooled states (m, h) -> (m, dimension)."""
        vectors = apply_head(vectors, self.spec.head, [_named(holder) for holder in self.head])
        if self.spec.truncate_dim:
            vectors = vectors[:, : self.spec.truncate_dim]
        return unit(vectors) if self.spec.normalize else vectors


class TorchBackend:
    """Token batches -> vectors on one device. Safe from many threads: the module does not change after loading."""

    workers = 1  # torch itself spreads one batch over all cores

    def __init__(
        self, folder: Path, spec: EncoderSpec, *, device: str | None = None, runtime: Runtime | None = None
    ) -> None:
        runtime = runtime or Runtime()
        if runtime.threads is not None:
            raise UsageError("threads is a setting of ONNX builds; torch has one for all models, torch.set_num_threads")
        self.folder = folder
        self.build = _BUILDS[runtime.dtype]
        self.device = pick_device(device)
        check_child(self.device)
        self.module = PooledEncoder(folder, spec, trust_remote_code=runtime.trust_remote_code).eval()
        # pooling and head stay in float32
        self.module.transformer.to(getattr(torch, runtime.dtype))
        self.module.to(self.device)
        try:
            self._words = int(self.module.transformer.get_input_embeddings().num_embeddings)
        except (AttributeError, NotImplementedError) as error:
            raise NotSupportedError(
                f"{folder}: its {spec.model_type!r} has no word embeddings: no model of texts"
            ) from error
        self.budget = runtime.batch_tokens or (1024 if self.device.type == "cpu" else 32_768)

    def __call__(self, batch: TokenBatch, *, alone: bool) -> Vectors:
        return self._run(batch, lambda ids, mask: self.module(ids, mask, batch.prompt_tokens))

    def stretches(self, batch: TokenBatch, stretches: Sequence[Stretch], *, alone: bool) -> Vectors:
        def run(ids: torch.Tensor, mask: torch.Tensor) -> Any:
            return self.module.finish(pool_stretches(self.module.states(ids, mask)[0], stretches))

        return self._run(batch, run)

    def _run(self, batch: TokenBatch, compute: Callable[[torch.Tensor, torch.Tensor], Any]) -> Vectors:
        if batch.ids.size and int(batch.ids.max()) >= self._words:  # a GPU would end the whole process
            raise DamagedModelError(
                f"the tokenizer gives word {batch.ids.max()}, the model has {self._words}: it belongs to another model"
            )
        ids, mask = torch.from_numpy(batch.ids), torch.from_numpy(batch.mask)
        check_child(self.device)
        try:
            # libraries below torch hold locks of their own while they compute
            with undivided(), torch.inference_mode():
                vectors = compute(ids.to(self.device), mask.to(self.device))
            return np.asarray(vectors.cpu().numpy(), np.float32)
        except Exception as error:  # layers that do not fit each other end in errors of every kind
            # on a CPU only the message says it
            if isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "allocate memory" in str(error):
                raise ModelError(out_of_memory_message(batch, str(self.device))) from error
            shape = batch.ids.shape
            raise ModelError(f"{self.folder} cannot be run on {shape} tokens ({first_line(error)})") from error


def pick_device(device: str | None) -> torch.device:
    """`device`, or the best there is. Raises UsageError for a device that torch does not have here."""
    if device is None:
        has_mps = torch.backends.mps.is_available()
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if has_mps else "cpu")
    try:
        picked = torch.device(device)
        # only using a device shows whether it is there; torch without CUDA says so by an AssertionError
        torch.empty(0, device=picked)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"device {device!r} is not available here ({first_line(error)}); use 'cpu'") from error
    return picked


def load_transformer(inner: Path, *, attention: bool = False, trust_remote_code: bool = False) -> Any:
    """Load the transformer of a folder in float32. Raises DamagedModelError naming what does not fit."""
    if has_lora(inner):
        return _load_with_lora(inner, attention=attention, trust_remote_code=trust_remote_code)
    if not weight_files(inner):
        raise DamagedModelError(f"{inner / 'model.safetensors'} is missing; only safetensors weights are read")
    with quiet():
        return _load(inner, attention=attention, trust_remote_code=trust_remote_code)


def _load_with_lora(inner: Path, *, attention: bool, trust_remote_code: bool) -> Any:
    """Load the base and add the matrices to its weights: the same vectors, and nothing more to compute."""
    model = load_transformer(lora_base(inner), attention=attention, trust_remote_code=trust_remote_code)
    try:
        with quiet():
            from peft import LoraConfig

            config = LoraConfig(**lora_settings(inner), task_type="FEATURE_EXTRACTION")
            model.load_adapter(str(inner), peft_config=config)
    except ImportError as error:
        raise MissingExtraError("running a model with its LoRA kept apart", extra="train") from error
    except PlusError:
        raise
    except Exception as error:  # odd values end in errors of every kind, deep in peft
        raise DamagedModelError(f"the LoRA in {inner} does not fit its base: {first_line(error)}") from error
    merge_lora(model)
    return model


def merge_lora(transformer: Any) -> None:
    """Add each low-rank product to its weight and remove the matrices."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [(name, layer) for name, layer in transformer.named_modules() if isinstance(layer, BaseTunerLayer)]
    for name, layer in layers:
        # safe: refused if the sum holds a NaN or infinity
        layer.merge(safe_merge=True)
        parent, _, child = name.rpartition(".")
        setattr(transformer.get_submodule(parent), child, layer.get_base_layer())
    transformer._hf_peft_config_loaded = False  # else transformers would save matrices instead of weights
    # peft froze the weights of the base
    for parameter in transformer.parameters():
        parameter.requires_grad_(True)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers from printing bars and tables while a model loads."""
    settings = transformers.utils.logging
    level, bars = settings.get_verbosity(), settings.is_progress_bar_enabled()
    settings.set_verbosity(logging.CRITICAL)  # its errors are raised as well, and print a stranger's config
    settings.disable_progress_bar()
    try:
        yield
    finally:
        settings.set_verbosity(level)
        if bars:
            settings.enable_progress_bar()


@contextmanager
def within_weights(folder: Path, files: Sequence[Path]) -> Iterator[None]:
    """While a library makes the model in `folder`: no more modules and numbers than the weights in `files` may need.

    A config can ask for millions of layers under names that only its own model type knows. Raises DamagedModelError.
    """
    shapes = [tensor.shape for file in files for tensor in tensors_of(file).values()]
    elements = sum(map(math.prod, shapes))
    # what is tied counts several times, heads may be missing, decoders keep a mask for every layer
    left = {"layers": 2000 + 8 * len(shapes), "numbers": (1 << 24) + 4 * elements, "bytes": (1 << 26) + 16 * elements}
    maker = threading.get_ident()

    def take(what: str, count: int) -> None:
        if threading.get_ident() == maker:
            left[what] -= count
            if left[what] < 0:
                raise DamagedModelError(
                    f"{folder / 'config.json'} asks for a model far larger than its weights, which hold "
                    f"{elements:,} numbers: one of them is wrong"
                )

    hooks = torch.nn.modules.module
    handles = [
        hooks.register_module_module_registration_hook(lambda *_: take("layers", 1)),
        hooks.register_module_parameter_registration_hook(lambda m, n, value: take("numbers", _numbers(value))),
        hooks.register_module_buffer_registration_hook(lambda m, n, value: take("bytes", _numbers(value))),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _numbers(value: torch.Tensor | None) -> int:
    return 0 if value is None else value.numel()


def require_known(model_type: Any) -> None:
    """Raise NotSupportedError for a type that has no model of its own: transformers takes seconds to say so."""
    auto, model_type = transformers.models.auto, str(model_type)[:40]
    known = model_type in auto.modeling_auto.MODEL_MAPPING_NAMES
    if not known and model_type in auto.configuration_auto.CONFIG_MAPPING_NAMES:
        raise NotSupportedError(f"config.json describes a {model_type!r}, which is no encoder of texts")


def _load(inner: Path, *, attention: bool, trust_remote_code: bool) -> Any:
    try:
        config = transformers.AutoConfig.from_pretrained(
            inner, local_files_only=True, trust_remote_code=trust_remote_code
        )
        if not trust_remote_code:
            require_known(config.model_type)
        # what a file asks for may need another library, which fetches it: see `received`
        config._attn_implementation = None
        config.use_cache = False  # a decoder would keep keys and values for a next token that never comes
        loader = (
            transformers.AutoModelForTextEncoding if config.model_type in _ENCODER_HALVES else transformers.AutoModel
        )
        if not trust_remote_code:
            _check_room(inner, loader, config)
        model, report = loader.from_pretrained(
            inner,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
            # the faster kernels do not return the attention that this pooling reads
            **({"attn_implementation": "eager"} if attention else {}),
        )
    except PlusError:
        raise
    except Exception as error:  # values are checked only where they are used, so odd ones end in errors of every kind
        raise DamagedModelError(f"{inner} cannot be opened by transformers: {first_line(error)}") from error
    # Nothing here reads the pooler, and many checkpoints leave it out.
    missing = sorted(name for name in report["missing_keys"] if not name.startswith("pooler."))
    if missing or report.get("mismatched_keys"):
        what = missing[0] if missing else sorted(map(str, report["mismatched_keys"]))[0]
        raise DamagedModelError(
            f"{inner}: the weights lack {what!r}, which config.json asks for; one of them is another model's"
        )
    return model


def _check_room(inner: Path, loader: Any, config: Any) -> None:
    """Refuse a config that asks for more than its weights hold, before there is room for any."""
    try:
        with torch.device("meta"), within_weights(inner, weight_files(inner)):  # tensors without numbers
            planned = loader.from_config(copy.deepcopy(config))
    except PlusError:
        raise
    except Exception:  # transformers will say what is wrong with it, or can make it in another way
        return
    asked = sum(tensor.numel() for tensor in (*planned.parameters(), *planned.buffers()))
    held = sum(math.prod(tensor.shape) for file in weight_files(inner) for tensor in tensors_of(file).values())
    if asked > 2 * held + _SMALL:
        raise DamagedModelError(
            f"{inner / 'config.json'} asks for {asked:,} numbers, the weights hold {held:,}: one of them is wrong"
        )


def _named(holder: torch.nn.Module) -> dict[str, Any]:
    """Tensors of a head layer under the names its file has: `linear.weight`."""
    return {name.replace("_", ".", 1): tensor for name, tensor in holder.named_buffers()}
