"""`SiglipScorer` on small random SigLIP and SigLIP 2 checkpoints, as transformers writes them."""

import pytest
import torch
from PIL import Image
from tests.judges.published import pictures, weights
from tokenizers import normalizers
from transformers import (
    PreTrainedTokenizerFast,
    Siglip2Config,
    Siglip2Model,
    Siglip2Tokenizer,
    SiglipConfig,
    SiglipModel,
)
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.siglip2.image_processing_pil_siglip2 import Siglip2ImageProcessorPil

from thinkdraw.errors import UserError
from thinkdraw.judges.scorers.siglip import SiglipScorer
from thinkdraw.types import Scorer

TEXTS = ["A red Cat", "two dogs"]
LENGTH = 12


def save_tokenizer(folder, lowers=True):
    """Letters only; a space is ▁. The published one also adds its end of text.

    lowers: with transformers' own class for SigLIP 2, else as checkpoints name the class of Gemma, which keeps capitals.
    """
    words = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", *"abcdefghijklmnopqrstuvwxyz"]
    made = Siglip2Tokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[], model_input_names=["input_ids"])
    if not lowers:
        plain = made.backend_tokenizer
        plain.normalizer = normalizers.Replace(" ", "▁")
        made = PreTrainedTokenizerFast(tokenizer_object=plain, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")
    made.save_pretrained(folder)


def random_model(model_class, config_class, **vision):
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    ends = {
        "vocab_size": 32,
        "max_position_embeddings": LENGTH,
        "pad_token_id": 0,
        "bos_token_id": 2,
        "eos_token_id": 1,
    }
    model = model_class(config_class(text_config=sizes | ends, vision_config=sizes | {"patch_size": 8} | vision)).eval()
    drawn = weights({name: tuple(value.shape) for name, value in model.state_dict().items()})
    model.load_state_dict(drawn | {"logit_scale": torch.tensor([2.3]), "logit_bias": torch.tensor([-1.0])})
    return model


@pytest.fixture(scope="module")
def siglip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("siglip")
    random_model(SiglipModel, SiglipConfig, image_size=24).save_pretrained(folder)
    SiglipImageProcessorPil(size={"height": 24, "width": 24}, resample=2).save_pretrained(folder)
    save_tokenizer(folder, lowers=False)
    return folder


@pytest.fixture(scope="module")
def naflex(tmp_path_factory):
    folder = tmp_path_factory.mktemp("siglip2")
    random_model(Siglip2Model, Siglip2Config, num_patches=9).save_pretrained(folder)
    Siglip2ImageProcessorPil(patch_size=8, max_num_patches=9).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def ids_by_hand(text):
    """Lower case, a = 6 … z = 31, space = 5, padded on the right with 0 to the full length."""
    letters = [5 if letter == " " else ord(letter) - ord("a") + 6 for letter in text.lower()]
    return (letters + [0] * LENGTH)[:LENGTH]


@pytest.mark.parametrize("size", [(30, 45), (45, 30), (24, 24)])
@pytest.mark.parametrize(
    ("name", "model_class", "processor_class"),
    [("siglip", SiglipModel, SiglipImageProcessorPil), ("naflex", Siglip2Model, Siglip2ImageProcessorPil)],
)
def test_the_score_is_the_sigmoid_of_the_logit_that_plain_transformers_computes(
    request, name, model_class, processor_class, size
):
    folder = request.getfixturevalue(name)
    model = model_class.from_pretrained(folder, dtype=torch.float32).eval()
    seen = processor_class.from_pretrained(folder)(
        [Image.fromarray(p) for p in pictures(*size).numpy()], return_tensors="pt"
    )
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids_by_hand(text) for text in TEXTS]), **seen).logits_per_image
    scorer = SiglipScorer(folder)
    scores = scorer.score(pictures(*size), TEXTS)
    assert torch.allclose(scores, torch.sigmoid(logits).diagonal(), atol=1e-5)
    assert isinstance(scorer, Scorer) and scores.min() > 0 and scores.max() < 1 and logits.std() > 0.1


def test_capitals_make_no_difference_and_a_pairs_score_does_not_depend_on_the_pairs_beside_it(siglip):
    scorer, in_parts = SiglipScorer(siglip), SiglipScorer(siglip, max_pairs=1)
    together = scorer.score(pictures(24, 24), TEXTS)
    assert torch.equal(together, scorer.score(pictures(24, 24), [text.upper() for text in TEXTS]))
    assert torch.allclose(together, in_parts.score(pictures(24, 24), TEXTS), atol=1e-6)


def test_a_groups_text_is_read_once(siglip, monkeypatch):
    scorer, read = SiglipScorer(siglip), []
    monkeypatch.setattr(scorer, "_embed_texts", lambda texts: read.extend(texts) or torch.ones(len(texts), 32))
    scorer.score(pictures(24, 24, 4), ["a", "b", "a", "a"])
    assert read == ["a", "b"]


def test_a_text_that_is_too_long_is_cut_counted_and_said_once(siglip, recwarn):
    scorer = SiglipScorer(siglip)
    with pytest.warns(UserWarning, match="1 of 2 texts are longer than the 12 tokens .* the longest 15"):
        first = scorer.score(pictures(24, 24), ["a cat", "a" * 15])
    recwarn.clear()
    assert torch.equal(scorer.score(pictures(24, 24), ["a cat", "a" * 20]), first)
    assert scorer.num_truncated == 2 and not recwarn.list


def test_a_picture_that_breaks_the_model_has_no_verdict(siglip, monkeypatch):
    scorer = SiglipScorer(siglip)
    see, expected = scorer._embed_pictures, scorer.score(pictures(24, 24), TEXTS)
    monkeypatch.setattr(scorer, "_embed_pictures", lambda seen: see(seen) * torch.tensor([[1.0], [torch.nan]]))
    scores = scorer.score(pictures(24, 24), TEXTS)
    assert scores[0] == expected[0] and scores[1].isnan()


def test_the_revision_is_the_weights_and_the_same_for_every_copy(siglip, naflex):
    assert SiglipScorer(siglip).revision == SiglipScorer(siglip).revision != SiglipScorer(naflex).revision


def test_another_model_and_a_missing_tokenizer_are_named_in_one_line(siglip, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(UserError, match=r"model_type=clip, not siglip or siglip2. Give the folder of a SiglipModel or"):
        SiglipScorer(tmp_path)
    for name in ("config.json", "model.safetensors", "preprocessor_config.json"):
        (tmp_path / name).write_bytes((siglip / name).read_bytes())
    with pytest.raises(UserError, match="tokenizer") as caught:
        SiglipScorer(tmp_path)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"nowhere has no config\.json"):
        SiglipScorer(tmp_path / "nowhere")
