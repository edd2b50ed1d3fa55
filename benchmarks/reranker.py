"""Does a small cross-encoder that is trained on the mined examples rank better than vectors with an adapter?

    python benchmarks/reranker.py --data demo [--queries 200] [--tests 150] [--epochs 1] [--top 20] [--vectors FOLDER]

`judged_texts.py` says which collections, which need train queries here. The cross-encoder is the model's own
checkpoint, which reads query and passage as one text; the mean of its last states and a linear layer, at first 0, give
the score. It is trained on as many train queries: the first answer, and three passages drawn from the 30 nearest that
are none, by the cross-entropy of (cosine under the label-free map / 0.05 + score). So it begins with the ranking of the
vectors, and learns what they get wrong; the embeddings of words stay. An adapter is fitted on the same queries. Then
the first passages of each test query under the adapter are ranked

- `adapter`: as they are;
- `reranker`: by the score alone;
- `both`: by cosine / 0.05 + score.

Gains in nDCG@10 over the base, and over the adapter, with 95 % intervals; processor seconds of training, and the
milliseconds of one query in float32 on one thread. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from judged_texts import Judged, change, figures, parser, read
from transformers import AutoModel, AutoTokenizer

from llama_index_embed_plus.models.hub import resolve
from llama_index_embed_plus.training.adapter.arrays import AdapterData, Numbers, Rows
from llama_index_embed_plus.training.adapter.fit import fit_map
from llama_index_embed_plus.training.adapter.ranking import DEPTH, nearest
from llama_index_embed_plus.training.adapter.unlabelled import by_pseudo_queries, whitening
from llama_index_embed_plus.training.settings import AdapterSettings
from qdrant_tools.records import Vectors
from qdrant_tools.validation import unit_rows

MINED, NEGATIVES, AT_ONCE, TEMPERATURE = 30, 3, 32, 0.05
RATE, HEAD_RATE = 5e-5, 1e-3
_TESTS = 20


class Reranker:
    def __init__(self, model: str, tokens: int) -> None:
        folder = str(resolve(model))
        self.encoder = AutoModel.from_pretrained(folder, attn_implementation="sdpa")
        self.tokenizer, self.tokens = AutoTokenizer.from_pretrained(folder), tokens
        self.head = torch.nn.Linear(self.encoder.config.hidden_size, 1)
        torch.nn.init.zeros_(self.head.weight)
        torch.nn.init.zeros_(self.head.bias)

    def logits(self, pairs: Sequence[tuple[str, str]]) -> torch.Tensor:
        queries, passages = zip(*pairs, strict=True)
        batch = self.tokenizer(
            queries, passages, truncation="longest_first", max_length=self.tokens, padding=True, return_tensors="pt"
        )
        states, mask = self.encoder(**batch).last_hidden_state, batch["attention_mask"][:, :, None]
        scores: torch.Tensor = self.head((states * mask).sum(1) / mask.sum(1)).squeeze(1)
        return scores

    def scores(self, pairs: Sequence[tuple[str, str]]) -> Numbers:
        self.encoder.eval()
        # texts of one length together, so that little is padded
        order = sorted(range(len(pairs)), key=lambda row: len(pairs[row][1]))
        found = np.empty(len(pairs))
        with torch.inference_mode():
            for start in range(0, len(order), AT_ONCE):
                rows = order[start : start + AT_ONCE]
                found[rows] = self.logits([pairs[row] for row in rows]).numpy()
        return found

    def train(self, lists: Sequence[tuple[Sequence[tuple[str, str]], Numbers]], epochs: int) -> Iterator[float]:
        """Lists of pairs, the answer first, with the scores that are added; the loss of each step comes out."""
        # of a few hundred queries most words are never seen
        self.encoder.embeddings.requires_grad_(False)
        groups = [
            {"params": list(self.encoder.encoder.parameters()), "lr": RATE},
            {"params": list(self.head.parameters()), "lr": HEAD_RATE},
        ]
        optimizer = torch.optim.AdamW(groups, weight_decay=0.01)
        size = AT_ONCE // (NEGATIVES + 1)
        random, total = np.random.default_rng(0), epochs * -(-len(lists) // size)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / total)
        self.encoder.train()
        for _ in range(epochs):
            order = random.permutation(len(lists))
            for start in range(0, len(order), size):
                batch = [lists[row] for row in order[start : start + size]]
                logits = self.logits([pair for pairs, _ in batch for pair in pairs]).view(len(batch), -1)
                known = torch.tensor(np.stack([scores for _, scores in batch]), dtype=torch.float32)
                loss = torch.nn.functional.cross_entropy(logits + known, torch.zeros(len(batch), dtype=torch.long))
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()
                schedule.step()
                yield loss.item()


def lists_of(judged: Judged, train: Rows, start: Vectors) -> list[tuple[list[tuple[str, str]], Numbers]]:
    data, random = judged.data, np.random.default_rng(0)
    mapped = np.asarray(unit_rows(data.queries[train] @ start), np.float32)
    made = []
    for query, vector, near in zip(train.tolist(), mapped, nearest(mapped, data.stored, MINED), strict=True):
        others = [row for row in near.tolist() if row not in data.answers[query]]
        rows = [data.answers[query][0], *random.choice(others, NEGATIVES, replace=False).tolist()]
        pairs = [(judged.texts.queries[query], judged.texts.passages[row]) for row in rows]
        made.append((pairs, data.stored[rows] @ vector / TEMPERATURE))
    return made


def ndcg_of(found: Rows, scores: Numbers, answers: Sequence[int]) -> float:
    order = found[np.argsort(-scores, kind="stable")][:DEPTH]
    discounts = 1 / np.log2(np.arange(2, DEPTH + 2))
    return float((np.isin(order, answers) * discounts[: len(order)]).sum() / discounts[: len(answers)].sum())


def measured(judged: Judged, arguments: argparse.Namespace) -> Iterator[dict[str, object]]:
    """The figures of the test queries so far, after every `_TESTS` of them."""
    settings, data = AdapterSettings(), judged.data
    assert data.pseudo is not None
    (part,) = judged.parts
    random = np.random.default_rng(0)
    tests = random.permutation(part)[: arguments.tests]
    train = np.sort(random.permutation(np.setdiff1d(data.everything, part))[: arguments.queries])
    white = whitening(data.stored, strength=settings.whitening, floor=settings.whitening_floor)
    start = by_pseudo_queries(data.stored, data.pseudo, white, settings)
    began, model = time.process_time(), Reranker(arguments.model, arguments.tokens)
    losses = []
    for loss in model.train(lists_of(judged, train, start), arguments.epochs):
        losses.append(loss)
        print(f"{judged.name} step {len(losses)} loss {loss:.3f}", file=sys.stderr, flush=True)
    trained = time.process_time() - began
    answers = tuple(data.answers[query] for query in train.tolist())
    known = AdapterData(data.stored, data.queries[train], answers, np.ones(len(train)), pseudo=data.pseudo)
    matrix, spent = fit_map(known).matrix, 0.0
    values: dict[str, dict[str, float]] = {"base": {}, "adapter": {}, "reranker": {}, "both": {}}
    for test in np.split(tests, range(_TESTS, len(tests), _TESTS)):
        values["base"] |= judged.ndcg(np.eye(len(start), dtype=np.float32), test)
        mapped = np.asarray(unit_rows(data.queries[test] @ matrix), np.float32)
        found, began = nearest(mapped, data.stored, arguments.top), time.process_time()
        scores = model.scores(pairs_of(judged, test, found)).reshape(found.shape)
        spent += time.process_time() - began
        for place, query in enumerate(test.tolist()):
            cosines = data.stored[found[place]] @ mapped[place] / TEMPERATURE
            ways = {"adapter": cosines, "reranker": scores[place], "both": cosines + scores[place]}
            for name, way in ways.items():
                values[name][str(query)] = ndcg_of(found[place], way, data.answers[query])
        count = len(values["base"])
        yield {
            "train": len(train),
            "tests": count,
            "top": arguments.top,
            "base": round(float(np.mean(list(values["base"].values()))), 4),
            "losses": [round(float(np.mean(each)), 3) for each in np.array_split(losses, min(4, len(losses)))],
            "training seconds": round(trained, 1),
            "milliseconds per query": round(1000 * spent / count, 1),
            **{name: compared(values, name) for name in values},
        }


def pairs_of(judged: Judged, queries: Rows, found: Rows) -> list[tuple[str, str]]:
    texts = judged.texts
    return [
        (texts.queries[query], texts.passages[row])
        for query, rows in zip(queries.tolist(), found, strict=True)
        for row in rows.tolist()
    ]


def compared(values: Mapping[str, Mapping[str, float]], name: str) -> dict[str, list[float]]:
    return {f"over {other}": figures(change(values[other], values[name])) for other in ("base", "adapter")}


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--queries", type=int, default=200)
    made.add_argument("--tests", type=int, default=150)
    made.add_argument("--epochs", type=int, default=1)
    made.add_argument("--top", type=int, default=20)
    made.add_argument("--tokens", type=int, default=64)
    made.add_argument("--out", type=Path)
    arguments = made.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    found: dict[str, object] = {}
    for judged in read(arguments):
        for figures_so_far in measured(judged, arguments):
            found[judged.name] = figures_so_far
            print(judged.name, json.dumps(figures_so_far), file=sys.stderr, flush=True)
            if arguments.out:
                arguments.out.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
