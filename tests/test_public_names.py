"""What a user may import from the top, and what the documentation promises."""

from __future__ import annotations

import pytest

import llama_index_embed_plus


def test_every_public_name_is_there_and_the_list_is_sorted():
    names = llama_index_embed_plus.__all__
    assert names == sorted(names)
    assert dir(llama_index_embed_plus) == names
    for name in names:
        assert getattr(llama_index_embed_plus, name).__name__ == name


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Missing'"):
        llama_index_embed_plus.Missing  # noqa: B018
