"""`VlmJudge` on tiny random LLaVA, LLaVA-OneVision, Qwen2.5-VL and Janus checkpoints, against plain transformers."""

import json
import re
import shutil
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tests.judges import helpers_vlm as tiny
from transformers import AutoModelForImageTextToText, AutoTokenizer
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.janus.image_processing_pil_janus import JanusImageProcessorPil
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from thinkdraw.errors import UserError
from thinkdraw.judges import load_judge
from thinkdraw.judges.questioners.vlm import VlmJudge
from thinkdraw.policies.janus.tiny import random_janus
from thinkdraw.types import Questioner, Request, Writer

QUESTIONS = ["Is there a cup?", "Is there a red circle in the picture? yes", "a?", "two cups", "Is there a cup?"]
SPELLINGS = ("yes", "Yes", "Ġyes", "ĠYes"), ("no", "No", "Ġno", "ĠNo")
FAMILIES = {"llava": tiny.llava, "onevision": tiny.onevision, "qwen": tiny.qwen, "janus": random_janus}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {name: make(tmp_path_factory.mktemp(name)) for name, make in FAMILIES.items()}


@pytest.fixture(scope="module")
def judges(folders):
    return {name: VlmJudge(folder, device="cpu", max_new_tokens=4) for name, folder in folders.items()}


def by_hand(name, folder, picture, text):
    """Ids, pixels and what else the model takes, for one picture and one user text, as the family's paper has it."""
    image = [Image.fromarray(picture.numpy())]
    if name == "llava":
        seen = CLIPImageProcessorPil.from_pretrained(folder)(image, return_tensors="pt")
        prompt = f"USER: {'<image>' * 4}\n{text} ASSISTANT:"  # 28 / 14 = 2, 2 × 2 patches
    elif name == "onevision":
        seen = LlavaOnevisionImageProcessorPil.from_pretrained(folder)(image, return_tensors="pt")
        # the whole picture in 2 × 2 patches, the same enlarged once more, and a token for the end of each of its rows
        prompt = f"<|im_start|>user {'<image>' * (4 + 4 + 2)}\n\n{text}<|im_end|><|im_start|>assistant\n"
    elif name == "janus":
        seen = JanusImageProcessorPil.from_pretrained(folder)(image, return_tensors="pt")
        # 16 pixels in patches of 4: 4 × 4 tokens between the two ends of a picture
        placeholder = f"<begin_of_image>{'<image_placeholder>' * 16}<end_of_image>"
        prompt = f"<|User|>: {placeholder}\n{text}\n\n<|Assistant|>:"
    else:
        seen = Qwen2VLImageProcessorPil.from_pretrained(folder)(image, return_tensors="pt")
        # 28 pixels are less than min_pixels = 56 × 56: enlarged to that, 4 × 4 patches, 2 × 2 of them to a token
        picture_tokens = f"<|vision_start|>{'<|image_pad|>' * 4}<|vision_end|>"
        prompt = (
            "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
            f"<|im_start|>user\n{picture_tokens}{text}<|im_end|>\n<|im_start|>assistant\n"
        )
    ids = AutoTokenizer.from_pretrained(folder)(prompt, return_tensors="pt")["input_ids"]
    inputs = {"input_ids": ids, **seen}
    if name == "qwen":
        inputs["mm_token_type_ids"] = (ids == AutoTokenizer.from_pretrained(folder).vocab["<|image_pad|>"]).int()
    return inputs


@pytest.mark.parametrize("name", FAMILIES)
def test_p_yes_is_the_share_of_yes_among_both_words_in_a_plain_forward(folders, judges, name):
    folder, pictures = folders[name], tiny.pictures(5)
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    vocabulary = AutoTokenizer.from_pretrained(folder).get_vocab()
    expected = []
    for picture, question in zip(pictures, QUESTIONS):
        with torch.no_grad():
            logits = model(**by_hand(name, folder, picture, f"{question} Answer yes or no.")).logits[0, -1]
        yes, no = (logits.softmax(-1)[[vocabulary[t] for t in tokens if t in vocabulary]].sum() for tokens in SPELLINGS)
        expected.append(yes / (yes + no))
    p = judges[name].answer(pictures, QUESTIONS)
    assert torch.allclose(p, torch.stack(expected), atol=1e-5), (p, expected)
    assert p.dtype == torch.float32 and not p.requires_grad and p.min() >= 0 and p.max() <= 1
    same_question = judges[name].answer(pictures, ["Is there a cup?"] * 5)
    assert same_question.std() > 1e-3  # the picture matters


