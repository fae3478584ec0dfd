"""The lab's CLIP is made by one recipe; a micro version of it, and what it is trained on."""

import math
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.benchmarks.stub import rollouts
from transformers import AutoTokenizer, CLIPModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from thinkdraw.images import to_pixels
from thinkdraw.judges.scorers.clip import ClipScorer
from thinkdraw.lab.prompts import SPECS, prompt_text, stream
from thinkdraw.lab.rationales import write_rationale
from thinkdraw.lab.scenes import draw, random_scene
from thinkdraw.lab.specs import HELD_OUT_PAIRS, satisfies
from thinkdraw.make_lab import clip
from thinkdraw.make_lab.clip_rows import batches, make_counterexample, truth_table
from thinkdraw.recipes.catalog import read_config
from thinkdraw.rewards.opening import open_reward
from thinkdraw.runtime.tracking import MetricsLog
from thinkdraw.types import Prompt


def micro(out: Path, **changes) -> clip.ClipConfig:
    settings = {
        "out": out, "max_steps": 10, "pairs": 3, "told_pairs": 1, "test_scenes": 9, "threads": 1,
        "vision_hidden": 32, "vision_layers": 1, "text_hidden": 32, "text_layers": 1, "embedding": 16,
    }  # fmt: skip
    return clip.ClipConfig(**(settings | changes))


@pytest.mark.slow
def test_ten_steps_make_a_checkpoint_that_plain_transformers_loads_and_that_scores_and_rewards(tmp_path: Path):
    made = clip.run(micro(tmp_path))
    *_, trained, measured = MetricsLog.read(tmp_path / "metrics.jsonl")
    assert {"prompt_nats", "rationale_nats", "patch_nats", "pairs_right", "logit_scale"} <= set(trained)
    assert (measured["fact_comparisons"], measured["other_comparisons"]) == (9, 9)
    assert "with one changed fact in" in (made / "README.md").read_text()

    model, found = CLIPModel.from_pretrained(made, output_loading_info=True)
    assert not found["missing_keys"] and not found["unexpected_keys"] and model.dtype == torch.bfloat16
    picture = draw(random_scene(2, np.random.default_rng(0)))
    pixels = CLIPImageProcessorPil.from_pretrained(made)([picture], return_tensors="pt").pixel_values
    assert torch.allclose(pixels, to_pixels(picture[None]), atol=1e-5)  # as in training
    tokenizer = AutoTokenizer.from_pretrained(made)
    ids = tokenizer("there is a red circle").input_ids
    assert (ids[0], ids[-1]) == (model.config.text_config.bos_token_id, model.config.text_config.eos_token_id)
    assert tokenizer.convert_ids_to_tokens(ids)[1:-1] == ["Ġthere", "Ġis", "Ġa", "Ġred", "Ġcircle"]

    prompts = [Prompt("a red circle"), Prompt("two cups"), Prompt("a red circle")]
    drawn = torch.from_numpy(np.stack([picture] * 3))
    values = open_reward("lab-clip", scorer=str(made))(rollouts(prompts, drawn, [""] * 3)).rewards
    assert torch.equal(values, ClipScorer(made).score(drawn, [p.text for p in prompts]))
    assert values[0] == values[2] != values[1]

    again = clip.run(micro(tmp_path / "on", init=made, max_steps=1))
    before, after = (CLIPModel.from_pretrained(f).text_model.embeddings.token_embedding.weight for f in (made, again))
    assert torch.allclose(before.float(), after.float(), atol=1e-2)


def test_the_shipped_configuration_makes_at_most_4_mb():
    config = read_config("lab_clip")
    assert isinstance(config, clip.ClipConfig)
    model = clip.build_model(config, clip.build_tokenizer())
    assert sum(p.numel() for p in model.parameters()) * 2 < 3.9e6  # bf16; the tokenizer takes the rest


def test_no_text_of_the_lab_is_cut():
    tokenizer, rng = clip.build_tokenizer(), np.random.default_rng(0)
    texts = [write_rationale(random_scene(5, rng), rng) for _ in range(300)]
    texts += [
        e.prompt.text for family in SPECS for split in ("train", "ood") for e in islice(stream(family, split, 0), 100)
    ]
    assert max(len(ids) for ids in tokenizer(texts, verbose=False).input_ids) <= clip.MAX_TOKENS


