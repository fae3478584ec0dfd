"""DeepSeek's layout holds the same model: names, files and numbers, against transformers' layout and DeepSeek's class."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.policies.janus import deepseek_fixture
from torch import Tensor

from thinkdraw.errors import UserError
from thinkdraw.planning.shapes import find_shape
from thinkdraw.policies import load_policy
from thinkdraw.policies.janus import loading, shape, tiny, vq
from thinkdraw.policies.janus.deepseek import configs, names
from thinkdraw.policies.janus.policy import JanusPolicy
from thinkdraw.types import Prompt, Sampling

OUTPUTS = Path(__file__).with_name("deepseek_outputs.safetensors")
PROMPTS = [Prompt("a red circle"), Prompt("two blue squares left of a star")]


@pytest.fixture(scope="module")
def hf(tmp_path_factory) -> Path:
    return tiny.random_janus(tmp_path_factory.mktemp("janus") / "hf")


@pytest.fixture(scope="module")
def deepseek(hf: Path) -> Path:
    """The same weights in DeepSeek's layout."""
    folder = hf.parent / "deepseek"
    loading.write_deepseek(opened(hf), folder)
    return folder


@pytest.fixture
def broken(deepseek: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(deepseek, tmp_path / "broken"))


def opened(folder: Path) -> JanusPolicy:
    policy = load_policy(folder)
    assert isinstance(policy, JanusPolicy)
    return policy


# Names


def test_names_go_both_ways_and_no_two_weights_share_one():
    weights = {n: torch.zeros(3, 1) for n in _all_names()}
    renamed = names.to_deepseek(weights)
    # Of each attention of the tower, three weights and three biases become one of each.
    stacked = sum(".self_attn.q_proj." in n and n.startswith("model.vision_model") for n in weights)
    assert stacked == 2 * 24 and len(renamed) == len(weights) - 2 * stacked
    assert set(names.to_transformers(renamed)) == set(weights)


def _all_names() -> list[str]:
    """Every weight of Janus-Pro, with two layers of its language model."""
    from transformers import JanusForConditionalGeneration

    with torch.device("meta"):
        return list(JanusForConditionalGeneration(shape.janus_pro_config("janus-pro-1b", num_layers=2)).state_dict())


@pytest.mark.parametrize(
    ("deepseeks", "transformers"),
    [  # from DeepSeek's and transformers' classes
        ("language_model.model.layers.3.self_attn.q_proj.weight", "model.language_model.layers.3.self_attn.q_proj.weight"),
        ("language_model.lm_head.weight", "lm_head.weight"),
        ("vision_model.vision_tower.blocks.7.attn.proj.bias", "model.vision_model.encoder.layers.7.self_attn.projection_layer.bias"),
        ("vision_model.vision_tower.blocks.7.norm2.weight", "model.vision_model.encoder.layers.7.layer_norm2.weight"),
        ("vision_model.vision_tower.norm.bias", "model.vision_model.post_layernorm.bias"),
        ("vision_model.vision_tower.patch_embed.proj.weight", "model.vision_model.embeddings.patch_embedding.weight"),
        ("gen_vision_model.encoder.conv_blocks.4.res.1.nin_shortcut.weight", "model.vqmodel.encoder.down.4.block.1.nin_shortcut.weight"),
        ("gen_vision_model.decoder.mid.1.proj_out.bias", "model.vqmodel.decoder.mid.attn_1.proj_out.bias"),
        ("gen_vision_model.encoder.norm_out.weight", "model.vqmodel.encoder.norm_out.weight"),
        ("gen_aligner.layers.2.weight", "model.generation_aligner.hidden_layers.0.weight"),
        ("gen_head.output_mlp_projector.weight", "model.generation_head.proj_out.weight"),
    ],
)  # fmt: skip
def test_a_weight_has_the_name_of_either_class(deepseeks: str, transformers: str):
    weight = torch.ones(1)
    assert list(names.to_transformers({deepseeks: weight})) == [transformers]
    assert list(names.to_deepseek({transformers: weight})) == [deepseeks]


def test_what_nothing_reads_is_left_out_and_what_is_unknown_is_refused():
    unused = ("vision_model.vision_tower.attn_pool.latent", "gen_vision_model.quantize.codebook_used")
    assert names.to_transformers(dict.fromkeys(unused, torch.ones(1))) == {}
    with pytest.raises(UserError, match=r"vision_gen_dec_model.*JanusFlow"):
        names.to_transformers({"vision_gen_dec_model.weight": torch.ones(1)})


# The same model


