"""Which poolings have an int8 build: how well does int8 agree with the weights, pooling by pooling?

    python benchmarks/int8_poolings.py [--model all-MiniLM-L6-v2] [--poolings mean,cls,...]

The model is exported in int8 with every pooling, whichever it was trained with. Printed is the measure of the export:
the cosine between the int8 vectors and those of the weights over the texts that every export measures, mean and worst.
Its bound is 0.999 in the mean and 0.997 at worst; what lies outside is not written unless forced, as here.
The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from llama_index_embed_plus.export.export import export_onnx
from llama_index_embed_plus.models.pooling import POOLING_MODES
from llama_index_embed_plus.models.spec import Overrides


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="all-MiniLM-L6-v2")
    parser.add_argument("--poolings", default=",".join(POOLING_MODES))
    arguments = parser.parse_args()
    rows = {}
    for pooling in arguments.poolings.split(","):
        with tempfile.TemporaryDirectory() as folder:
            report = export_onnx(
                arguments.model,
                Path(folder) / "out",
                precision="int8",
                force=True,
                overrides=Overrides(pooling=pooling),
            )
        row = {"mean": report.cosine_mean, "worst": report.cosine_min, "within": report.within}
        rows[pooling] = row
        verdict = "int8" if report.within else "refused"
        print(f"{pooling:22} mean {report.cosine_mean:.5f}  worst {report.cosine_min:.5f}  {verdict}")
    print(json.dumps({"model": arguments.model, "poolings": rows}))


if __name__ == "__main__":
    main()
