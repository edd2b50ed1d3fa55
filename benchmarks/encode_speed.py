"""How fast texts become vectors: our builds against LlamaIndex's HuggingFaceEmbedding and sentence-transformers.

All run the same checkpoint (all-MiniLM-L6-v2) over the same texts, the documentation of the running interpreter's
standard library, in one process and in turn, round by round; what is printed are medians over the rounds. Tokenising is
part of every figure. Peers run as their users run them: HuggingFaceEmbedding with its defaults, sentence-transformers
with the batch size that is fastest here. Reported:

- documents per second, in bulk, and through `PlusEmbedding.get_text_embedding_batch` as well;
- median milliseconds of one query; each contestant is asked ten in a row, then the next one, and the first of a row
  does not count: another library's threads may still be spinning on the cores then;
- queries per second when 64 callers ask `PlusEmbedding` at once, and when one asks after the other;
- int8 against fp32: cosine, and the largest difference between a text alone and in a batch;
- which share of the bound is reached that the matrix products of the graph alone would set, for int8 and for fp32
  (measured here, on one thread per core). How far these bounds are apart, and both from torch, is the machine's.

The last line is one JSON document. A peer that is not installed is left out of it; HuggingFaceEmbedding comes with
`pip install --no-deps llama-index-embeddings-huggingface`.

    python benchmarks/encode_speed.py [--texts 600] [--rounds 3] [--queries 100] [--model all-MiniLM-L6-v2]
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import logging
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from tqdm import tqdm  # type: ignore[import-untyped]

from llama_index_embed_plus import PlusEmbedding
from llama_index_embed_plus.demo.corpus import load_docstrings
from llama_index_embed_plus.encoders.onnx_encoder import cores
from llama_index_embed_plus.encoders.open import BackendName, open_encoder
from llama_index_embed_plus.encoders.text_encoder import TextEncoder
from llama_index_embed_plus.export.export import export_onnx
from llama_index_embed_plus.export.onnx_writer import GraphWriter
from llama_index_embed_plus.models.hub import resolve

CALLERS, IN_A_ROW, GEMM_ROWS = 64, 10, 512
BATCH_SIZES = (4, 8, 16, 32, 64, 128)


@dataclass(frozen=True)
class Contestant:
    """One way to embed: many texts, and one query."""

    embed: Callable[[list[str]], Any]
    ask: Callable[[str], Any]


def contestants(folder: Path, artifact: Path, probe: list[str]) -> dict[str, Contestant]:
    """Everything that runs, by its name in the report, warmed up."""
    found = peers(folder, probe)
    ours: list[tuple[str, Path, BackendName]] = [
        ("torch", folder, "torch"),
        ("onnx_fp32", artifact, "onnx-fp32"),
        ("onnx_int8", artifact, "onnx-int8"),
    ]
    for name, place, backend in ours:
        encoder = open_encoder(place, backend=backend)
        found[name] = Contestant(encoder.encode_passages, partial(ask, encoder))
    plus = PlusEmbedding(artifact, backend="onnx-int8")
    found["plus_embedding"] = Contestant(plus.get_text_embedding_batch, plus.get_query_embedding)
    for contestant in found.values():
        contestant.embed(probe[:16])
    return found


def ask(encoder: TextEncoder, query: str) -> Any:
    return encoder.encode_queries([query])


def peers(folder: Path, probe: list[str]) -> dict[str, Contestant]:
    from sentence_transformers import SentenceTransformer

    found = {}
    if importlib.util.find_spec("llama_index.embeddings.huggingface"):
        from llama_index.embeddings.huggingface import HuggingFaceEmbedding

        theirs = HuggingFaceEmbedding(model_name=str(folder), device="cpu")
        found["llamaindex_huggingface"] = Contestant(theirs.get_text_embedding_batch, theirs.get_query_embedding)
    model = SentenceTransformer(str(folder), device="cpu")
    size = min(BATCH_SIZES, key=lambda size: seconds(lambda: model.encode(probe, batch_size=size)))
    print(f"sentence-transformers is fastest with batches of {size}")
    found["sentence_transformers"] = Contestant(
        lambda texts: model.encode(texts, batch_size=size), lambda query: model.encode([query])
    )
    return found


def seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def bulk_rates(found: dict[str, Contestant], texts: list[str], rounds: int) -> dict[str, float]:
    """Median texts per second; the contestants take turns, in another order each round."""
    rates: dict[str, list[float]] = {name: [] for name in found}
    names = list(found)
    for turn in tqdm(range(rounds), desc="bulk", unit="round"):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            start = time.perf_counter()
            found[name].embed(texts)
            rates[name].append(len(texts) / (time.perf_counter() - start))
    return {name: round(statistics.median(values), 1) for name, values in rates.items()}


def query_p50_ms(found: dict[str, Contestant], queries: list[str]) -> dict[str, float]:
    """Median milliseconds of one query; the contestants take turns of `IN_A_ROW` queries, less the first of each."""
    times: dict[str, list[float]] = {name: [] for name in found}
    for row in tqdm([queries[i : i + IN_A_ROW] for i in range(0, len(queries), IN_A_ROW)], desc="queries", unit="row"):
        for name, contestant in found.items():
            times[name] += [1000 * seconds(partial(contestant.ask, query)) for query in row][1:]
    return {name: round(statistics.median(values), 3) for name, values in times.items()}


def query_rates(plus: PlusEmbedding, queries: list[str], rounds: int) -> tuple[float, float]:
    """Median queries per second, one after the other and from 64 callers at once, in turn."""

    async def together() -> None:
        waiting = iter(queries)

        async def caller() -> None:
            for query in waiting:
                await plus.aget_query_embedding(query)

        await asyncio.gather(*(caller() for _ in range(CALLERS)))

    one_by_one, at_once = [], []
    for _ in range(rounds + 1):
        one_by_one.append(len(queries) / seconds(lambda: [plus.get_query_embedding(query) for query in queries]))
        at_once.append(len(queries) / seconds(lambda: asyncio.run(together())))
    return round(statistics.median(one_by_one[1:]), 1), round(statistics.median(at_once[1:]), 1)


def gemm_tokens_per_second(graph: Path, operator: str) -> float:
    """Tokens per second if the graph did nothing but its products with weights, on one thread per core."""
    network = onnx.load(graph).graph
    weights = {tensor.name: tensor for tensor in network.initializer}
    found = [node.input[1] for node in network.node if node.op_type == operator and node.input[1] in weights]
    shapes = [tuple(weights[name].dims) for name in found]
    writer = GraphWriter()
    for number, (width, columns) in enumerate(shapes):
        random = np.random.default_rng(number)
        ids = writer("Expand", "input_ids", np.array([GEMM_ROWS, width]))
        if operator == "MatMulIntegerToFloat":
            steps = writer("Cast", ids, to=onnx.TensorProto.UINT8)
            matrix = writer.constant(random.integers(-127, 128, (width, columns), np.int8))
            scales, bias = np.full(columns, 1e-3, np.float32), np.full(columns, 0.5, np.float32)
            read = (steps, matrix, np.float32(1), scales, np.uint8(128), "", bias)
            writer.microsoft(operator, *read, output=f"product{number}")
        else:
            floats = writer("Cast", ids, to=onnx.TensorProto.FLOAT)
            matrix = writer.constant(random.standard_normal((width, columns), np.float32))
            writer(operator, floats, matrix, output=f"product{number}")
    outputs = {f"product{number}": None for number in range(len(shapes))}
    session = single_threaded(writer.model(outputs, inputs=("input_ids",)).SerializeToString())
    feed = {"input_ids": np.full((GEMM_ROWS, 1), 100, np.int64)}
    threads = cores()
    with ThreadPoolExecutor(threads) as pool:

        def run() -> None:
            list(pool.map(lambda _: session.run(None, feed), range(2 * threads)))

        run()
        best = min(seconds(run) for _ in range(5))
    return 2 * threads * GEMM_ROWS / best


def single_threaded(model: bytes) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def faithfulness(artifact: Path, texts: list[str]) -> tuple[dict[str, float], int]:
    """int8 against fp32, alone against in a batch; and how many tokens the texts have."""
    float32, int8 = open_encoder(artifact, backend="onnx-fp32"), open_encoder(artifact, backend="onnx-int8")
    vectors = int8.encode_passages(texts)
    cosine = (vectors * float32.encode_passages(texts)).sum(axis=1)
    some = range(0, len(texts), max(1, len(texts) // 64))
    alone = np.concatenate([int8.encode_passages([texts[i]]) for i in some])
    figures = {
        "cosine_mean": round(float(cosine.mean()), 5),
        "cosine_min": round(float(cosine.min()), 5),
        "batch_max_abs_difference": float(np.abs(alone - vectors[list(some)]).max()),
    }
    return figures, sum(len(ids) for ids in int8.tokenizer.cut(texts).ids)


def measure(model: str, texts: list[str], queries: list[str], *, rounds: int) -> dict[str, Any]:
    folder = resolve(model)
    with tempfile.TemporaryDirectory() as scratch:
        artifact = Path(scratch) / "artifact"
        export_onnx(folder, artifact, precision="int8")
        found = contestants(folder, artifact, texts[:100])
        rates = bulk_rates(found, texts, rounds)
        latencies = query_p50_ms(found, queries)
        one_by_one, at_once = query_rates(PlusEmbedding(artifact, backend="onnx-int8"), queries * 4, rounds)
        figures, tokens = faithfulness(artifact, texts)
        int8_bound = gemm_tokens_per_second(artifact / "onnx" / "model_int8.onnx", "MatMulIntegerToFloat")
        fp32_bound = gemm_tokens_per_second(artifact / "onnx" / "model.onnx", "MatMul")
    length = tokens / len(texts)
    return {
        "docs_per_second": rates,
        "query_p50_ms": latencies,
        "concurrent_queries_per_second": at_once,
        "sequential_queries_per_second": one_by_one,
        "int8": figures | {"share_of_gemm_bound": round(rates["onnx_int8"] * length / int8_bound, 3)},
        "fp32": {"share_of_gemm_bound": round(rates["onnx_fp32"] * length / fp32_bound, 3)},
        "gemm_bound_docs_per_second": {"int8": round(int8_bound / length, 1), "fp32": round(fp32_bound / length, 1)},
        "texts": len(texts),
        "tokens": tokens,
        "rounds": rounds,
        "machine": f"{platform.machine()} {platform.system()}, {cores()} cores, Python {platform.python_version()}",
    }


def report(result: dict[str, Any]) -> None:
    rates, latencies = result["docs_per_second"], result["query_p50_ms"]
    for name, rate in rates.items():
        print(f"{name:24} {rate:8.1f} texts/s   one query {latencies[name]:7.2f} ms")
    for name in ("llamaindex_huggingface", "sentence_transformers", "onnx_fp32"):
        if name in rates:
            print(f"int8 is {rates['onnx_int8'] / rates[name]:.2f} x as fast as {name}")
    for name, bound in result["gemm_bound_docs_per_second"].items():
        print(f"the {name} matrix products alone would allow {bound:.1f} texts/s")
    at_once, one_by_one = result["concurrent_queries_per_second"], result["sequential_queries_per_second"]
    print(f"{CALLERS} callers at once: {at_once:.0f} queries/s, one after the other: {one_by_one:.0f}")
    print(json.dumps(result))


def sample(texts: Sequence[str], count: int) -> list[str]:
    """`count` of the texts, evenly spread."""
    return list(texts[:: max(1, len(texts) // count)][:count])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="all-MiniLM-L6-v2")
    parser.add_argument("--texts", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--queries", type=int, default=100)
    arguments = parser.parse_args()
    logging.getLogger("llama_index_embed_plus").setLevel(logging.ERROR)  # that long texts are cut is known here
    corpus = load_docstrings()
    texts = sample([passage.text for passage in corpus.passages], arguments.texts)
    queries = sample([query.text for query in corpus.held_out.queries], arguments.queries)
    report(measure(arguments.model, texts, queries, rounds=arguments.rounds))


if __name__ == "__main__":
    main()
