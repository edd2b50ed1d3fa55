"""The spec: what the model's files say, where each fact comes from, and which encoders share a space."""

from __future__ import annotations

import json
import shutil

import pytest
from models import save_model, save_transformer
from safetensors.torch import load_file, save_file
from sentence_transformers.base.modules import Dense

from llama_index_embed_plus.encoders.open import describe, identify, open_encoder
from llama_index_embed_plus.errors import DamagedModelError
from llama_index_embed_plus.models.config import LEGACY_POOLING
from llama_index_embed_plus.models.pooling import HeadStep
from llama_index_embed_plus.models.spec import EncoderSpec, Overrides, read_spec, space_of
from qdrant_tools.errors import NotSupportedError, UsageError


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("spec") / "model"
    save_model(folder, prompts={"query": "query : ", "document": "a "}, extra=[Dense(32, 16)])
    return folder


@pytest.fixture
def model(saved, tmp_path):
    """A copy to spoil."""
    return shutil.copytree(saved, tmp_path / "model")


def edit(path, **changes):
    """Change values of a JSON file; None removes a key."""
    value = {**(json.loads(path.read_text()) if path.exists() else {}), **changes}
    path.write_text(json.dumps({key: item for key, item in value.items() if item is not None}))


def space(folder, **overrides):
    return space_of(folder, read_spec(folder, Overrides(**overrides)))


def test_the_real_checkpoint(minilm):
    spec = read_spec(minilm)

    assert (spec.name, spec.dimension, spec.max_tokens, spec.pooling) == ("all-MiniLM-L6-v2", 384, 256, ("mean",))
    assert (spec.normalize, spec.include_prompt, spec.query_prompt, spec.head) == (True, True, "", ())


def test_a_model_with_prompts_and_a_layer_on_top(model):
    spec = read_spec(model)

    assert (spec.query_prompt, spec.passage_prompt) == ("query : ", "a ")
    assert spec.head == (HeadStep("dense", "2_Dense", "tanh"),)
    assert spec.dimension == 16
    assert spec.sources["query_prompt"] == "config_sentence_transformers.json (query)"


@pytest.mark.parametrize(("key", "mode"), LEGACY_POOLING.items())
def test_the_pooling_config_of_old_versions_is_read(model, key, mode):
    flags = {name: name == key for name in LEGACY_POOLING}
    (model / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 32, **flags}))

    assert read_spec(model).pooling == (mode,)


def test_old_versions_join_poolings_in_a_fixed_order(model):
    flags = {"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True, "pooling_mode_cls_token": True}
    (model / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 32, **flags}))
    (model / "modules.json").write_text(json.dumps(json.loads((model / "modules.json").read_text())[:2]))

    spec = read_spec(model)

    assert (spec.pooling, spec.dimension) == (("cls", "max", "mean"), 96)


@pytest.mark.parametrize("name", ["document", "passage", "corpus"])
def test_the_passage_prompt_goes_by_three_names(model, name):
    edit(model / "config_sentence_transformers.json", prompts={"query": "q", name: "p"})

    assert read_spec(model).passage_prompt == "p"


def test_the_longest_input_comes_from_the_first_file_that_states_it(model):
    assert (read_spec(model).max_tokens, read_spec(model).sources["max_tokens"]) == (24, "tokenizer_config.json")
    edit(model / "sentence_bert_config.json", max_seq_length=12)
    assert (read_spec(model).max_tokens, read_spec(model).sources["max_tokens"]) == (12, "sentence_bert_config.json")
    edit(model / "sentence_bert_config.json", max_seq_length=100_000)
    assert read_spec(model).max_tokens == 66, "there are no more positions"


def test_a_roberta_cannot_use_its_first_two_positions(tmp_path):
    folder = save_transformer(tmp_path / "model", family="roberta")
    edit(folder / "tokenizer_config.json", model_max_length=None)

    assert read_spec(folder).max_tokens == 64


def test_a_plain_transformers_folder_is_mean_pooled_and_says_that_this_is_assumed(tmp_path, caplog):
    folder = save_transformer(tmp_path / "model")

    description = describe(folder)
    open_encoder(folder, device="cpu")

    assert description.spec.pooling == ("mean",)
    assert "pooling is assumed" in description.notes
    assert "pooling=('mean',) is assumed: no pooling config in the folder of an encoder" in caplog.text


def test_a_plain_decoder_is_pooled_at_its_last_token(tmp_path):
    folder = save_transformer(tmp_path / "model", family="qwen2")
    edit(folder / "config.json", architectures=["Qwen2ForCausalLM"])

    assert read_spec(folder).pooling == ("lasttoken",)