@pytest.mark.parametrize("thought", ["inline", "rewrite", "off"])
def test_both_layouts_sample_score_and_answer_bit_for_bit_alike(hf: Path, deepseek: Path, thought):
    one, two = opened(hf), opened(deepseek)
    settings = Sampling(thought=thought, max_thought_tokens=8, guidance_scale=5.0)
    here, there = (policy.sample(PROMPTS, settings, group_size=2, seed=3) for policy in (one, two))
    assert torch.equal(here.tokens, there.tokens) and torch.equal(here.log_probs, there.log_probs)
    assert here.pictures is not None and there.pictures is not None and torch.equal(here.pictures, there.pictures)
    assert torch.equal(one.log_probs(here).log_probs, two.log_probs(here).log_probs)
    # Its questions begin with the system prompt, as DeepSeek's processor has it; without it, they are the same question.
    two.text.before_questions = one.text.before_questions
    questions = ["is it red?"] * len(here)
    assert torch.equal(one.answer(here.pictures, questions), two.answer(here.pictures, questions))


def test_there_and_back_every_weight_and_every_token_id_is_the_same(hf: Path, deepseek: Path, tmp_path: Path):
    policy = opened(deepseek)
    policy.save(tmp_path / "back")
    before, after = load_file(hf / "model.safetensors"), load_file(tmp_path / "back" / "model.safetensors")
    assert before.keys() == after.keys() and all(torch.equal(before[n], after[n]) for n in before)
    first, back = opened(hf), opened(tmp_path / "back")
    assert first.text.vocabulary_hash == back.text.vocabulary_hash and first.revision == back.revision
    # What was found is kept: plain transformers, too, will ask with the system prompt.
    assert back.processor.use_default_system_prompt and not first.processor.use_default_system_prompt


@pytest.mark.parametrize("layout", ["sharded safetensors", "bin", "sharded bin"])
def test_weights_are_read_from_whichever_files_there_are(hf: Path, broken: Path, layout: str):
    weights = load_file(broken / "model.safetensors")
    (broken / "model.safetensors").unlink()
    halves = [dict(list(weights.items())[::2]), dict(list(weights.items())[1::2])]
    if layout == "bin":
        torch.save(weights, broken / "pytorch_model.bin")
    elif layout == "sharded bin":
        _write_shards(broken, "pytorch_model", ".bin", halves, torch.save)
    else:
        _write_shards(broken, "model", ".safetensors", halves, save_file)
    assert opened(broken).revision == opened(hf).revision


def _write_shards(folder: Path, stem: str, suffix: str, parts: list[dict[str, Tensor]], save) -> None:
    files = [f"{stem}-{i + 1:05d}-of-{len(parts):05d}{suffix}" for i in range(len(parts))]
    for file, part in zip(files, parts, strict=True):
        save({name: weight.contiguous() for name, weight in part.items()}, folder / file)
    index = {name: file for file, part in zip(files, parts, strict=True) for name in part}
    (folder / f"{stem}{suffix}.index.json").write_text(json.dumps({"weight_map": index}))


def test_a_plan_reads_the_sizes_of_the_layout():
    # DeepSeek's config.json of Janus-Pro-1B, without what Llama's defaults say.
    language = {"hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 24, "num_attention_heads": 16,
                "num_key_value_heads": 16, "vocab_size": 102400, "max_position_embeddings": 16384}  # fmt: skip
    config = configs.to_deepseek(shape.janus_pro_config("janus-pro-1b"), "bfloat16") | {"language_config": language}
    read = shape.JanusShape(configs.to_transformers(config, None, configs.IMAGE_TOKEN_ID))
    assert read.weights(None) == shape.JanusShape.of_published("janus-pro-1b").weights(None)


# Against DeepSeek's own class


@pytest.fixture(scope="module")
def upstream(tmp_path_factory) -> tuple[JanusPolicy, dict, dict[str, Tensor]]:
    folder = deepseek_fixture.write_checkpoint(tmp_path_factory.mktemp("deepseek"))
    return opened(folder), deepseek_fixture.inputs(folder), load_file(OUTPUTS)


@torch.no_grad()
def test_log_probs_of_texts_and_codes_are_those_of_deepseeks_class(upstream):
    policy, given, outputs = upstream
    ids, codes, inner = given["ids"], given["codes"], policy.model.model
    embedded = [inner.get_input_embeddings()(ids), policy.model.prepare_embeddings_for_image_generation(codes)]
    hidden = inner.language_model(inputs_embeds=torch.cat(embedded, 1)).last_hidden_state
    text = policy.model.lm_head(hidden[:, : ids.shape[1]]).log_softmax(-1)
    image = inner.generation_head(hidden[:, ids.shape[1] - 1 : -1]).log_softmax(-1)
    assert (text - outputs["text_log_probs"]).abs().max() < 1e-4
    assert (image - outputs["image_log_probs"]).abs().max() < 1e-4


def test_pictures_become_the_codes_of_deepseeks_class_and_codes_its_pictures(upstream):
    policy, given, outputs = upstream
    vqmodel = policy.model.model.vqmodel
    assert torch.equal(vq.encode(vqmodel, given["pixels"]), outputs["codes"].long())
    # Random weights overshoot [-1, 1] up to 12: what is compared is relative to that.
    assert (vq.decode(vqmodel, given["codes"]) - outputs["decoded"]).abs().max() < 1e-4 * outputs["decoded"].abs().max()