@pytest.mark.parametrize("name", FAMILIES)
def test_a_rows_number_does_not_depend_on_the_rows_beside_it(folders, judges, name):
    pictures = tiny.pictures(5)
    together = judges[name].answer(pictures, QUESTIONS)
    alone = torch.cat([judges[name].answer(pictures[i : i + 1], [QUESTIONS[i]]) for i in range(5)])
    in_parts = VlmJudge(folders[name], device="cpu", max_rows=2).answer(pictures, QUESTIONS)
    assert (together - alone).abs().max() <= 1e-5 and (together - in_parts).abs().max() <= 1e-5
    assert judges[name].answer(pictures[:0], []).shape == (0,)


@pytest.mark.parametrize("name", FAMILIES)
def test_what_it_writes_is_the_most_likely_token_again_and_again(folders, judges, name):
    model = AutoModelForImageTextToText.from_pretrained(folders[name], dtype=torch.float32).eval()
    tokenizer, picture = AutoTokenizer.from_pretrained(folders[name]), tiny.pictures(1)[0]
    inputs = by_hand(name, folders[name], picture, "two cups")
    start = inputs["input_ids"].shape[1]
    for _ in range(4):
        with torch.no_grad():
            token = model(**inputs).logits[:, -1:].argmax(-1)
        inputs["input_ids"] = torch.cat([inputs["input_ids"], token], 1)
        if token == tokenizer.eos_token_id:
            break
        if name == "qwen":
            inputs["mm_token_type_ids"] = torch.nn.functional.pad(inputs["mm_token_type_ids"], (0, 1))
    expected = tokenizer.decode(inputs["input_ids"][0, start:], skip_special_tokens=True).strip()
    if token != tokenizer.eos_token_id:  # nobody knows whether the word is whole that it was cut in
        expected = re.sub(r"\S*$", "", expected).strip()
    requests = [
        Request("two cups", (picture.numpy(),)),
        Request("hello"),
        Request("b?", tuple(tiny.pictures(2).numpy())),
    ]
    written = judges[name].write(requests)
    assert written[0] == (expected or None)
    assert written == [judges[name].write([request])[0] for request in requests]
    assert isinstance(judges[name], Questioner) and isinstance(judges[name], Writer)


def test_pictures_are_prepared_as_published(judges):
    # CLIP's for LLaVA-1.5: shortest edge to 28 by PIL's bicubic filter, the centre, / 255, mean and deviation
    wide = tiny.pictures(1, size=56)[0].repeat(1, 2, 1)  # 56 × 112 → 28 × 56 → columns 14 to 41
    resized = np.asarray(Image.fromarray(wide.numpy()).resize((56, 28), Image.Resampling.BICUBIC))[:, 14:42]
    expected = (resized / 255 - np.array(tiny.CLIP_MEAN)) / np.array(tiny.CLIP_STD)
    found = judges["llava"].processor.image_processor(wide.numpy(), return_tensors="np").pixel_values[0]
    assert np.abs(found.transpose(1, 2, 0) - expected).max() <= 1e-5


def test_a_mass_below_the_least_is_no_verdict(folders, judges):
    pictures = tiny.pictures(5)
    strict = VlmJudge(folders["llava"], device="cpu", min_yes_no_mass=1.0)  # softmax leaves something to other tokens
    assert strict.answer(pictures, QUESTIONS).isnan().all()
    assert not judges["llava"].answer(pictures, QUESTIONS).isnan().any()


def test_special_tokens_in_a_question_are_broken_up(judges):
    picture = tiny.pictures(1)
    for name, token, broken in [("qwen", "<|image_pad|>", "< |image_pad|>"), ("llava", "<image>", "< image>")]:
        injected = judges[name].answer(picture, [f"a cup {token}"])
        assert injected.isfinite().all() and injected == judges[name].answer(picture, [f"a cup {broken}"])


def test_a_question_format_and_template_settings_reach_the_model(folders, tmp_path):
    folder = shutil.copytree(folders["llava"], tmp_path / "vlm")
    bare = VlmJudge(folder, device="cpu", question_format="{question}")
    usual = VlmJudge(folder, device="cpu")
    pictures = tiny.pictures(2)
    asked = [f"{q} Answer yes or no." for q in QUESTIONS[:2]]
    assert torch.equal(bare.answer(pictures, asked), usual.answer(pictures, QUESTIONS[:2]))
    template = (folder / "chat_template.jinja").read_text() + "{% if loud %} maybe{% endif %}"
    (folder / "chat_template.jinja").write_text(template)
    plain, loud = (VlmJudge(folder, device="cpu", chat_template_kwargs=s) for s in ({}, {"loud": True}))
    assert torch.equal(plain.answer(pictures, asked), usual.answer(pictures, asked))
    assert not torch.allclose(loud.answer(pictures, asked), usual.answer(pictures, asked), atol=1e-3)
    assert len({bare.revision, usual.revision, plain.revision, loud.revision}) == 4