def test_a_published_checkpoint_whose_files_are_silent_gets_its_familys_facts(tmp_path):
    folder = save_transformer(tmp_path / "e5-small-v2")

    spec = read_spec(folder)

    assert (spec.query_prompt, spec.passage_prompt, spec.pooling) == ("query: ", "passage: ", ("mean",))
    assert spec.sources["query_prompt"].startswith("https://huggingface.co/intfloat/e5-base-v2")


def test_a_models_own_files_win_over_its_family(tmp_path):
    save_model(tmp_path / "e5-small-v2", pooling="cls", prompts={"query": "", "document": ""})

    spec = read_spec(tmp_path / "e5-small-v2")

    assert (spec.query_prompt, spec.passage_prompt, spec.pooling) == ("", "", ("cls",))


def test_a_name_that_only_contains_a_published_one_is_no_family(tmp_path):
    assert read_spec(save_transformer(tmp_path / "my-e5-small-v2-tuned")).query_prompt == ""


def test_the_space_does_not_depend_on_name_place_or_file_format(model, tmp_path):
    before = space(model)
    moved = shutil.copytree(model, tmp_path / "elsewhere")
    weights = load_file(moved / "model.safetensors")
    halves = [dict(list(weights.items())[i::2]) for i in (0, 1)]
    (moved / "model.safetensors").unlink()
    for i, half in enumerate(halves):
        save_file(half, moved / f"part-{i}.safetensors", metadata={"format": "pt", "other": "header"})
    index = {name: f"part-{i}.safetensors" for i, half in enumerate(halves) for name in half}
    (moved / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    edit(moved / "tokenizer.json", truncation=None, padding=None)

    assert space(moved) == before


@pytest.mark.parametrize(
    "overrides",
    [
        {"pooling": "cls"},
        {"query_prompt": "search : "},
        {"passage_prompt": "document : "},
        {"normalize": False},
        {"max_tokens": 12},
        {"truncate_dim": 8},
        {"long_text": "mean"},
        {"include_prompt": False},
    ],
    ids=lambda overrides: next(iter(overrides)),
)
def test_whatever_changes_vectors_changes_the_space(model, overrides):
    assert space(model, **overrides) != space(model)


def test_overrides_that_say_what_the_files_say_change_nothing(model):
    spec = read_spec(model)
    same = {name: getattr(spec, name) for name in Overrides.__dataclass_fields__}

    assert read_spec(model, Overrides(**same)) == spec
    assert space(model, **same) == space(model)


def test_one_changed_weight_changes_the_space(model):
    before = space(model)
    weights = load_file(model / "model.safetensors")
    weights["embeddings.word_embeddings.weight"][7, 3] += 1e-3
    save_file(weights, model / "model.safetensors")

    assert space(model) != before


def test_one_changed_word_of_the_tokenizer_changes_the_space(model):
    before = space(model)
    text = (model / "tokenizer.json").read_text()
    (model / "tokenizer.json").write_text(text.replace('"river"', '"rivers"'))

    assert space(model) != before


def test_a_layer_on_top_is_part_of_the_space(model):
    before = space(model)
    weights = load_file(model / "2_Dense" / "model.safetensors")
    weights["linear.bias"][0] += 1.0
    save_file(weights, model / "2_Dense" / "model.safetensors")

    assert space(model) != before


def test_a_spec_survives_json(model):
    spec = read_spec(model)

    assert EncoderSpec.from_dict(json.loads(json.dumps(spec.as_dict()))) == spec


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("config.json", None, "config.json is missing"),
        ("config.json", "{", "config.json is no JSON .*; fetch it again"),
        ("config.json", "[]", "holds a list, expected a JSON object"),
        ("config.json", '{"model_type": "bert"}', "states no width, expected one of hidden_size"),
        ("config.json", '{"model_type": "bert", "hidden_size": 64, "vocab_size": 42}', "belongs to another model"),
        ("modules.json", '[{"type": "x"}]', "modules.json is damaged, expected a list of modules"),
        ("1_Pooling/config.json", None, "1_Pooling/config.json is missing"),
        ("1_Pooling/config.json", '{"pooling_mode": "middle"}', "asks for pooling .'middle',., expected some of cls"),
        ("1_Pooling/config.json", '{"embedding_dimension": 7}', "states 7 dimensions, config.json 32"),
        (
            "2_Dense/config.json",
            '{"in_features": 5, "out_features": 5}',
            "states 5 to 5 values, its weights map 32 to 16",
        ),
        ("2_Dense/config.json", '{"in_features": "many"}', "in_features is 'many', expected a whole number"),
        ("2_Dense/model.safetensors", None, "holds no linear.weight"),
        (
            "tokenizer_config.json",
            '{"model_max_length": "long"}',
            "model_max_length is 'long', expected a whole number",
        ),
        ("config_sentence_transformers.json", '{"prompts": []}', "prompts is .., expected an object"),
        ("config_sentence_transformers.json", '{"truncate_dim": 99}', "truncate_dim is 99, expected 1 to 16"),
        ("tokenizer.json", None, "vocab.txt is missing"),
        ("model.safetensors", None, "model.safetensors is missing; only safetensors weights are read"),
        ("model.safetensors", "", "is damaged: its header claims"),
        ("model.safetensors", "\x02\0\0\0\0\0\0\0[]", "is damaged: its header is no JSON object"),
    ],
)
def test_a_missing_damaged_or_contradicting_file_is_named(model, file, content, said):
    (model / file).unlink()
    if content is not None:
        (model / file).write_text(content)

    with pytest.raises(DamagedModelError, match=said):
        identify(model)


