"""A model's artifact -> a repository of a model hub, by huggingface_hub.

What is given away is a copy of the verified artifact with the model card and without what users typed: the held-out
queries, beside the model and in its report, stay here. The copy is an artifact itself, and can be opened by its name on
the hub.

Guarantees: a model that was trained here and not proved better is refused, unless forced; nothing is sent before every
file has been verified; a dry run sends nothing at all. The token is the library's affair: `HF_TOKEN`, or `hf auth
login`. Does not know: how models are trained.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from llama_index_embed_plus.errors import ModelError
from llama_index_embed_plus.models.artifact import copy_artifact, is_artifact, refusal, verify, write_manifest
from llama_index_embed_plus.models.files import MANIFEST
from llama_index_embed_plus.models.hub import is_transport_error
from qdrant_tools.errors import UsageError, brief, first_line

HELD_OUT = "heldout"
"""The folder of held-out queries in a trained model."""
CARD = "README.md"

_REPO = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}", re.ASCII)


@dataclass(frozen=True)
class Pushed:
    """What was sent, or would be. `files`: path -> bytes. `url` of the repository is "" after a dry run."""

    repo: str
    files: dict[str, int]
    space: str
    url: str = ""
    commit: str = ""
    has_card: bool = True

    @property
    def size(self) -> int:
        return sum(self.files.values())

    def as_row(self) -> dict[str, Any]:
        return {
            "repo": self.repo,
            "url": self.url,
            "commit": self.commit,
            "space": self.space,
            "bytes": self.size,
            "files": self.files,
        }


def push_to_hub(
    folder: Path | str,
    repo: str,
    *,
    private: bool = False,
    force: bool = False,
    dry_run: bool = False,
    token: str | None = None,
    message: str = "",
) -> Pushed:
    """Send the artifact in a folder to the repository `owner/name` of the hub, which is made if it is not there.

    private: of a repository that is made now. force: also a model that was not proved better.

    Raises:
        UsageError: no `owner/name`, or the folder is no artifact.
        ModelError: the model was not proved better; or the hub does not take it, with the hub's reason.
        DamagedModelError: a file is not what the manifest lists.
    """
    if not isinstance(repo, str) or not _REPO.fullmatch(repo) or ".." in repo or "--" in repo:
        raise UsageError(f"repository is {brief(repo)}, expected owner/name")
    source = Path(folder)
    if not is_artifact(source):
        raise UsageError(
            f"{str(source)!r} is no artifact: give a folder that train, merge or export wrote (embed-plus export MODEL "
            "--out FOLDER)"
        )
    refused = refusal(source)
    if refused is not None and not force:
        raise ModelError(
            f"{str(source)!r} is not given to others: {refused.reason}. Prove it on other queries (embed-plus "
            "prove), or force it (--force)"
        )
    with _copy(source) as copy:
        manifest = verify(copy)
        paths = [*sorted(manifest.sha256), MANIFEST]
        files = {name: (copy / name).stat().st_size for name in paths}
        pushed = Pushed(repo, files, manifest.space, has_card=CARD in files)
        if dry_run:
            return pushed
        url, commit = _send(copy, paths, repo, private=private, token=token, message=message or _message(pushed))
    return Pushed(repo, files, manifest.space, url, commit, CARD in files)


@contextmanager
def _copy(source: Path) -> Iterator[Path]:
    """A copy of the artifact without the queries of users, verified and sealed anew."""
    with TemporaryDirectory(prefix="embed-plus-push-") as parent:
        copy = Path(parent) / "model"
        # takes the held-out queries out of the report
        copy_artifact(source, copy)
        shutil.rmtree(copy / HELD_OUT, ignore_errors=True)
        write_manifest(copy)
        yield copy


def _message(pushed: Pushed) -> str:
    return f"Upload of {pushed.space}"


def _send(
    folder: Path, paths: list[str], repo: str, *, private: bool, token: str | None, message: str
) -> tuple[str, str]:
    """Make the repository and one commit of exactly these files; its URL, and the commit."""
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError, OfflineModeIsEnabled

    api = HfApi(token=token)
    try:
        url = api.create_repo(repo, private=private, repo_type="model", exist_ok=True)
        operations = [CommitOperationAdd(name, folder / name) for name in paths]
        commit = api.create_commit(repo, operations, commit_message=message, repo_type="model")
    except LocalTokenNotFoundError as error:
        raise ModelError(f"the hub wants to know who you are: run `hf auth login`, or set HF_TOKEN ({repo})") from error
    except OfflineModeIsEnabled as error:
        raise ModelError(f"HF_HUB_OFFLINE is set, so nothing is sent to {repo}: unset it") from error
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", "")
        hint = "; run `hf auth login`, or set HF_TOKEN" if status in (401, 403) else ""
        raise ModelError(f"the hub does not take {repo} ({first_line(error)}){hint}") from error
    except Exception as error:
        if not isinstance(error, HFValidationError) and not is_transport_error(error):
            raise
        raise ModelError(f"cannot send {repo} to the hub: {first_line(error)}") from error
    return str(url), commit.oid