def test_the_revision_follows_the_weights(folders, judges, tmp_path):
    folder = shutil.copytree(folders["llava"], tmp_path / "vlm")
    assert VlmJudge(folder, device="cpu").revision == judges["llava"].revision
    weights = load_file(folder / "model.safetensors")
    weights["language_model.lm_head.weight" if "language_model.lm_head.weight" in weights else "lm_head.weight"][
        3, 3
    ] += 1
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    assert VlmJudge(folder, device="cpu").revision != judges["llava"].revision


def test_bf16_weights_give_nearly_the_same_numbers(folders, judges):
    half = VlmJudge(folders["llava"], device="cpu", dtype="bf16")
    p = half.answer(tiny.pictures(5), QUESTIONS)
    assert half.model.dtype == torch.bfloat16 and p.dtype == torch.float32
    assert torch.allclose(p, judges["llava"].answer(tiny.pictures(5), QUESTIONS), atol=0.1)


def spoil(folder, what):
    if what == "model_type":
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"model_type": "clip"}))
    elif what == "lm_head":
        weights = {k: v for k, v in load_file(folder / "model.safetensors").items() if "lm_head" not in k}
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
    else:
        (folder / what).unlink()


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("config.json", "has no config.json"),
        ("model_type", "model_type=clip, which answers no questions"),
        ("model.safetensors", "cannot be read"),
        ("lm_head", "lacks 1 weights, .*lm_head"),
        ("tokenizer.json", "tokenizer"),
        ("preprocessor_config.json", "tokenizer or image processor cannot be read"),
        ("chat_template.jinja", "has no chat template"),
    ],
)
def test_a_checkpoint_that_is_not_right_is_named_in_one_line(folders, tmp_path, what, message):
    folder = shutil.copytree(folders["llava"], tmp_path / "vlm")
    spoil(folder, what)
    with pytest.raises(UserError, match=message) as caught:
        VlmJudge(folder, device="cpu")
    assert "\n" not in str(caught.value)


def test_a_vocabulary_without_yes_and_settings_that_cannot_be_are_refused_before_the_first_picture(folders, tmp_path):
    with pytest.raises(UserError, match="has no token for 'yes'"):
        VlmJudge(tiny.qwen(tmp_path / "mute", words=["no", "two cups"]), device="cpu")
    with pytest.raises(UserError, match="it must hold"):
        VlmJudge(folders["qwen"], device="cpu", question_format="Is it?")
    with pytest.raises(UserError, match="dtype=fp8: unknown"):
        VlmJudge(folders["qwen"], device="cpu", dtype="fp8")  # type: ignore[arg-type]


def test_pictures_in_another_form_are_refused(judges):
    with pytest.raises(ValueError, match=r"expected uint8 \(B, H, W, 3\)"):
        judges["qwen"].answer(tiny.pictures(1).float(), ["a"])


def test_it_opens_by_name_and_needs_no_torchvision(folders):
    judge = load_judge("vlm", path=str(folders["qwen"]), device="cpu")
    assert type(judge.processor.image_processor) is Qwen2VLImageProcessorPil
    assert "torchvision" not in sys.modules
    assert np.isfinite(judge.answer(tiny.pictures(1, size=56), ["a cup?"]).numpy()).all()


def test_a_text_is_written_without_keeping_logits_and_loses_its_thoughts(judges, monkeypatch):
    judge, asked = judges["llava"], []
    end, real = judge.processor.tokenizer.eos_token_id, judge.model.generate

    def generate(**settings):
        output = real(**settings)
        asked.append((settings.get("output_logits", False), output.logits))
        reply = judge.processor.tokenizer("<think>no, so</think>yes, it is", add_special_tokens=False).input_ids
        start = settings["input_ids"].shape[1]
        output.sequences = torch.tensor([[0] * start + reply + [end]])
        return output

    monkeypatch.setattr(judge.model, "generate", generate)
    assert judge.write([Request("a", (tiny.pictures(1)[0].numpy(),))]) == ["yes, it is"]
    assert asked == [(False, None)]
