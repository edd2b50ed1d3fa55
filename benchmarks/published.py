"""Do the published figures of a checkpoint come out, and what becomes of them in the ONNX builds?

    python benchmarks/published.py --data FOLDER [--builds torch onnx-fp32 onnx-int8] [--tasks scifact stsb banking77]

FOLDER holds one folder per data set: `scifact` in BEIR's layout, `stsb` with a `test` file of two sentences and a
score, `banking77` with `train` and `test` files of text and label. Each is measured on its test split, as
`embed-plus benchmark` does it; the ONNX builds are exported first. The figures that all-MiniLM-L6-v2 is to reach:

- SciFact, nDCG@10: 64.51, MTEB's leaderboard and paper (Muennighoff et al., 2022, table of all results);
- STS-Benchmark, Spearman of the cosine: 82.03, `embeddings-benchmark/results`, revision 8b3219a9 (82.032);
- Banking77, accuracy: 80.04, `embeddings-benchmark/results`, revision 8b3219a9, mteb 1.12.75 (80.042).

`within` says whether a figure is within 0.1 of the published one. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_args

from llama_index_embed_plus.encoders.open import BackendName, open_encoder
from llama_index_embed_plus.evaluate.tasks import TaskResult, find_tasks, read_task, run_task
from llama_index_embed_plus.export.export import export_onnx

PUBLISHED = {
    "scifact/retrieval": 64.51,
    "stsb/similarity": 82.03,
    "banking77/classification": 80.04,
}
TOLERANCE = 0.1


def measure(data: Path, model: str | Path, build: BackendName, names: Iterable[str]) -> list[TaskResult]:
    """The figures of one build."""
    wanted = [task for task in find_tasks(data)[0] if task.name in PUBLISHED and task.name.split("/")[0] in names]
    encoder = open_encoder(model, backend=build)
    return [run_task(task, read_task(task), encoder) for task in wanted]


def row(build: str, result: TaskResult) -> dict[str, Any]:
    """One figure in percent beside the published one."""
    percent, published = 100 * result.value, PUBLISHED[result.task]
    return {
        "task": result.task,
        "metric": result.metric,
        "build": build,
        "value": round(percent, 3),
        "published": published,
        "within": abs(percent - published) <= TOLERANCE,
        "seconds": round(result.seconds, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="all-MiniLM-L6-v2")
    parser.add_argument(
        "--builds", nargs="+", choices=get_args(BackendName), default=["torch", "onnx-fp32", "onnx-int8"]
    )
    parser.add_argument("--tasks", nargs="+", default=[name.split("/")[0] for name in PUBLISHED])
    arguments = parser.parse_args()
    logging.getLogger("llama_index_embed_plus").setLevel(logging.ERROR)  # that long texts are cut is known here
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        artifact = Path(scratch) / "artifact"
        if any(build.startswith("onnx") for build in arguments.builds):
            export_onnx(arguments.model, artifact, precision="int8", force=True)
        for build in arguments.builds:
            source = artifact if build.startswith("onnx") else arguments.model
            for result in measure(arguments.data, source, build, arguments.tasks):
                rows.append(row(build, result))
                print(
                    "{task:<26}{metric:<10}{build:<11}{value:>8} published {published} {seconds} s".format(**rows[-1])
                )
    machine = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    print(json.dumps({"model": arguments.model, "rows": rows, "machine": machine}))


if __name__ == "__main__":
    main()
