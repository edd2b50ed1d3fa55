"""What is known about published checkpoints where their own files are silent. Every fact names its source.

A family is recognised by the exact name of a published checkpoint: `owner/name` in the hub's cache, or a folder called
`name`. A part of a name is not enough, because a fine-tuned copy under another name states its own facts. A file of the
model always wins over this registry. Does not know: files, encoders.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

KNOWN_WEIGHTS = {
    "ecdfe66ecbcea8c1569f1fe0183c4195ed195b1092a934534b31cf959f3a43be": "all-MiniLM-L6-v2",
}
"""sha256 of the weights (as `weights.hash_weights` computes it) -> the name by which people know the checkpoint."""

_FOR_SEARCHING = "Represent this sentence for searching relevant passages: "
_WEB_SEARCH = "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:"
_ZH_SEARCHING = "为这个句子生成表示以用于检索相关文章："
_E5_TASKS = {
    "similarity": "Instruct: Retrieve semantically similar text.\nQuery: ",
    "bitext_mining": "Instruct: Retrieve parallel sentences.\nQuery: ",
}
_NOMIC_TASKS = {
    **dict.fromkeys(("similarity", "pair_classification", "classification", "summarisation"), "classification: "),
    **dict.fromkeys(("clustering", "duplicates"), "clustering: "),
}
_GEMMA_TASKS = {
    **dict.fromkeys(("similarity", "pair_classification", "duplicates"), "task: sentence similarity | query: "),
    "classification": "task: classification | query: ",
    "clustering": "task: clustering | query: ",
    "bitext_mining": "task: search result | query: ",
    "summarisation": "task: summarization | query: ",
}
_UNTRAINED = "a language model that was not trained to embed texts: fine-tune it before use"


ANY = "any"
"""Every task in which texts are compared with their like."""


@dataclass(frozen=True)
class Family:
    """Facts about some checkpoints of one owner. None: the family's own files say it, or nobody does."""

    owner: str
    names: tuple[str, ...]
    source: str
    """Where the facts are published."""
    pooling: str | None = None
    query_prompt: str | None = None
    passage_prompt: str | None = None
    include_prompt: bool | None = None
    max_tokens: int | None = None
    compared: Mapping[str, str] = field(default_factory=dict)
    """What to do with texts (a `ComparedTask`, or `ANY`) -> the prompt that is put before each of them."""
    for_dot: bool = False
    """Trained for the dot product of vectors of any length."""
    appends_eos: bool = False
    """The closing token is added, whatever the tokenizer's files say."""
    needs_code: bool = False
    """Its architecture is code in its own repository. transformers' own model of that type gives other vectors."""
    note: str = ""
    """What a user must know, in one line."""


def source_url(owner: str, name: str) -> str:
    """Return the address of a model card."""
    return f"https://huggingface.co/{owner}/{name}"