def test_the_contrastive_loss_leaves_other_true_cells_out():
    # texts × pictures; text 0 is also true of picture 1
    logits = torch.tensor([[1.0, 5.0], [0.0, 2.0]])
    true = torch.tensor([[True, True], [False, True]])
    # text → picture: 0 has one candidate: 0 nats; 1 has [0, 2]: ln(1 + e^-2)
    # picture → text: 0 has [1, 0]: ln(1 + e^-1); 1 has one candidate: 0 nats
    expected = (math.log(1 + math.exp(-2)) / 2 + math.log(1 + math.exp(-1)) / 2) / 2
    assert clip.contrastive_loss(logits, true).item() == pytest.approx(expected)
    # without that cell masked: 0 has [1, 5]: ln(1 + e^4); picture 1 has [5, 2]: ln(1 + e^3)
    wrong = sum(math.log(1 + math.exp(x)) for x in (4, -2, -1, 3)) / 4
    assert clip.contrastive_loss(logits, torch.eye(2).bool()).item() == pytest.approx(wrong)


@pytest.mark.parametrize("family", SPECS)
def test_a_twin_differs_in_one_stated_fact_that_makes_the_old_prompt_false(family):
    rng, facts = np.random.default_rng(0), set()
    for made in islice(stream(family, "train", 0), 600):
        scene = made.scene(rng)
        twin = make_counterexample(made.spec, scene, rng)
        facts.add(twin.fact)
        assert satisfies(twin.spec, twin.scene) and not satisfies(made.spec, twin.scene)
        assert twin.spec.split() == "train" and not twin.spec.has_held_out_pair() and not twin.spec.has_held_out_count()
        assert len(twin.scene.objects) <= 5
        assert not any((t.shape, t.color) in HELD_OUT_PAIRS for t in twin.scene.objects)
        old, new = (
            prompt_text(s, family, np.random.default_rng(1)).replace("an ", "a ").split()
            for s in (made.spec, twin.spec)
        )
        assert old != new
        if twin.fact in ("color", "size", "texture", "background"):  # one word, whatever the wording
            assert sum(a != b for a, b in zip(old, new, strict=True)) == 1
        changed = sum(a != b for a, b in zip(made.spec.objects, twin.spec.objects, strict=True))
        assert changed == (0 if twin.fact in ("relation", "background") else 1)
    expected = {"shape", "color", "size", "texture"} | {"geneval": {"count", "relation"}}.get(family, {"relation"})
    assert facts >= (expected | {"background"} if family == "dense" else expected)


def test_batches_stand_in_pairs_and_their_prompts_are_true_of_their_own_pictures():
    batch = next(batches(pairs=8, told_pairs=2, seed=0))
    true = truth_table(batch.specs, batch.scenes)
    assert true.shape == (16, 16) and true.diagonal().all() and len(batch.rationales) == 4
    assert not true[torch.arange(0, 16, 2), torch.arange(1, 16, 2)].any()
    assert len(set(next(batches(8, 2, 1)).prompts) & set(batch.prompts)) < 4


class InOrder:
    """Answers the three calls of `caption_accuracy` (true captions, changed ones, others) with given scores."""

    def __init__(self, *scores):
        self.scores, self.texts = list(scores), []

    def score(self, pictures, texts):
        self.texts.append(list(texts))
        return torch.tensor([self.scores[len(self.texts) - 1]] * len(texts))


def test_caption_accuracy_counts_strictly_higher_scores_by_kind_of_fact():
    judge = InOrder(0.5, 0.4, 0.5)  # the true caption beats the changed one; a tie with the other's is no win
    measured = clip.caption_accuracy(judge, 60)
    assert measured.fact_total() == (60, 60) and measured.other_scene == (0, 60)
    numbers = measured.numbers()
    assert (numbers["fact_accuracy"], numbers["other_accuracy"]) == (1, 0)
    assert sum(numbers[f"fact_{kind}_comparisons"] for kind in measured.fact) == 60
    true, changed, other = judge.texts
    assert all(t != c and t != o for t, c, o in zip(true, changed, other, strict=True))


def test_caption_accuracy_counts_missing_verdicts_apart():
    measured = clip.caption_accuracy(InOrder(math.nan, 0.4, 0.5), 30)
    assert measured.num_no_verdict == 30 and measured.fact_total() == (0, 0) and measured.other_scene == (0, 0)
    assert "fact_accuracy" not in measured.numbers()
