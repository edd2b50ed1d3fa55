"""Mails (EML, mbox) -> blocks: the subject as a heading, who wrote when to whom, and the text.

Guarantees: one mail after the other; attachments are named, not opened. Does not know: what a mail answers.
"""

from __future__ import annotations

import mailbox
from collections.abc import Iterator
from email import policy
from email.message import EmailMessage, MIMEPart
from email.parser import BytesParser
from pathlib import Path
from typing import Any

from llama_index_embed_plus.documents.blocks import text_blocks
from llama_index_embed_plus.documents.files.items import MOST_BYTES, Item, one_line, require_size
from llama_index_embed_plus.documents.readers.html import html_items
from llama_index_embed_plus.documents.records import Block

MUCH_MORE = 4
"""Times the characters of the plain text, and the page says what the text does not."""
_PARSER = BytesParser(policy=policy.default)


def read_mail(path: Path, encoding: str | None = None) -> Iterator[Item]:
    """The items of a mail."""
    require_size(path)
    message = _parsed(path.read_bytes())
    yield {key: text for key, name in (("title", "subject"), ("author", "from")) if (text := _header(message, name))}
    yield from _mail(message, None)


def read_mbox(path: Path, encoding: str | None = None) -> Iterator[Item]:
    """The items of a box of mails; the number of a mail is its page."""
    box = mailbox.mbox(str(path), create=False)
    try:
        for number, key in enumerate(box.iterkeys(), 1):
            with box.get_file(key) as file:
                yield from _mail(_parsed(file.read(MOST_BYTES)), str(number))
            yield {}
    finally:
        box.close()


def _parsed(content: bytes) -> EmailMessage:
    message = _PARSER.parsebytes(content)
    assert isinstance(message, EmailMessage)
    return message


def _mail(message: EmailMessage, page: str | None) -> Iterator[Item]:
    subject = _header(message, "subject")
    headings = (subject,) if subject else ()
    if subject:
        yield Block(subject, "heading", headings, page)
    about = [f"{name}: {text}" for name in ("From", "To", "Date") if (text := _header(message, name))]
    if about and "Snapshot-Content-Location" not in message:
        yield Block("\n".join(about), "text", headings, page)
    for block in _text(message):
        yield Block(block.text, block.kind, (*headings, *block.headings), page)
    names = [one_line(name) for part in message.iter_attachments() if (name := part.get_filename())]
    if names:
        yield Block(f"Attachments: {', '.join(names)}", "text", headings, page)


def _text(message: EmailMessage) -> list[Block]:
    """The plain text, or the page if the text only says that there is one ("Your program cannot show this mail")."""
    plain, page = ([*_body(part)] if (part := message.get_body((kind,))) else [] for kind in ("plain", "html"))
    return page if _length(page) > MUCH_MORE * _length(plain) else plain


def _length(blocks: list[Block]) -> int:
    return sum(len(block.text) for block in blocks)


def _body(body: MIMEPart[Any, Any]) -> Iterator[Block]:
    try:
        text = body.get_content()
    except (LookupError, KeyError, UnicodeError, AssertionError):
        # a charset that nobody knows
        content = body.get_payload(decode=True)
        text = content.decode("utf-8", "replace") if isinstance(content, bytes) else ""
    if body.get_content_subtype() == "html":
        yield from (item for item in html_items(text) if isinstance(item, Block))
    else:
        yield from text_blocks(text.splitlines())


def _header(message: EmailMessage, name: str) -> str:
    try:
        return one_line(str(message.get(name) or ""))
    except (ValueError, IndexError, TypeError, AttributeError):
        # headers that the parser stumbles over
        return ""