@torch.no_grad()
def test_a_question_has_the_ids_of_deepseeks_processor_and_its_answer_the_log_probs_of_its_class(upstream):
    policy, given, outputs = upstream
    assert policy.text.question("Is there a star?") == given["question"][0].tolist()
    batch = {"input_ids": given["question"], "pixel_values": given["pixels"]}
    answers = policy.model(**batch).logits[:, -1].log_softmax(-1)
    assert (answers - outputs["answer_log_probs"]).abs().max() < 1e-4


def test_greedy_drawing_with_guidance_gives_the_codes_of_deepseeks_loop(upstream):
    policy, given, outputs = upstream
    prompts = [Prompt("a red circle"), Prompt("a red square")]
    assert [[*policy.text.prompt(p.text), policy.text.boi] for p in prompts] == given["ids"].tolist()
    drawn = policy.sample(prompts, Sampling(thought="off", guidance_scale=5.0, temperature=1e-3), seed=0)
    assert torch.equal(drawn.tokens[drawn.is_image].view(2, -1), outputs["greedy"].long())


# What can be wrong


def test_what_is_wrong_with_a_checkpoint_is_said_in_a_line(broken: Path):
    weights = load_file(broken / "model.safetensors")
    save_file({n: w for n, w in weights.items() if n != "gen_embed.weight"}, broken / "model.safetensors")
    with pytest.raises(UserError, match=r"lacks 1 weights, model\.generation_embeddings\.weight"):
        opened(broken)
    save_file({n: w for n, w in weights.items() if "patch_embed" not in n}, broken / "model.safetensors")
    with pytest.raises(UserError, match=r"lacks 'model.vision_model.embeddings.patch_embedding.weight'"):
        opened(broken)
    (broken / "model.safetensors").write_bytes((broken / "model.safetensors").read_bytes()[:5000])
    with pytest.raises(UserError, match=r"model\.safetensors cannot be read .*Copy or download it again"):
        opened(broken)
    (broken / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 2\n")
    with pytest.raises(UserError, match="is a git-lfs pointer"):
        opened(broken)
    (broken / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"model\.safetensors"):
        opened(broken)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"garbage", "pytorch_model.bin cannot be read"),
        (Path("/nowhere"), "pytorch_model.bin cannot be read"),  # pickled code: refused, and not run
        ([1, 2], "something else than named weights"),
    ],
)
def test_a_bin_that_holds_no_weights_is_refused_in_a_line(broken: Path, content, says: str):
    (broken / "model.safetensors").unlink()
    file = broken / "pytorch_model.bin"
    file.write_bytes(content) if isinstance(content, bytes) else torch.save(content, file)
    with pytest.raises(UserError, match=says):
        opened(broken)


def test_weights_that_are_no_numbers_of_janus_are_refused(broken: Path):
    weights = load_file(broken / "model.safetensors")
    head = "language_model.lm_head.weight"
    for changed, says in (
        ({head: weights[head].int()}, r"lm_head\.weight holds torch\.int32"),
        ({"language_model.model.foo.weight": torch.ones(2)}, r"1 weights that are none of Janus's"),
        (
            {"vision_model.vision_tower.patch_embed.proj.weight": torch.ones(2, 3, 4)},
            "config.json and the weights do not fit",
        ),
    ):
        save_file(weights | changed, broken / "model.safetensors")
        with pytest.raises(UserError, match=says):
            opened(broken)


@pytest.mark.parametrize(
    ("file", "key", "value", "says"),
    [
        ("config.json", "vision_config", {"params": {"select_layer": -2}}, "select_layer=-2"),
        ("config.json", "vision_config", {"params": {"model_name": "sam_b"}}, "vision tower 'sam_b' is none of"),
        ("config.json", "language_config", None, "no language_config"),
        ("config.json", "language_config", {"hidden_size": "x"}, "config.json and the weights do not fit"),
        ("config.json", "vision_config", {"params": {"heads": 0}}, "config.json and the weights do not fit"),
        ("processor_config.json", "sft_format", "plain", "sft_format='plain'"),
    ],
)
def test_a_setting_that_would_make_another_model_is_refused(broken: Path, file: str, key: str, value, says: str):
    content = json.loads((broken / file).read_text())
    content = {n: v for n, v in content.items() if n != key} | ({} if value is None else {key: value})
    (broken / file).write_text(json.dumps(content))
    with pytest.raises(UserError, match=says):
        opened(broken)


def test_a_plan_of_a_folder_in_the_layout_counts_the_language_model(deepseek: Path, hf: Path):
    assert find_shape(str(deepseek)).layers == find_shape(str(hf)).layers
