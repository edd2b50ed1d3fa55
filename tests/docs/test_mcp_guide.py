"""The guide to the server for language models names what it offers, and its command lines are understood."""

from __future__ import annotations

import json
import re
import shlex

from paths import DOCS

from llama_index_embed_plus.cli.sharing.mcp import mcp_command
from llama_index_embed_plus.sharing.mcp_server import make_server
from llama_index_embed_plus.sharing.tools import MOST_HITS, MOST_TEXTS, CollectionTools

GUIDE = (DOCS / "mcp.md").read_text()


async def test_the_tools_of_the_table_are_those_of_the_server(tmp_path):
    tools = CollectionTools(None, None, log=object())
    offered = {tool.name for tool in await make_server(tools, version="1").list_tools()}
    assert set(re.findall(r"^\| tool `(\w+)`", GUIDE, flags=re.M)) == offered
    assert f"`k` up to {MOST_HITS}" in GUIDE and f"up to {MOST_TEXTS} texts" in GUIDE
    (resource,) = await make_server(tools, version="1").list_resources()
    assert f"`{resource.uri}`" in GUIDE


def test_the_configuration_is_json_and_its_options_exist():
    (block,) = re.findall(r"^```json\n(.*?)^```", GUIDE, flags=re.S | re.M)
    (server,) = json.loads(block)["mcpServers"].values()
    lines = [server["args"], *map(shlex.split, re.findall(r"embed-plus (mcp docs.*)$", GUIDE, flags=re.M))]
    known = set(mcp_command.__annotations__)
    for line in lines:
        options = [word.removeprefix("--").replace("-", "_") for word in line if word.startswith("--")]
        assert options and set(options) <= known