def test_weights_that_end_too_early_are_named(model):
    data = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(data[:-100])

    with pytest.raises(DamagedModelError, match="model.safetensors is cut short or damaged at tensor"):
        identify(model)


def test_weights_in_a_pickle_are_not_read(model):
    (model / "model.safetensors").rename(model / "pytorch_model.bin")

    with pytest.raises(DamagedModelError, match="only safetensors weights are read"):
        identify(model)


def test_a_path_that_leads_out_of_the_folder_is_refused(model):
    modules = json.loads((model / "modules.json").read_text())
    modules[1]["path"] = "../../secrets"
    (model / "modules.json").write_text(json.dumps(modules))

    with pytest.raises(DamagedModelError, match="names '../../secrets', expected a path inside the folder"):
        identify(model)


def test_a_module_that_is_not_computed_is_refused_by_name(model):
    modules = json.loads((model / "modules.json").read_text())
    modules[1]["type"] = "sentence_transformers.models.LSTM"
    (model / "modules.json").write_text(json.dumps(modules))

    with pytest.raises(NotSupportedError, match="asks for the module 'LSTM'"):
        identify(model)


def test_a_module_that_is_the_models_own_code_is_refused(model):
    modules = json.loads((model / "modules.json").read_text())
    modules[0]["type"] = "custom_st.Transformer"
    (model / "modules.json").write_text(json.dumps(modules))

    with pytest.raises(NotSupportedError, match="asks for 'custom_st.Transformer', which is code in the model's own"):
        identify(model)


def test_a_lora_adapter_alone_is_no_model(model):
    (model / "adapter_config.json").write_text("{}")

    with pytest.raises(NotSupportedError, match="holds a LoRA adapter; merge it into its base model"):
        identify(model)


@pytest.mark.parametrize(
    "setting",
    [
        {"query_length": 32},
        {"query_expansion": {"strategy": "fixed", "length": 32}},
        {"transformer_task": "text-generation"},
        {"modality_config": {"message": {"method": "forward", "method_output_name": "last_hidden_state"}}},
        {"modality_config": {"text": {"method": "get_text_features", "method_output_name": "pooler_output"}}},
    ],
    ids=lambda setting: next(iter(setting)),
)
def test_a_way_to_read_texts_that_is_not_computed_is_refused(model, setting):
    edit(model / "sentence_bert_config.json", **setting)

    with pytest.raises(NotSupportedError, match=f"asks for {next(iter(setting))}="):
        identify(model)


def test_an_activation_is_never_imported_by_name(model):
    edit(model / "2_Dense" / "config.json", activation_function="os.system")

    with pytest.raises(NotSupportedError, match="asks for the activation 'os.system'"):
        identify(model)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"pooling": "middle"}, "pooling is .'middle',., expected some of cls"),
        ({"truncate_dim": 17}, "truncate_dim is 17, expected 1 to 16"),
        ({"max_tokens": 0}, "max_tokens is 0, expected at least 1"),
        ({"max_tokens": 67}, "max_tokens is 67, this model has 66 positions"),
        ({"long_text": "ignore"}, "long_text is 'ignore', expected one of truncate, mean, error"),
        ({"pooling": ("cls", "mean")}, "does not fit this model's layers"),
        ({"query_prompt": 7}, "query_prompt is 7, expected str"),
        ({"normalize": "yes"}, "normalize is 'yes', expected bool"),
    ],
)
def test_an_override_that_cannot_be_honoured_is_refused(model, overrides, said):
    with pytest.raises(UsageError, match=said):
        read_spec(model, Overrides(**overrides))
