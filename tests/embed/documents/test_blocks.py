"""Text, Markdown and reStructuredText -> blocks."""

from __future__ import annotations

import time
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_index_embed_plus.documents.blocks import markdown_blocks, rst_blocks, text_blocks


def read(reader, text):
    return [(block.kind, block.text, block.headings) for block in reader(text.split("\n"))]


MARKDOWN = """\
---
layout: post
title: "Ignored, there is a heading"
---
# Bees #

Bees make
honey.
<!-- a remark -->
How it is made
--------------
1. Collect nectar
   from flowers
2. Wait

   a day or two

| a | b |
|---|:-:|
| 1 | 2 |
After the table.

> A quotation
> of two lines.

```python
# no heading

def f():
    pass
```

    indented = code

    more = code

## Wax {#wax}
- [ ] build
  - nested

***
<div align="center">

Done <https://bees.org>.
</div>
"""


def test_markdown_becomes_blocks_under_their_headings():
    bees, made, wax = ("Bees",), ("Bees", "How it is made"), ("Bees", "Wax")
    assert read(markdown_blocks, MARKDOWN) == [
        ("heading", "Bees", bees),
        ("text", "Bees make\nhoney.", bees),
        ("heading", "How it is made", made),
        ("item", "1. Collect nectar\n   from flowers", made),
        ("item", "2. Wait", made),
        ("text", "a day or two", made),
        ("table", "| a | b |\n|---|:-:|\n| 1 | 2 |", made),
        ("text", "After the table.", made),
        ("text", "A quotation\nof two lines.", made),
        ("code", "# no heading\n\ndef f():\n    pass", made),
        ("code", "indented = code\n\nmore = code", made),
        ("heading", "Wax", wax),
        ("item", "- [ ] build", wax),
        ("item", "- nested", wax),
        ("text", "Done <https://bees.org>.", wax),
    ]


@pytest.mark.parametrize(
    ("text", "blocks"),
    [
        ("---\ntitle: Honey\n---\nText.", [("heading", "Honey", ("Honey",)), ("text", "Text.", ("Honey",))]),
        ("---\nno end", [("text", "no end", ())]),
        ("a\n\n---\n\nb", [("text", "a", ()), ("text", "b", ())]),
        ("<!-- never closed", [("text", "<!-- never closed", ())]),
        ("one <!-- a\nb --> two", [("text", "one  two", ())]),
        ("```\n<!-- code -->\n```", [("code", "<!-- code -->", ())]),
        ("~~~~\n```\n~~~~\nx", [("code", "```", ()), ("text", "x", ())]),
        ("```\nnever closed\n\n# x", [("code", "never closed\n\n# x", ())]),
        (
            "text\n# At once\nmore",
            [("text", "text", ()), ("heading", "At once", ("At once",)), ("text", "more", ("At once",))],
        ),
        (
            "# A\n### C\n## B\nx",
            [
                ("heading", "A", ("A",)),
                ("heading", "C", ("A", "C")),
                ("heading", "B", ("A", "B")),
                ("text", "x", ("A", "B")),
            ],
        ),
        ("#hash is no heading", [("text", "#hash is no heading", ())]),
        ('<h1 align="center"><b>Big</b></h1>\nx', [("heading", "Big", ("Big",)), ("text", "x", ("Big",))]),
        ("a | b\n--|--\n1 | 2", [("table", "a | b\n--|--\n1 | 2", ())]),
        ("![a](data:image/png;base64,iVBORw0KGgo=)", [("text", "![a]()", ())]),
        ("# Vec<T> and `<b>`", [("heading", "Vec<T> and ``", ("Vec<T> and ``",))]),
        ("", []),
    ],
)
def test_corners_of_markdown(text, blocks):
    assert read(markdown_blocks, text) == blocks


RST = """\
=====
Bees
=====

Bees make honey. Like this::

    honey = nectar
    wait()

Wax
---
.. code-block:: python

   build()

- one
- two

Inner
~~~~~
===== =====
a     b
===== =====
1     2
===== =====

More
----
Text.
"""


def test_restructured_text_has_headings_by_their_rules():
    assert read(rst_blocks, RST) == [
        ("heading", "Bees", ("Bees",)),
        ("text", "Bees make honey. Like this::", ("Bees",)),
        ("code", "honey = nectar\nwait()", ("Bees",)),
        ("heading", "Wax", ("Bees", "Wax")),
        ("code", "build()", ("Bees", "Wax")),
        ("item", "- one", ("Bees", "Wax")),
        ("item", "- two", ("Bees", "Wax")),
        ("heading", "Inner", ("Bees", "Wax", "Inner")),
        ("table", "===== =====\na     b\n===== =====\n1     2\n===== =====", ("Bees", "Wax", "Inner")),
        ("heading", "More", ("Bees", "More")),
        ("text", "Text.", ("Bees", "More")),
    ]


soup = st.lists(
    st.sampled_from(
        ["", "", "word one two", "# Title", "===", "---", "```", "~~~", "- item", "1. item", "| a | b |", "|---|---|"]
        + [
            "    indented",
            "> quoted",
            "* * *",
            "<div>",
            ".. note::",
            "like::",
            "Title",
            "  more",
            "\ttab",
            "####",
            "+---+",
        ]
    )
)


@given(soup, st.sampled_from([text_blocks, markdown_blocks, rst_blocks]))
def test_no_word_is_lost(lines, reader):
    marked = ("<div>", ".. note::")
    words = [word for line in lines if line not in marked for word in line.split() if word.isalpha()]
    found = [word for block in reader(lines) for word in block.text.split() if word.isalpha()]
    assert [word for word in found if word != "title:"] == words


@given(
    st.text(alphabet=st.sampled_from("ab #`~-=|>\n\t*_<!:.[]()1+\\\"'{}中")),
    st.sampled_from([markdown_blocks, rst_blocks]),
)
def test_anything_is_read(text, reader):
    for block in reader(text.split("\n")):
        assert block.text.strip() and (block.kind == "code" or block.text == block.text.strip())
        assert block.kind != "heading" or block.headings[-1] == block.text


@pytest.mark.parametrize("reader", [text_blocks, markdown_blocks, rst_blocks])
@pytest.mark.parametrize(
    "line", ["a line of a paragraph that never ends", "| a | b |", "x" * 17_000, "```", "<!-- ", "- i"]
)
def test_a_block_that_never_ends_is_given_in_parts_and_memory_stays_the_same(reader, line):
    def peak(count):
        tracemalloc.start()
        longest = max(
            (len(block.text) for block in reader(line for _ in range(count // (1 + len(line) // 4)))), default=0
        )
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert longest < 300_000
        return found

    assert peak(8_000) < peak(4_000) + 500_000


@pytest.mark.parametrize(
    "line",
    [
        "-" * 10**4 * 3 + "x",
        "=" * 10**4 * 3 + "x",
        "|" * 10**4 * 3,
        ">" * 10**4 * 3,
        "#" * 10**4 * 3,
        "* " * 10**4 * 3 + "x",
    ],
)
@pytest.mark.parametrize("reader", [markdown_blocks, rst_blocks])
def test_a_hostile_line_takes_linear_time(reader, line):
    start = time.process_time()
    list(
        reader(
            ["x | y", line, "<" * 10**4 * 3, "<a " * 10_000, "<!--" * 10_000, "|-" * 10_000 + "x", " :-" * 10_000 + "x"]
        )
    )
    assert time.process_time() - start < 20
