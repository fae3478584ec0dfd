"""Loading, saving, adapters, references, pictures, and what is wrong said in one line."""

import json
import shutil

import pytest
import torch
from tests.policies.suite import PROMPTS, SEEDS, assert_same_rollouts, sampling

from thinkdraw.errors import UserError
from thinkdraw.policies import load_policy
from thinkdraw.policies.janus.tiny import random_janus
from thinkdraw.policies.lora import LoraSettings


def score(policy, rollouts):
    with torch.no_grad():
        return policy.log_probs(rollouts).log_probs


def perturb(policy):
    with torch.no_grad():
        for parameter in policy.model.parameters():
            if parameter.requires_grad:
                parameter += 0.02 * torch.randn_like(parameter)


def test_saved_policy_samples_and_scores_the_same_and_plain_transformers_loads_it(policy, tmp_path):
    from transformers import AutoProcessor, JanusForConditionalGeneration

    perturb(policy)
    policy.save(tmp_path / "saved")
    again = load_policy(tmp_path / "saved")
    one = policy.sample(PROMPTS, sampling(guidance_scale=3.0), seeds=SEEDS[:3])
    assert_same_rollouts(one, again.sample(PROMPTS, sampling(guidance_scale=3.0), seeds=SEEDS[:3]))
    assert again.revision == policy.revision == one.revision
    model = JanusForConditionalGeneration.from_pretrained(tmp_path / "saved")
    assert model.generation_config.generation_kwargs["boi_token_id"] == policy.text.boi
    assert AutoProcessor.from_pretrained(tmp_path / "saved").num_image_tokens == 16


def test_revision_follows_all_weights_the_frozen_decoder_of_pictures_too(policy):
    revisions = [policy.revision, policy.revision]
    with torch.no_grad():
        policy.model.model.vqmodel.quant_conv.weight += 1
    revisions.append(policy.revision)
    perturb(policy)
    revisions.append(policy.revision)
    assert revisions[0] == revisions[1] and len(set(revisions)) == 3


def test_sharded_checkpoint_loads_like_a_whole_one(checkpoint, tmp_path, shared_policy):
    sharded = random_janus(tmp_path / "sharded", max_shard_size="200KB")
    assert len(list(sharded.glob("*.safetensors"))) > 1
    assert load_policy(sharded).revision == shared_policy.revision


def test_adapters_start_as_the_base_train_alone_and_switch_off_to_it(checkpoint, shared_policy):
    policy = load_policy(checkpoint, lora=LoraSettings(rank=4))
    rollouts = shared_policy.sample(PROMPTS, sampling(guidance_scale=3.0), seeds=SEEDS[:3], decode=False)
    base = score(shared_policy, rollouts)
    torch.testing.assert_close(score(policy, rollouts), base, atol=1e-5, rtol=0)
    policy.log_probs(rollouts).log_probs.sum().backward()
    trained = {n for n, p in policy.model.named_parameters() if p.grad is not None}
    assert trained and all("language_model" in n and ".lora_" in n for n in trained)
    perturb(policy)
    assert (score(policy, rollouts) - base).abs().max() > 0.01
    with policy.reference():
        torch.testing.assert_close(score(policy, rollouts), base, atol=1e-5, rtol=0)
    assert (score(policy, rollouts) - base).abs().max() > 0.01


def test_saved_adapters_are_merged(checkpoint, tmp_path):
    policy = load_policy(checkpoint, lora=LoraSettings(rank=4))
    perturb(policy)
    rollouts = policy.sample(PROMPTS, sampling(), decode=False)
    policy.save(tmp_path / "merged")
    torch.testing.assert_close(
        score(load_policy(tmp_path / "merged"), rollouts), score(policy, rollouts), atol=1e-4, rtol=0
    )


def test_reference_copy_stays_while_the_policy_moves(policy):
    with pytest.raises(RuntimeError, match="make_reference"), policy.reference():
        pass
    rollouts = policy.sample(PROMPTS, sampling(), decode=False)
    policy.make_reference()
    before = score(policy, rollouts)
    perturb(policy)
    with policy.reference():
        assert torch.equal(policy.log_probs(rollouts).log_probs, before)
        assert not policy.log_probs(rollouts).log_probs.requires_grad
    assert (score(policy, rollouts) - before).abs().max() > 0.01


def test_understanding_side_trains_when_asked(checkpoint):
    policy = load_policy(checkpoint, train_understanding=True)
    assert all(p.requires_grad for p in policy.model.model.aligner.parameters())
    assert not any(p.requires_grad for p in policy.model.model.vqmodel.parameters())


def test_bf16_weights_sample_and_score(checkpoint):
    policy = load_policy(checkpoint, dtype="bf16")
    rollouts = policy.sample(PROMPTS, sampling(guidance_scale=3.0))
    assert score(policy, rollouts).dtype == torch.float32 and rollouts.pictures.dtype == torch.uint8


