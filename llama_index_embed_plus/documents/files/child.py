"""The program that reads files which may be damaged or hostile: requests on stdin -> blocks and facts on stdout.

A request is a line of JSON, `{"reader", "path", "encoding"}`. The answer is lines of JSON: `{"block": [...]}`,
`{"facts": {...}}`, and last `{"end": true}` or `{"unread": [reason, detail]}`. An empty object says that work goes on.

Guarantees: it takes no more memory than it was given, and ends with its parent. Nothing that a library prints reaches
the answers. Does not know: where the file belongs.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import zipfile
import zlib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

from llama_index_embed_plus.documents.files.items import Item
from llama_index_embed_plus.documents.records import Block
from llama_index_embed_plus.errors import UnreadFileError
from qdrant_tools.errors import first_line

READERS = {
    "pdf": "pdf:read_pdf",
    "docx": "word:read_docx",
    "pptx": "slides:read_pptx",
    "xlsx": "sheets:read_xlsx",
    "table": "sheets:read_table",
    "html": "html:read_html",
    "epub": "books:read_epub",
    "opendocument": "opendocument:read_opendocument",
    "notebook": "notebooks:read_notebook",
    "mail": "mail:read_mail",
    "mbox": "mail:read_mbox",
    "rtf": "foreign:read_rtf",
    "hwp": "foreign:read_hwp",
    "xls": "foreign:read_xls",
}
"""Name of a reader -> its module and function: `(path, encoding) -> items`."""


def main(memory: str) -> None:
    """Answer requests until the parent is gone."""
    answers = os.fdopen(os.dup(1), "wb")
    with open(os.devnull, "wb") as nothing:
        os.dup2(nothing.fileno(), 1)
    requests: queue.Queue[bytes] = queue.Queue()
    threading.Thread(target=_listen, args=(requests,), daemon=True).start()
    _limit_memory(int(memory))
    while True:
        request = json.loads(requests.get())
        for answer in _answers(**request):
            answers.write(json.dumps(answer).encode() + b"\n")
            answers.flush()


def _answers(reader: str, path: str, encoding: str | None) -> Iterator[dict[str, Any]]:
    try:
        for item in _items(reader, Path(path), encoding):
            if isinstance(item, Block):
                yield {"block": [clean(item.text), item.kind, [*map(clean, item.headings)], item.page]}
            elif item:
                yield {"facts": item}
            else:
                yield {}
    except UnreadFileError as error:
        yield {"unread": [error.reason, str(error)]}
    except ImportError as error:
        what = f"{error.name or 'a library'} is not installed: pip install 'llama-index-embed-plus[files]'"
        yield {"unread": ["needs an extra", what]}
    except MemoryError:
        yield {"unread": ["too large", "it wants more memory than a file may take"]}
    except RecursionError:
        yield {"unread": ["damaged", "it is nested deeper than any document is"]}
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        yield {"unread": ["damaged", f"it is cut off or damaged: {first_line(error)}"]}
    except FileNotFoundError:
        yield {"unread": ["unreadable", "it is gone"]}
    except OSError as error:
        yield {"unread": ["unreadable", error.strerror or first_line(error)]}
    except Exception as error:  # of the libraries, which raise whatever a damaged file makes them stumble over
        yield {"unread": ["damaged", f"it cannot be read: {first_line(error)}"]}
    else:
        yield {"end": True}


def _items(reader: str, path: Path, encoding: str | None) -> Iterator[Item]:
    module, _, function = READERS[reader].partition(":")
    yield from getattr(import_module(f"llama_index_embed_plus.documents.readers.{module}"), function)(path, encoding)


def clean(text: str) -> str:
    """A text that can be stored: without NUL and lone surrogates, which damaged files give."""
    return text.replace("\0", "").encode("utf-8", "replace").decode()


def _listen(requests: queue.Queue[bytes], stream: BinaryIO | None = None) -> None:
    with os.fdopen(0, "rb", closefd=False) as stream:
        for line in stream:
            requests.put(line)
    # the parent is gone, whatever the main thread does
    os._exit(0)


def _limit_memory(limit: int) -> None:
    if sys.platform == "linux":
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        if hard == resource.RLIM_INFINITY or limit <= hard:
            resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


if __name__ == "__main__":
    main(*sys.argv[1:])
