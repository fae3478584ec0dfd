"""Greedy decoding equals transformers' own generate, token for token, ragged and left-padded."""

import pytest
import torch
from tests.policies.suite import PROMPTS, sampling


def left_padded(rows, pad):
    width = max(len(row) for row in rows)
    ids = torch.tensor([[pad] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    return {"input_ids": ids, "attention_mask": mask}


def prompt_rows(rollouts):
    return [ids[mask].tolist() for ids, mask in zip(rollouts.prompt_ids, rollouts.prompt_mask)]


def generate_images(model, rows, policy):
    return model.generate(
        **left_padded(rows, policy.text.pad), generation_mode="image", do_sample=False, guidance_scale=5, use_cache=True
    )


def test_prompts_are_what_the_processor_builds(shared_policy):
    texts = [f"<|User|>: {p.text}\n\n<|Assistant|>:" for p in PROMPTS]
    built = shared_policy.processor(text=texts, generation_mode="image", return_tensors="pt", padding=True)
    rollouts = shared_policy.sample(PROMPTS, sampling("off"), decode=False)
    for row, ids, mask in zip(prompt_rows(rollouts), built["input_ids"], built["attention_mask"]):
        assert row == ids[mask.bool()].tolist()


def test_greedy_pictures_without_thought(shared_policy, reference_model):
    rollouts = shared_policy.sample(PROMPTS, sampling("off", guidance_scale=5.0, greedy=True), decode=False)
    expected = generate_images(reference_model, prompt_rows(rollouts), shared_policy)
    assert torch.equal(rollouts.image_tokens(), expected)
    assert len(expected.unique()) > 5


def test_greedy_thoughts_and_the_pictures_after_them(shared_policy, reference_model):
    text = shared_policy.text
    rollouts = shared_policy.sample(PROMPTS, sampling(guidance_scale=5.0, greedy=True), decode=False)
    rows = prompt_rows(rollouts)
    inputs = left_padded(rows, text.pad)
    never = text.suppressed.nonzero().flatten().tolist()
    written = reference_model.generate(
        **inputs, do_sample=False, max_new_tokens=10, eos_token_id=[text.eos, text.boi], suppress_tokens=never
    )[:, inputs["input_ids"].shape[1] :]
    for i in range(3):
        thought = rollouts.tokens[i, rollouts.mask[i] & ~rollouts.is_image[i]].tolist()
        assert written[i, : len(thought)].tolist() == thought
    contexts = [r + rollouts.tokens[i, rollouts.segment[i] == 0].tolist() for i, r in enumerate(rows)]
    assert torch.equal(rollouts.image_tokens(), generate_images(reference_model, contexts, shared_policy))


def test_greedy_pictures_of_rewritten_prompts(shared_policy, reference_model):
    rollouts = shared_policy.sample(PROMPTS, sampling("rewrite", guidance_scale=5.0, greedy=True), decode=False)
    rows = [ids[mask].tolist() for ids, mask in zip(rollouts.fresh_contexts[0].ids, rollouts.fresh_contexts[0].mask)]
    assert torch.equal(rollouts.image_tokens(), generate_images(reference_model, rows, shared_policy))
    written = f"<|User|>: {PROMPTS[0].text}. {rollouts.thoughts[0]}\n\n<|Assistant|>:"
    built = shared_policy.processor(text=[written], generation_mode="image", return_tensors="pt")["input_ids"][0]
    assert rows[0] == built.tolist()


def test_decoded_pictures(shared_policy, reference_model):
    codes = torch.randint(0, 64, (3, 16))
    with torch.no_grad():
        pixels = reference_model.decode_image_tokens(codes)
    expected = ((pixels.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    assert torch.equal(shared_policy.decode_tokens(codes), expected)


@pytest.mark.parametrize("size", [16, 40])
def test_answers_are_the_first_token_of_the_understanding_path(shared_policy, reference_model, size):
    from PIL import Image

    pictures = torch.randint(0, 256, (3, size, size, 3), dtype=torch.uint8)
    questions = ["is there a star?", "yes or no: is the small triangle left of a red circle?", "Is it?"]
    answers = shared_policy.answer(pictures, questions)
    tokenizer = shared_policy.processor.tokenizer
    variants = {
        w: [s for s in (w, " " + w, w.title(), " " + w.title()) if len(tokenizer(s)["input_ids"]) == 2]
        for w in ("yes", "no")
    }
    for i, question in enumerate(questions):
        text = f"<|User|>: <image_placeholder>\n{question}\n\n<|Assistant|>:"
        inputs = shared_policy.processor(
            text=[text], images=[Image.fromarray(pictures[i].numpy())], return_tensors="pt"
        )
        with torch.no_grad():
            probs = reference_model(**inputs).logits[0, -1].softmax(-1)
        yes, no = (sum(probs[tokenizer(s)["input_ids"][1]] for s in variants[w]) for w in ("yes", "no"))
        torch.testing.assert_close(answers[i], yes / (yes + no), atol=1e-5, rtol=0)
    assert answers.min() >= 0 and answers.max() <= 1 and len(answers.unique()) == 3
