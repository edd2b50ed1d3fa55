"""What is known about published checkpoints where their own files are silent. Every fact names its source.

Does not know: files, encoders.
"""

from __future__ import annotations

KNOWN_WEIGHTS = {
    "ecdfe66ecbcea8c1569f1fe0183c4195ed195b1092a934534b31cf959f3a43be": "all-MiniLM-L6-v2",
}
"""sha256 of the weights (as `tensors.hash_weights` computes it) -> the name by which people know the checkpoint."""