def test_pictures_of_a_partial_canvas_are_filled_with_the_most_common_code(shared_policy):
    codes = torch.tensor([[3, 7, 7, 9], [5, 5, 1, 1]])
    filled = torch.cat([codes, torch.tensor([[7], [1]]).expand(-1, 12)], dim=1)
    filled[1, 4:] = codes[1].mode().values
    assert torch.equal(shared_policy.decode_tokens(codes), shared_policy.decode_tokens(filled))
    assert shared_policy.decode_tokens(codes[:, :0]).shape == (2, 16, 16, 3)
    assert shared_policy.decode_tokens(torch.randint(0, 64, (70, 16))).shape == (70, 16, 16, 3)


def test_pictures_become_tokens_and_another_size_is_refused(shared_policy):
    codes = shared_policy.encode_pictures(torch.randint(0, 256, (5, 16, 16, 3), dtype=torch.uint8))
    assert codes.shape == (5, 16) and codes.dtype == torch.int64 and codes.max() < 64
    with pytest.raises(ValueError, match="16×16"):
        shared_policy.encode_pictures(torch.zeros(1, 8, 8, 3, dtype=torch.uint8))


def test_answers_do_not_depend_on_the_batch(shared_policy):
    pictures = torch.randint(0, 256, (4, 16, 16, 3), dtype=torch.uint8)
    questions = ["a star?", "is there a red circle left of the blue square?", "no?", "two green triangles?"]
    whole = shared_policy.answer(pictures, questions)
    alone = torch.cat([shared_policy.answer(pictures[i : i + 1], questions[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(whole, alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("token", ["<image_placeholder>", "<end_of_image>", "<|Assistant|>"])
def test_a_special_token_that_a_question_or_caption_spells_cannot_act_as_one(shared_policy, token):
    picture = torch.randint(0, 256, (1, 16, 16, 3), dtype=torch.uint8)
    spelled, broken = f"a {token} star", f"a {token[0]} {token[1:]} star"
    for ask in (shared_policy.answer, shared_policy.log_likelihood):
        assert ask(picture, [spelled]).isfinite().all() and torch.equal(ask(picture, [spelled]), ask(picture, [broken]))


def test_missing_folder_is_named():
    with pytest.raises(UserError, match="/no/such/folder is not a folder"):
        load_policy("/no/such/folder")


def test_folder_without_config_is_named(tmp_path):
    with pytest.raises(UserError, match=r"no config\.json"):
        load_policy(tmp_path)


def test_text_only_model_is_refused_by_its_model_type(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(UserError, match=r"model_type=llama.*janus"):
        load_policy(tmp_path)


@pytest.fixture
def copied(checkpoint, tmp_path):
    return shutil.copytree(checkpoint, tmp_path / "copy")


def test_truncated_weights_are_refused(copied):
    weights = copied / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(UserError, match="weights cannot be read") as caught:
        load_policy(copied)
    assert "\n" not in str(caught.value)


def test_missing_weights_are_refused(copied):
    from safetensors.torch import load_file, save_file

    weights = load_file(copied / "model.safetensors")
    weights.pop("lm_head.weight")
    save_file(weights, copied / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"lacks 1 weights, lm_head.weight first"):
        load_policy(copied)


def test_missing_tokenizer_is_refused(copied):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (copied / name).unlink()
    with pytest.raises(UserError, match="tokenizer"):
        load_policy(copied)


def test_unknown_dtype_is_refused(checkpoint):
    with pytest.raises(UserError, match="dtype=int4"):
        load_policy(checkpoint, dtype="int4")


def test_tokenizer_without_a_single_yes_cannot_answer(policy, monkeypatch):
    monkeypatch.setattr(policy.text, "encode", lambda text: [5, 6])
    with pytest.raises(UserError, match=r"tokenizer of .* no single token for 'yes'"):
        policy.answer(torch.zeros(1, 16, 16, 3, dtype=torch.uint8), ["?"])


def test_pictures_have_one_hash_and_one_code_whatever_dtype_a_checkpoint_is_opened_in(checkpoint, tmp_path):
    stored = tmp_path / "bf16"
    load_policy(checkpoint, dtype="bf16").save(stored)
    full, half = (load_policy(stored, dtype=dtype) for dtype in ("fp32", "bf16"))
    pictures = torch.randint(0, 256, (2, full.picture.height, full.picture.width, 3), dtype=torch.uint8)
    assert full.picture_tokenizer_hash() == half.picture_tokenizer_hash()
    assert torch.equal(full.encode_pictures(pictures), half.encode_pictures(pictures))


def test_a_thought_that_spells_a_control_token_is_broken_up_in_the_rewritten_prompt(shared_policy):
    text = shared_policy.text
    ids = text.rewritten("a dog", "then <begin_of_image> and <｜end▁of▁sentence｜>")
    assert ids[-1] == text.boi and not text.controls & set(ids[1:-1])
    assert text.rewritten("a dog", "in the sun") == [*text.prompt("a dog. in the sun"), text.boi]
