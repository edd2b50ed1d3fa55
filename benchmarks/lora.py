"""Which layers should LoRA change, and how fast? Gains on dev queries; no test query is looked at.

    python benchmarks/lora.py --data demo|FOLDER [--configs "qv 2e-4,all 1e-3,..."] [--seeds 0,1] [--out FILE]

FOLDER is a data set in BEIR's layout, of which the train queries are used, as in `finetune.py`; so are those of `demo`.
250 of them are the dev queries, 256 others are trained on for one epoch (batches of 32, one hard negative, texts cut at
32 tokens), without those that share words or an answer with a dev query. Dev queries are searched exactly among 400
passages, all dev answers with them, so that figures lie far above those of a whole collection. A configuration is
`LAYERS RATE` or `LAYERS RATE RANK`: `qv` changes query and value, `all` every linear layer, `full` every weight.
`interval` is that of the difference to the base in nDCG@10, 95 %, paired bootstrap over queries. Results are added to
`--out` as they come, and what stands there is not measured again. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from finetune import Split, _beir, _demo, _limited, _without_leaks

from llama_index_embed_plus import open_encoder
from llama_index_embed_plus.models.hub import resolve
from llama_index_embed_plus.models.spec import Overrides
from llama_index_embed_plus.training import train
from llama_index_embed_plus.training.settings import LoraSettings, TrainSettings
from qdrant_tools.metrics import ndcg, paired_bootstrap
from qdrant_tools.records import Example, ScoredText, Vectors

CONFIGS = "all 1e-3,all 5e-4 64,qv 3e-3,all 2e-3,full 5e-5"
DEV, TRAIN, PASSAGES, TOKENS, MAX_SHARE = 250, 256, 400, 32, 0.95
LAYERS = {"qv": ("query", "value"), "all": (), "full": ()}


@dataclass(frozen=True)
class Data:
    corpus: Mapping[str, str]
    train: Split
    dev: Split
    searched: Sequence[str]


def read_data(source: str) -> Data:
    corpus, given, test = _demo() if source == "demo" else _beir(Path(source))
    queries = _limited(_without_leaks(given, test), None)
    dev = {query: queries[query] for query in list(queries)[:DEV]}
    others = {query: queries[query] for query in list(queries)[DEV : DEV + 4 * TRAIN]}
    kept = _without_leaks(others, dev)
    train_split = {query: kept[query] for query in list(kept)[:TRAIN]}
    wanted = {answer for _, answers in dev.values() for answer in answers}
    taught = {answer for _, answers in train_split.values() for answer in answers}
    known = wanted | taught
    rest = [*sorted(taught - wanted), *(key for key in corpus if key not in known)]
    drawn = [str(key) for key in np.random.default_rng(0).permutation(rest)][: max(0, PASSAGES - len(wanted))]
    return Data(corpus, train_split, dev, [*sorted(wanted), *drawn])


def opened(folder: Path) -> Any:
    encoder = open_encoder(folder, backend="torch", device="cpu", overrides=Overrides(max_tokens=TOKENS))
    encoder.quiet = True
    return encoder


def measured(encoder: Any, data: Data) -> dict[str, float]:
    passages: Vectors = encoder.encode_passages([data.corpus[key] for key in data.searched])
    scores = encoder.encode_queries([text for text, _ in data.dev.values()]) @ passages.T
    run = {
        query: {data.searched[column]: float(row[column]) for column in np.argsort(-row)[:10]}
        for query, row in zip(data.dev, scores, strict=True)
    }
    return dict(ndcg({query: dict.fromkeys(ids, 1) for query, (_, ids) in data.dev.items()}, run, k=10))


def with_negatives(encoder: Any, data: Data) -> list[Example]:
    """Each query with its first answer and the nearest passage up to 95 % of the answer's score."""
    keys = sorted({*data.searched, *(key for _, ids in data.train.values() for key in ids)})
    vectors = encoder.encode_passages([data.corpus[key] for key in keys])
    row_of = {key: row for row, key in enumerate(keys)}
    examples = []
    asked = encoder.encode_queries([text for text, _ in data.train.values()])
    for (text, ids), query in zip(data.train.values(), asked, strict=True):
        scores = vectors @ query
        most = MAX_SHARE * max(scores[row_of[key]] for key in ids)
        near = next(keys[row] for row in np.argsort(-scores) if keys[row] not in ids and scores[row] <= most)
        answer, negative = ((ScoredText(key, data.corpus[key]),) for key in (ids[0], near))
        examples.append(Example(text, answer, negative))
    return examples


def settings_of(config: str, seed: int) -> TrainSettings:
    layers, rate, *rank = config.split()
    width = int(rank[0]) if rank else 16
    return TrainSettings(
        method="full" if layers == "full" else "lora",
        loss="multiple_negatives",
        learning_rate=float(rate),
        negatives=1,
        max_tokens=TOKENS,
        seed=seed,
        checkpoint_every=0,
        device="cpu",
        lora=LoraSettings(rank=width, targets=LAYERS[layers]),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", default="all-MiniLM-L6-v2")
    parser.add_argument("--configs", default=CONFIGS)
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    out = arguments.out or Path(f"lora-{Path(arguments.data).name}.jsonl")
    rows = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    data, base = read_data(arguments.data), resolve(arguments.model)
    encoder = opened(base)
    before, examples = measured(encoder, data), with_negatives(encoder, data)
    for seed in map(int, arguments.seeds.split(",")):
        for config in arguments.configs.split(","):
            if any((row["config"], row["seed"]) == (config, seed) for row in rows):
                continue
            start = time.process_time()
            with tempfile.TemporaryDirectory() as folder:
                train(base, examples, Path(folder) / "tuned", settings_of(config, seed))
                seconds = time.process_time() - start
                gain = paired_bootstrap(before, measured(opened(Path(folder) / "tuned"), data), seed=0)
            interval = [round(value, 4) for value in (gain.difference, gain.low, gain.high)]
            rows.append({"config": config, "seed": seed, "interval": interval, "cpu_seconds": round(seconds, 1)})
            print(rows[-1], flush=True)
            with out.open("a") as file:
                file.write(json.dumps(rows[-1]) + "\n")
    sizes = {"train": len(data.train), "dev": len(data.dev), "passages": len(data.searched)}
    print(json.dumps({"data": arguments.data, "base": float(np.mean([*before.values()])), **sizes, "rows": rows}))


if __name__ == "__main__":
    main()
