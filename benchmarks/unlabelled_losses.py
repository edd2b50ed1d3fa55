"""What do the losses that need no labels gain on the similarity of sentences, and at which rate?

    python benchmarks/unlabelled_losses.py --data stsb [--configs "simcse 5e-5,..."] [--seeds 0] [--out FILE]

The folder holds STS-Benchmark as `train.tsv`, `dev.tsv` and `test.tsv`, with columns sentence1, sentence2 and score. A
model that is good at this already has nothing to gain, so that the base is a worse one: the weights of `--model` with
normal noise of `--noise` times their standard deviation, matrix by matrix. It is trained for one epoch on the first
`--texts` different sentences of the train file, in batches of 32. A configuration is `LOSS RATE`. Measured is
Spearman's correlation of cosine and score, on `--splits`. Results are added to `--out` as they come, and what stands
there is not measured again. The last line is JSON.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from llama_index_embed_plus import open_encoder
from llama_index_embed_plus.models.hub import resolve
from llama_index_embed_plus.training import TrainingData, train
from llama_index_embed_plus.training.proof.forgetting import spearman
from llama_index_embed_plus.training.settings import TrainSettings

CONFIGS = "simcse 5e-5,simcse 1e-5,contrastive_tension 5e-5,contrastive_tension 1e-5"


def rows_of(file: Path) -> list[tuple[str, str, float]]:
    with file.open(encoding="utf-8", newline="") as opened:
        rows = csv.DictReader(opened, delimiter="\t", quoting=csv.QUOTE_NONE)
        return [(row["sentence1"], row["sentence2"], float(row["score"])) for row in rows]


def noised(model: Path, out: Path, share: float) -> Path:
    """A copy of the model, the matrices of which are a little wrong."""
    shutil.copytree(model, out)
    random, weights = np.random.default_rng(0), load_file(out / "model.safetensors")
    for name, weight in sorted(weights.items()):
        if weight.ndim == 2:
            noise = random.standard_normal(weight.shape, dtype=np.float32) * np.float32(share * weight.std())
            weights[name] = weight + noise
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    return out


def measured(model: Path, pairs: dict[str, list[tuple[str, str, float]]]) -> dict[str, float]:
    encoder: Any = open_encoder(model, backend="torch", device="cpu")
    encoder.quiet = True
    found = {}
    for split, rows in pairs.items():
        first, second = (encoder.encode_queries([row[side] for row in rows]) for side in (0, 1))
        cosines = np.einsum("ij,ij->i", first, second)
        found[split] = round(float(spearman(cosines[None], np.array([[row[2] for row in rows]]))[0]), 4)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="all-MiniLM-L6-v2")
    parser.add_argument("--configs", default=CONFIGS)
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--splits", nargs="+", default=["dev"], choices=["dev", "test"])
    parser.add_argument("--noise", type=float, default=0.5)
    parser.add_argument("--texts", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=Path("unlabelled-losses.jsonl"))
    arguments = parser.parse_args()
    rows = [json.loads(line) for line in arguments.out.read_text().splitlines()] if arguments.out.exists() else []
    pairs = {split: rows_of(arguments.data / f"{split}.tsv") for split in arguments.splits}
    held = [row for split in ("dev", "test") for row in rows_of(arguments.data / f"{split}.tsv")]
    apart = {text for row in held for text in row[:2]}
    known = dict.fromkeys(text for row in rows_of(arguments.data / "train.tsv") for text in row[:2])
    texts = [text for text in known if text not in apart][: arguments.texts]
    with tempfile.TemporaryDirectory() as folder:
        base = noised(resolve(arguments.model), Path(folder) / "base", arguments.noise)
        before = measured(base, pairs)
        print("base", before, flush=True)
        for seed in map(int, arguments.seeds.split(",")):
            for config in filter(None, arguments.configs.split(",")):
                if any((row["config"], row["seed"], row["texts"]) == (config, seed, len(texts)) for row in rows):
                    continue
                loss, rate = config.split()
                asked = {"loss": loss, "learning_rate": float(rate), "seed": seed}
                settings = TrainSettings(**asked, max_tokens=64, checkpoint_every=0, device="cpu")
                start, out = time.process_time(), Path(folder) / f"{config}-{seed}".replace(" ", "-")
                train(base, TrainingData.of(texts), out, settings)
                seconds = round(time.process_time() - start, 1)
                row = {"config": config, "seed": seed, "texts": len(texts), **measured(out, pairs)}
                rows.append(row | {"cpu_seconds": seconds})
                print(rows[-1], flush=True)
                with arguments.out.open("a") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
                shutil.rmtree(out)
    print(json.dumps({"base": before, "noise": arguments.noise, "rows": rows}))


if __name__ == "__main__":
    main()