FAMILIES: tuple[Family, ...] = (
    Family(
        "sentence-transformers",
        (
            *("all-MiniLM-L6-v2", "all-MiniLM-L12-v2", "paraphrase-MiniLM-L6-v2", "multi-qa-MiniLM-L6-cos-v1"),
            *("all-mpnet-base-v2", "paraphrase-multilingual-MiniLM-L12-v2", "paraphrase-multilingual-mpnet-base-v2"),
        ),
        source_url("sentence-transformers", "all-MiniLM-L6-v2") + " (mean pooling, normalised, no prompts)",
        pooling="mean",
    ),
    Family(
        "sentence-transformers",
        ("LaBSE",),
        source_url("sentence-transformers", "LaBSE"),
        pooling="cls",
    ),
    Family(
        "sentence-transformers",
        ("multi-qa-mpnet-base-dot-v1", "multi-qa-distilbert-dot-v1", "multi-qa-MiniLM-L6-dot-v1"),
        source_url("sentence-transformers", "multi-qa-mpnet-base-dot-v1") + " (first token; dot product)",
        pooling="cls",
        for_dot=True,
    ),
    Family(
        "sentence-transformers",
        ("msmarco-bert-base-dot-v5", "msmarco-distilbert-dot-v5"),
        source_url("sentence-transformers", "msmarco-bert-base-dot-v5") + " (mean pooling; dot product)",
        pooling="mean",
        for_dot=True,
    ),
    Family(
        "sentence-transformers",
        ("msmarco-distilbert-base-tas-b",),
        source_url("sentence-transformers", "msmarco-distilbert-base-tas-b") + " (first token; dot product)",
        pooling="cls",
        for_dot=True,
    ),
    Family(
        "intfloat",
        (
            *("e5-small", "e5-base", "e5-large", "e5-small-v2", "e5-base-v2", "e5-large-v2"),
            *("multilingual-e5-small", "multilingual-e5-base", "multilingual-e5-large"),
        ),
        source_url("intfloat", "e5-base-v2") + " (FAQ: prefixes are needed, `query: ` where texts are compared)",
        pooling="mean",
        query_prompt="query: ",
        passage_prompt="passage: ",
        compared={ANY: "query: "},
    ),
    Family(
        "intfloat",
        ("multilingual-e5-large-instruct",),
        source_url("intfloat", "multilingual-e5-large-instruct")
        + " (instruction on the query only; of other tasks: https://github.com/microsoft/unilm/blob/master/e5/utils.py)",
        pooling="mean",
        query_prompt=_WEB_SEARCH + " ",
        passage_prompt="",
        compared=_E5_TASKS,
    ),
    Family(
        "intfloat",
        ("e5-mistral-7b-instruct",),
        source_url("intfloat", "e5-mistral-7b-instruct")
        + " (last token, EOS appended, at most 4096 tokens; of other tasks: "
        "https://github.com/microsoft/unilm/blob/master/e5/utils.py)",
        pooling="lasttoken",
        query_prompt=_WEB_SEARCH + " ",
        passage_prompt="",
        compared=_E5_TASKS,
        max_tokens=4096,
        appends_eos=True,
    ),
    Family(
        "BAAI",
        (
            *("bge-small-en", "bge-base-en", "bge-large-en"),
            *("bge-small-en-v1.5", "bge-base-en-v1.5", "bge-large-en-v1.5"),
        ),
        "https://github.com/FlagOpen/FlagEmbedding (README, table of query instructions)",
        pooling="cls",
        query_prompt=_FOR_SEARCHING,
        passage_prompt="",
    ),
    Family(
        "BAAI",
        (
            *("bge-small-zh", "bge-base-zh", "bge-large-zh"),
            *("bge-small-zh-v1.5", "bge-base-zh-v1.5", "bge-large-zh-v1.5"),
        ),
        "https://github.com/FlagOpen/FlagEmbedding (README, table of query instructions)",
        pooling="cls",
        query_prompt=_ZH_SEARCHING,
        passage_prompt="",
    ),
    Family(
        "BAAI",
        ("bge-m3",),
        source_url("BAAI", "bge-m3") + " (dense vector: the first token; no instruction)",
        pooling="cls",
        max_tokens=8192,
    ),
    Family(
        "thenlper",
        ("gte-small", "gte-base", "gte-large"),
        source_url("thenlper", "gte-base") + " (average_pool; no instruction)",
        pooling="mean",
    ),
    Family(
        "Alibaba-NLP",
        ("gte-base-en-v1.5", "gte-large-en-v1.5", "gte-multilingual-base"),
        source_url("Alibaba-NLP", "gte-large-en-v1.5") + " (first token; no instruction)",
        pooling="cls",
        needs_code=True,
    ),
    Family(
        "Alibaba-NLP",
        ("gte-Qwen2-1.5B-instruct", "gte-Qwen2-7B-instruct"),
        source_url("Alibaba-NLP", "gte-Qwen2-7B-instruct")
        + " (last token, EOS appended, attention in both directions)",
        pooling="lasttoken",
        query_prompt=_WEB_SEARCH + " ",
        passage_prompt="",
        appends_eos=True,
        needs_code=True,
        note="attends in both directions, which the library's own Qwen2 does not",
    ),
    Family(
        "nomic-ai",
        ("nomic-embed-text-v1", "nomic-embed-text-v1.5"),
        source_url("nomic-ai", "nomic-embed-text-v1.5")
        + " (task instruction prefixes; by mteb's tasks: https://github.com/nomic-ai/contrastors, eval_mteb.py)",
        pooling="mean",
        query_prompt="search_query: ",
        passage_prompt="search_document: ",
        compared=_NOMIC_TASKS,
        note="shorter vectors of v1.5 are layer-normalised before they are cut; truncate_dim alone comes close to that",
    ),
    Family(
        "nomic-ai",
        ("nomic-embed-text-v2-moe",),
        source_url("nomic-ai", "nomic-embed-text-v2-moe") + " (mixture of experts in its own code; task prefixes)",
        pooling="mean",
        query_prompt="search_query: ",
        passage_prompt="search_document: ",
        compared=_NOMIC_TASKS,
        needs_code=True,
    ),
    Family(
        "Snowflake",
        (
            *("snowflake-arctic-embed-xs", "snowflake-arctic-embed-s", "snowflake-arctic-embed-m"),
            *("snowflake-arctic-embed-l", "snowflake-arctic-embed-m-v1.5"),
        ),
        source_url("Snowflake", "snowflake-arctic-embed-m") + " (query prefix; first token)",
        pooling="cls",
        query_prompt=_FOR_SEARCHING,
        passage_prompt="",
    ),
    Family(
        "Snowflake",
        ("snowflake-arctic-embed-l-v2.0",),
        source_url("Snowflake", "snowflake-arctic-embed-l-v2.0") + " (prefix `query: `; first token)",
        pooling="cls",
        query_prompt="query: ",
        passage_prompt="",
    ),
    Family(
        "Snowflake",
        ("snowflake-arctic-embed-m-v2.0",),
        source_url("Snowflake", "snowflake-arctic-embed-m-v2.0") + " (of gte-multilingual-base; prefix `query: `)",
        pooling="cls",
        query_prompt="query: ",
        passage_prompt="",
        needs_code=True,
    ),
    Family(
        "mixedbread-ai",
        ("mxbai-embed-large-v1",),
        source_url("mixedbread-ai", "mxbai-embed-large-v1") + " (prompt on the query only; first token)",
        pooling="cls",
        query_prompt=_FOR_SEARCHING,
        passage_prompt="",
    ),
    Family(
        "jinaai",
        ("jina-embeddings-v2-small-en", "jina-embeddings-v2-base-en", "jina-embeddings-v2-base-code"),
        source_url("jinaai", "jina-embeddings-v2-base-en") + " (mean pooling; no prompts; 8192 tokens)",
        pooling="mean",
        needs_code=True,
    ),
    Family(
        "jinaai",
        ("jina-embeddings-v3",),
        source_url("jinaai", "jina-embeddings-v3") + " (tasks retrieval.query and retrieval.passage)",
        pooling="mean",
        query_prompt="Represent the query for retrieving evidence documents: ",
        passage_prompt="Represent the document for retrieval: ",
        needs_code=True,
        note="its task adapters are switched by its own code",
    ),
    Family(
        "Qwen",
        ("Qwen3-Embedding-0.6B", "Qwen3-Embedding-4B", "Qwen3-Embedding-8B"),
        source_url("Qwen", "Qwen3-Embedding-0.6B")
        + " (config_sentence_transformers.json, prompt `query`; of other tasks: "
        "https://github.com/QwenLM/Qwen3-Embedding, evaluation/task_prompts.json)",
        pooling="lasttoken",
        query_prompt=_WEB_SEARCH,
        passage_prompt="",
        compared={"similarity": "Instruct: Retrieve semantically similar text\nQuery:"},
    ),
    Family(
        "google",
        ("embeddinggemma-300m",),
        source_url("google", "embeddinggemma-300m") + " (prompt instructions for retrieval)",
        pooling="mean",
        query_prompt="task: search result | query: ",
        passage_prompt="title: none | text: ",
        compared=_GEMMA_TASKS,
    ),
    Family(
        "nvidia",
        ("NV-Embed-v1", "NV-Embed-v2"),
        source_url("nvidia", "NV-Embed-v2")
        + " (instruction on the query, EOS appended, prompt left out of the pooling; STS: arXiv 2405.17428, table 7)",
        pooling="mean",
        query_prompt="Instruct: Given a question, retrieve passages that answer the question\nQuery: ",
        passage_prompt="",
        compared={"similarity": "Instruct: Retrieve semantically similar text.\nQuery: "},
        include_prompt=False,
        appends_eos=True,
        needs_code=True,
        note="its pooling is a trained attention layer in its own code",
    ),
    Family(
        "hkunlp",
        ("instructor-base", "instructor-large", "instructor-xl"),
        "https://github.com/xlang-ai/instructor-embedding (retrieval instructions; not pooled over the instruction)",
        pooling="mean",
        query_prompt="Represent the question for retrieving supporting documents: ",
        passage_prompt="Represent the document for retrieval: ",
        include_prompt=False,
    ),
    Family(
        "facebook",
        ("contriever", "contriever-msmarco", "mcontriever", "mcontriever-msmarco"),
        source_url("facebook", "contriever") + " (mean pooling; trained for the dot product)",
        pooling="mean",
        for_dot=True,
    ),
    Family(
        "microsoft",
        (
            *("codebert-base", "graphcodebert-base", "unixcoder-base"),
            *("BiomedNLP-PubMedBERT-base-uncased-abstract-fulltext", "BiomedNLP-BiomedBERT-base-uncased-abstract"),
            "BiomedNLP-BiomedBERT-base-uncased-abstract-fulltext",
        ),
        "https://github.com/microsoft/CodeBERT, https://arxiv.org/abs/2007.15779",
        pooling="mean",
        note=_UNTRAINED,
    ),
    Family(
        "dmis-lab",
        ("biobert-v1.1", "biobert-base-cased-v1.2"),
        "https://github.com/dmis-lab/biobert",
        pooling="mean",
        note=_UNTRAINED,
    ),
    Family(
        "allenai",
        ("scibert_scivocab_uncased", "scibert_scivocab_cased"),
        "https://github.com/allenai/scibert",
        pooling="mean",
        note=_UNTRAINED,
    ),
    Family(
        "allenai",
        ("specter", "specter2_base"),
        source_url("allenai", "specter") + " (first token; a paper is its title, [SEP], its abstract)",
        pooling="cls",
        note="a paper is embedded as its title, the separator token and its abstract",
    ),
)

_BY_NAME = {f"{family.owner}/{name}".lower(): family for family in FAMILIES for name in family.names}
# a folder that was copied out of a hub usually has lost its owner
_BY_SHORT_NAME = {name.lower(): family for family in FAMILIES for name in family.names}


def family_of(folder: Path) -> Family | None:
    """Return the family of a model folder by the exact name of a checkpoint: the hub cache's, or the folder's own."""
    for name in _names(folder):
        family = _BY_NAME.get(name) if "/" in name else _BY_SHORT_NAME.get(name)
        if family is not None:
            return family
    return None


def _names(folder: Path) -> Iterable[str]:
    parts = folder.absolute().parts
    if len(parts) >= 3 and parts[-2] == "snapshots" and parts[-3].startswith("models--"):
        # The hub's cache: models--owner--name/snapshots/commit.
        yield parts[-3].removeprefix("models--").replace("--", "/", 1).lower()
        return
    if len(parts) >= 2:
        # the folder above may be called anything, so its own name is tried as well
        yield f"{parts[-2]}/{parts[-1]}".lower()
    yield folder.absolute().name.lower()
