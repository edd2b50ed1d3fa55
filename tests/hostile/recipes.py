"""Recipes that no run has: numbers beyond sense, depth without end, names that are paths, values of another kind."""

from __future__ import annotations

GOOD = 'base = "model"\nepochs = 1\n[[stage]]\nname = "a"\ndata = "pairs.jsonl"\n'


def setting(line: str) -> str:
    return f"{line}\n" + GOOD.replace("epochs = 1\n", "")


def stage(line: str) -> str:
    return GOOD + line + "\n"


TEXTS: dict[str, str] = {
    "deep lists": "a = " + "[" * 30_000,
    "closed deep lists": "pooling = " + "[" * 80 + "]" * 80 + "\n" + GOOD,
    "deep tables": "a = " + "{ a = " * 10_000,
    "a key of many parts": "a" + ".a" * 50_000 + " = 1",
    "keys of many parts": "".join(f"a{i}" + ".a" * 190 + " = 1\n" for i in range(300)),
    "many keys": "".join(f"k{i} = 1\n" for i in range(10_000)),
    "an integer of 5,000 digits": setting("epochs = " + "9" * 5000),
    "an integer of 4,000 digits": setting("epochs = " + "9" * 4000),
    "a rate beyond floats": setting("learning_rate = 1e400"),
    "a rate of 400 digits": setting("learning_rate = 1" + "0" * 400),
    "a rate that is no number": setting("learning_rate = nan"),
    "ten million epochs": setting("epochs = 10_000_000"),
    "a batch of 10**18": setting("batch_size = 1000000000000000000"),
    "a length of 2**70": setting(f"max_tokens = {2**70}"),
    "a negative seed": setting("seed = -1"),
    "a seed of 2**70": setting(f"seed = {2**70}"),
    "a warmup that is no number": setting("warmup_share = nan"),
    "a decay without end": setting("weight_decay = inf"),
    "a decay of 400 digits": setting("weight_decay = 1" + "0" * 400),
    "a gradient that is no number": setting("max_gradient = nan"),
    "checkpoints beyond counting": setting(f"checkpoint_every = {2**70}"),
    "a projection of a terabyte": setting("projection = { dimension = 1000000000 }"),
    "a rank beyond all": setting('method = "lora"\nlora = { rank = 1000000000 }'),
    "targets that are numbers": setting('method = "lora"\nlora = { targets = [1, 2] }'),
    "poolings by the thousand": setting("pooling = [" + '"mean",' * 5000 + "]"),
    "a pooling that is a list": setting('pooling = [["mean"]]'),
    "a device that is a list": setting("device = [1]"),
    "a threshold that is no number": setting("leak_similarity = nan"),
    "a temperature of 400 digits": setting("loss_options = { temperature = 1" + "0" * 400 + " }"),
    "a temperature that is a text": setting('loss_options = { temperature = "hot" }'),
    "a margin that is a list": setting('loss = "triplet"\nloss_options = { margin = [1] }'),
    "dimensions that are texts": setting('loss_options = { dims = ["a"] }'),
    "a dimension that is no list": setting("loss_options = { dims = 5 }"),
    "dimensions beyond all": setting("loss_options = { dims = [" + ",".join(map(str, range(1, 9000))) + "] }"),
    "a guide that is a number": setting('loss = "guided"\nloss_options = { guide = 5 }'),
    "a teacher that is a table": setting('loss = "margin_mse"\nloss_options = { teacher = { a = 1 } }'),
    "a loss option of another name": setting("loss_options = { " + "x" * 5000 + " = 1 }"),
    "a loss of another name": setting('loss = "' + "x" * 50_000 + '"'),
    "a proof of nothing": setting("proof = { margin = nan }"),
    "a proof beyond all": setting(f"proof = {{ known_items = {2**70} }}"),
    "texts that are a number": setting("proof = { texts = 1 }"),
    "a stage that is a path": GOOD.replace('"a"', '"../../a"'),
    "a stage with an escape": GOOD.replace('"a"', '"a\\u001b[31m"'),
    "a stage with a line": GOOD.replace('"a"', '"a\\nb"'),
    "a stage of a long name": GOOD.replace('"a"', '"' + "a" * 5000 + '"'),
    "a stage of no name": GOOD.replace('"a"', '""'),
    "stages by the thousand": GOOD + '[[stage]]\nname = "b"\ndata = "pairs.jsonl"\n' * 1000,
    "stages that are a number": "stage = 5",
    "stages that are numbers": "stage = [1, 2]",
    "a depth beyond all": stage(f"mine = {{ depth = {2**70} }}"),
    "rounds beyond all": stage(f"mine = {{}}\nrounds = {2**70}"),
    "copies beyond all": stage(f"augment = {{ copies = {2**70} }}"),
    "a share that is no number": stage("augment = { share = nan }"),
    "scores of 400 digits": stage("score_range = [0, 1" + "0" * 400 + "]"),
    "scores that are no numbers": stage("score_range = [nan, inf]"),
    "data that is a list": GOOD.replace('"pairs.jsonl"', '["pairs.jsonl"]'),
    "data of a long name": GOOD.replace("pairs.jsonl", "x" * 5000),
    "data of no name": GOOD.replace("pairs.jsonl", "a\\u0000b"),
    "a key twice": "epochs = 1\n" + GOOD,
    "a table that is a value": "heldout = 5\n" + GOOD,
    "a zero byte": "a = \x00",
    "a time": setting("epochs = 2024-01-01"),
}
