"""A tiny checkpoint in DeepSeek's layout, from a seed, and inputs to compare on; see deepseek_outputs.safetensors.

The outputs were computed once by DeepSeek's own class (deepseek-ai/Janus, `MultiModalityCausalLM`) on this checkpoint and
these inputs, in fp32, with the sizes of its vision tower and its VQ model set to the ones below. For each row of `ids`:
text and image log-probs of prompt and codes, the decoded picture, the codes of `pixels`, the log-probs of an answer about
them, and the codes that greedy decoding at guidance 5 draws.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import JanusForConditionalGeneration, JanusProcessor, PreTrainedTokenizerFast
from transformers.models.janus.image_processing_pil_janus import JanusImageProcessorPil
from transformers.models.janus.processing_janus import DEFAULT_SYSTEM_PROMPT

from thinkdraw.policies.janus import tiny
from thinkdraw.policies.janus.deepseek import reading, writing

TEXTS = ["a photo of a red circle left of a blue square yes no", "two green triangles above one small yellow star"]


def write_checkpoint(folder: Path) -> Path:
    """Write the checkpoint: a seed gives each weight, by the order of the names."""
    tokenizer = tiny.train_tokenizer(TEXTS, 300)
    config = tiny.janus_config(
        tokenizer, hidden=64, layers=2, heads=2, image_size=32, patch=8, codes=64, channels=(1, 1, 1, 2), latent_channels=32,
        res_blocks=2, vision_hidden=64, vision_layers=2,
    )  # fmt: skip
    # What DeepSeek's classes cannot be told: 128 channels, and attention heads by the tower's name.
    config.vq_config.base_channels = 128  # pyright: ignore[reportAttributeAccessIssue]
    config.vision_config.num_attention_heads = 4  # pyright: ignore[reportAttributeAccessIssue]
    model = JanusForConditionalGeneration(config)
    generator = torch.Generator().manual_seed(20)
    with torch.no_grad():
        for name, weight in sorted(model.named_parameters()):
            around = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            weight.copy_(around + 0.15 * torch.randn(weight.shape, generator=generator))
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=tiny.BOS, eos_token=tiny.EOS, pad_token=tiny.PAD,
        extra_special_tokens=reading.IMAGE_TOKENS, model_max_length=2048,
    )  # fmt: skip
    pictures = JanusImageProcessorPil(size={"height": 32, "width": 32}, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    processor = JanusProcessor(pictures, fast, chat_template=tiny.CHAT_TEMPLATE, num_image_tokens=16)
    weights = {name: weight.detach() for name, weight in model.state_dict().items()}
    writing.write_checkpoint(model, weights, processor, folder)
    return folder


def inputs(folder: Path) -> dict[str, Any]:
    """Make prompts with begin-of-image, codes, pictures and questions about them: two rows of each."""
    tokenizer = reading.read_tokenizer(folder)

    def ids(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False)["input_ids"]  # pyright: ignore[reportReturnType]

    generator = torch.Generator().manual_seed(21)
    forms = [f"<|User|>: {text}\n\n<|Assistant|>:{tiny.BOI}" for text in ("a red circle", "a red square")]
    prompts = [[tokenizer.bos_token_id, *ids(form)] for form in forms]
    before = f"{DEFAULT_SYSTEM_PROMPT}<|User|>: "
    picture = tiny.BOI + tiny.IMAGE * 16 + tiny.EOI
    question = [tokenizer.bos_token_id, *ids(f"{before}{picture}\nIs there a star?\n\n<|Assistant|>:")]
    assert len({len(prompt) for prompt in prompts}) == 1, "DeepSeek's loop draws prompts of one length"
    return {
        "ids": torch.tensor(prompts),
        "codes": torch.randint(64, (2, 16), generator=generator),
        "pixels": torch.rand(2, 3, 32, 32, generator=generator) * 2 - 1,
        "question": torch.tensor([question, question]),
        "image_id": int(tokenizer.convert_tokens_to_ids(tiny.IMAGE)),  # pyright: ignore[reportArgumentType]
        "pad": int(tokenizer.pad_token_id),  # pyright: ignore[reportArgumentType]
    }


def tensors(values: dict[str, Any]) -> dict[str, Tensor]:
    return {name: value for name, value in values.items() if isinstance(value, Tensor)}
