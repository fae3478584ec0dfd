"""The planner against measurement on small shapes, against sums by hand, and in what it advises."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from safetensors.torch import load_file
from tests.allocator import peak_bytes
from transformers import JanusForConditionalGeneration
from typer.testing import CliRunner

from thinkdraw.cli import app
from thinkdraw.config import load_config
from thinkdraw.errors import UserError
from thinkdraw.objectives import clipped_loss
from thinkdraw.planning import plan as recipe
from thinkdraw.planning.judges import judges_on_the_gpu
from thinkdraw.planning.memory import Load, learning_bytes, resting_bytes, sampling_bytes, saving_bytes, update_bytes
from thinkdraw.planning.seconds import GPUS, learning_seconds, moved_beside_products, sampling_seconds
from thinkdraw.planning.shapes import find_shape
from thinkdraw.policies import speed
from thinkdraw.policies.fast import short_attention as attention
from thinkdraw.policies.janus.loading import DTYPES, read_processor
from thinkdraw.policies.janus.policy import JanusPolicy
from thinkdraw.policies.janus.shape import JanusShape, janus_pro_config
from thinkdraw.policies.janus.tiny import janus_config, random_janus, train_tokenizer
from thinkdraw.policies.lora import LoraSettings
from thinkdraw.recipes.catalog import read_config
from thinkdraw.recipes.phase.config import GrpoConfig
from thinkdraw.recipes.sft import SftConfig
from thinkdraw.rewards.opening import RewardSettings
from thinkdraw.types import Prompt, Sampling

PROMPT, BUDGET, ROWS = Prompt("a red circle"), 40, 2
ADAPTERS = LoraSettings.model_validate({"rank": 8})
# One whose activations weigh most, and one whose logits do. 576 image tokens: rows too long for the plain attention
# that short ones get on a CPU.
WIDE = {"hidden": 128, "layers": 3, "heads": 4, "codes": 256, "vocab_size": 1024}
WORDY = {"hidden": 64, "layers": 2, "heads": 4, "codes": 1024, "vocab_size": 8192}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_janus(tmp_path_factory.mktemp("plan") / "janus", layers=4, hidden=128, image_size=32)


def small_policy(
    folder: Path, shape: dict[str, int], dtype: str, precision: str, lora: LoraSettings | None
) -> JanusPolicy:
    tokenizer = train_tokenizer(["a photo of a red circle"], 300)
    config = janus_config(
        tokenizer, image_size=96, patch=4, channels=(1, 1, 1), vision_hidden=32, vision_layers=1, **shape
    )
    model: Any = JanusForConditionalGeneration(config)
    model = model.to(DTYPES[dtype])
    model.set_attn_implementation({"text_config": attention.NAME})
    policy = JanusPolicy(model, read_processor(str(folder), 576), precision=precision, lora=lora)
    policy.network.train()
    return policy


def measured_update(policy: JanusPolicy, guidance_scale: float) -> tuple[int, int]:
    """(bytes at the worst moment beside weights and gradients, tokens of the prompt)."""
    for parameter in policy.network.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)
    settings = Sampling(max_thought_tokens=BUDGET, guidance_scale=guidance_scale)
    codes = torch.zeros(ROWS, 576, dtype=torch.long)
    rollouts = policy.teacher_forced([PROMPT] * ROWS, ["red " * 60] * ROWS, codes, settings)

    def work() -> None:
        scored = policy.log_probs(rollouts)
        lp, advantages = scored.log_probs, torch.ones(ROWS)
        loss = clipped_loss(lp, lp.detach(), advantages, rollouts.mask, rollouts.is_image).loss
        (loss + 0.0 * scored.entropy.mean()).backward()

    return peak_bytes(work), int(rollouts.prompt_mask[0].sum())


@pytest.mark.parametrize(
    ("shape", "dtype", "precision", "lora", "checkpointing", "guidance_scale"),
    [
        (WIDE, "fp32", "fp32", None, False, 1.0),
        (WIDE, "bf16", "bf16", None, True, 5.0),
        (WIDE, "fp32", "bf16", None, False, 1.0),
        (WIDE, "bf16", "bf16", ADAPTERS, False, 1.0),
        (WIDE, "bf16", "bf16", ADAPTERS, True, 1.0),
        (WORDY, "fp32", "fp32", None, False, 5.0),
        (WORDY, "bf16", "bf16", ADAPTERS, True, 1.0),
        (WORDY, "bf16", "bf16", None, True, 5.0),
    ],
)
def test_the_memory_of_an_update_is_predicted_within_15_percent(
    folder: Path, shape: dict[str, int], dtype: str, precision: str, lora: LoraSettings | None, checkpointing: bool,
    guidance_scale: float,
):  # fmt: skip
    policy = small_policy(folder, shape, dtype, precision, lora)
    if checkpointing:
        policy.model.gradient_checkpointing_enable({"use_reentrant": False})
    found, prompt_tokens = measured_update(policy, guidance_scale)
    load = Load(
        shape=JanusShape(policy.model.config), dtype=dtype, precision=precision, lora=lora, checkpointing=checkpointing,
        reference=False, offload=False, shards=1, rows_per_rollout=1 if guidance_scale == 1 else 2, micro_rows=ROWS,
        prompt_tokens=prompt_tokens, thought_tokens=BUDGET + 1,
    )  # fmt: skip
    assert sum(update_bytes(load).values()) == pytest.approx(found, rel=0.15)


@pytest.mark.parametrize("guidance_scale", [1.0, 5.0])
def test_the_memory_of_sampling_is_predicted_within_15_percent(folder: Path, guidance_scale: float):
    from thinkdraw.policies import load_policy

    policy, rows_per_rollout = load_policy(folder), 1 if guidance_scale == 1 else 2
    settings = Sampling(max_thought_tokens=8, guidance_scale=guidance_scale)
    prompts = [Prompt("a red circle 1"), Prompt("a red circle 2")]

    # As on a GPU: memory is torch's, and unconditional rows have their own keys and values.
    with mock.patch.object(speed, "is_on", lambda: False):
        found = peak_bytes(lambda: policy.sample(prompts, settings, group_size=8, decode=False))
    load = load_of_1b(
        shape=JanusShape(policy.model.config),
        dtype="fp32",
        precision="fp32",
        thought_tokens=9,
        rows_per_rollout=rows_per_rollout,
    )
    load = replace(load, prompt_tokens=len(policy.text.prompt(prompts[0].text)))
    parts = sampling_bytes(load, rows=rows_per_rollout * 16, pictures=0)
    assert parts["keys and values"] == pytest.approx(found, rel=0.15)


def load_of_1b(**changes: Any) -> Load:
    plain = Load(
        shape=JanusShape(janus_pro_config("janus-pro-1b")),
        dtype="bf16", precision="bf16", lora=None, checkpointing=True, reference=False, offload=False, shards=1, rows_per_rollout=1,
        micro_rows=4, prompt_tokens=20, thought_tokens=54,
    )  # fmt: skip
    return replace(plain, **changes)


@pytest.mark.parametrize("lora", [None, ADAPTERS])
def test_weights_are_counted_without_being_made(folder: Path, lora: LoraSettings | None):
    policy = small_policy(folder, WIDE, "fp32", "fp32", lora)
    counts = JanusShape(policy.model.config).weights(lora)
    sizes = [(p.numel(), p.requires_grad) for p in policy.model.parameters()]
    assert counts.total == sum(size for size, _ in sizes)
    assert counts.trained == sum(size for size, is_trained in sizes if is_trained)


def test_what_rests_in_memory_adds_up_by_hand():
    # Janus-Pro-1B: 24 layers of 4·2048² + 3·2048·5632 + 2·2048 weights.
    counts = JanusShape(janus_pro_config("janus-pro-1b")).weights(None)
    assert counts.layers == 24 * (4 * 2048**2 + 3 * 2048 * 5632 + 2 * 2048)
    assert counts.text_head == 102_400 * 2048
    # All weights in bf16: 2 bytes each, and for each trained one an fp32 copy, two moments, and in learning a gradient.
    whole = resting_bytes(load_of_1b())
    assert whole == {
        "weights": 2 * counts.total,
        "fp32 copies": 4 * counts.drawing,
        "optimiser state": 8 * counts.drawing,
    }
    assert learning_bytes(load_of_1b())["gradients"] == 4 * counts.drawing
    # Over four processes: fp32 shards and no copies, the frozen towers whole.
    spread = resting_bytes(load_of_1b(shards=4))
    assert spread["weights"] == 2 * (counts.total - counts.drawing) + counts.drawing
    assert spread["optimiser state"] == 2 * counts.drawing and "fp32 copies" not in spread
    # An optimiser on the CPU leaves the weights in use.
    assert resting_bytes(load_of_1b(offload=True)) == {"weights": 2 * counts.total}
    assert "gradients" not in learning_bytes(load_of_1b(offload=True))
    # A reference is a copy of all but the frozen towers; adapters need none.
    assert resting_bytes(load_of_1b(reference=True))["reference"] == 2 * counts.drawing
    assert "reference" not in resting_bytes(load_of_1b(reference=True, lora=ADAPTERS))


def test_seconds_by_hand():
    load, gpu = load_of_1b(), GPUS["h100"]
    counts = load.weights
    # Bytes of a full step: forward 1, backward 2, recomputed 1; 650 tokens; heads on their own tokens, computed 4 times.
    attention = 2 * 24 * 2048 * 650 * 650
    heads = 2 * (counts.text_head * 54 + counts.image_head * 576)
    layers = 8 * 4 * (2 * counts.layers * 650 + attention)
    step = 24 * counts.drawing / (0.6 * 3.35e12)
    moved = 8 * (650 * 24 * 2048 * (570 + 144) + 219 * (54 * 102_400 + 576 * 16_384))
    at_work = (layers / 989e12 + 8 * 4 * heads / 67e12) / 0.4 + moved / (0.6 * 3.35e12)
    assert learning_seconds(load, gpu, rollouts=8, more_forwards=0) == pytest.approx(at_work + step)
    # Adapters: half the backward pass's products, and twice what other kernels move. A reference: one forward pass more.
    with_adapters = learning_seconds(replace(load, lora=ADAPTERS), gpu, 1000, 0)
    assert 1 < with_adapters / learning_seconds(load, gpu, 1000, 0) < 1.3
    assert 1.1 < learning_seconds(load, gpu, 1000, 1) / learning_seconds(load, gpu, 1000, 0) < 1.25
    # An optimiser on the CPU: gradients of both passes there, where they are summed, three steps, and weights back.
    offloaded = learning_seconds(replace(load, offload=True), gpu, rollouts=8, more_forwards=0, steps=3)
    waits = 5 * 2 * counts.drawing / 25e9 + (2 * 18 + 3 * 24) * counts.drawing / 100e9
    assert offloaded == pytest.approx(at_work + waits)
    # Two rounds of sampling take twice as long as one; a GPU of a third of the bandwidth is slower.
    one = sampling_seconds(load, gpu, rollouts=64, at_once=64, rows_per_rollout=1)
    assert sampling_seconds(load, gpu, rollouts=128, at_once=64, rows_per_rollout=1) == pytest.approx(2 * one)
    assert sampling_seconds(load, GPUS["l4"], rollouts=64, at_once=64, rows_per_rollout=1) > one


@pytest.mark.parametrize(
    ("name", "rows", "settings", "traced"),
    [
        ("janus-pro-1b", 8, {}, 275.8), ("janus-pro-1b", 8, {"checkpointing": False}, 230.0),
        ("janus-pro-1b", 8, {"lora": ADAPTERS}, 461.5), ("janus-pro-1b", 8, {"lora": ADAPTERS, "checkpointing": False}, 350.5),
        ("janus-pro-1b", 8, {"thought_tokens": 449}, 393.8), ("janus-pro-1b", 8, {"rows_per_rollout": 2}, 509.4),
        ("janus-pro-7b", 4, {}, 306.2), ("janus-pro-7b", 4, {"checkpointing": False}, 249.3),
        ("janus-pro-7b", 4, {"lora": ADAPTERS}, 536.6),
    ],
)  # fmt: skip
def test_what_kernels_move_beside_the_products_is_what_traces_say(name: str, rows: int, settings: dict, traced: float):
    # GB of all kernels but products in one pass at the true shape, bf16 weights, 30 prompt and 193 thought tokens.
    plain = load_of_1b(shape=find_shape(name), prompt_tokens=30, thought_tokens=193, checkpointing=True)
    assert rows * moved_beside_products(replace(plain, **settings), 0) / 1e9 == pytest.approx(traced, rel=0.03)


def test_judges_on_the_gpu_are_counted_or_named(folder: Path):
    orm = {"name": "orm", "settings": {"questioner": {"name": "policy", "policy": str(folder)}}}
    both = {"name": "combined", "settings": {"rewards": {"a": orm, "b": "lab-detector"}}}
    weights = sum(t.numel() for t in load_file(folder / "model.safetensors").values())
    for reward in (orm, both):
        assert judges_on_the_gpu([RewardSettings.model_validate(reward)], "lab") == (4 * weights, [])
    elsewhere = [{"name": "openai", "model": "m"}, {"name": "policy", "policy": str(folder), "device": "cpu"}]
    unknown = {"name": "vlm", "path": "Qwen/Qwen2.5-VL-7B-Instruct"}
    rewards = [RewardSettings(name="orm", settings={"questioner": q}) for q in (*elsewhere, unknown)]
    assert judges_on_the_gpu(rewards, "lab") == (0, ["vlm (Qwen/Qwen2.5-VL-7B-Instruct)"])
    by_name = [RewardSettings(name="vqa-yes", settings={"questioner": q}) for q in ("git-vqa", {"name": "git-vqa"})]
    by_name.append(RewardSettings(name="score", settings={"scorer": "lab-clip"}))
    total, named = judges_on_the_gpu(by_name, "lab")
    assert [name.split(" ")[0] for name in named] == ["git-vqa", "lab-clip"] and total == 0
    found = recipe.plan(grpo(reward=RewardSettings.model_validate(orm)), "h100", 1, prompt_tokens=40)
    assert found.sampling["judges"] == found.learning["judges"] == found.saving["judges"] == 4 * weights


def grpo(**changes: Any) -> GrpoConfig:
    plain: Any = read_config("janus_pro_7b_grpo", ["policy=janus-pro-7b"])
    return plain.model_copy(update=changes)


def test_the_published_shape_fits_one_large_gpu_with_adapters():
    found = recipe.plan(grpo(), "h100", 1, prompt_tokens=40)
    assert found.fits and found.rollouts == 256 and 1 < found.at_once < 256
    assert recipe.advice(grpo(), found, 40).startswith("fits: ")


@pytest.mark.parametrize(
    ("changes", "num_gpus", "advised"),
    [
        ({"lora": None}, 1, ["optimiser.offload=true"]),
        ({"lora": None}, 8, ["sharding=fsdp2"]),
        ({"gradient_checkpointing": False, "micro_rows": 64}, 1, ["micro_rows="]),
        ({"lora": None, "dtype": "fp32", "gradient_checkpointing": False}, 1, ["optimiser.offload=true"]),
    ],
)
def test_advice_names_settings_with_which_it_fits(changes: dict[str, Any], num_gpus: int, advised: list[str]):
    config = grpo(**changes)
    assert not recipe.plan(config, "h100", num_gpus, 40).fits
    found = recipe.changes_that_fit(config, "h100", num_gpus, 40)
    assert found is not None
    assert [any(f.startswith(a) for f in found) for a in advised] == [True] * len(advised)
    settings: Any = load_config(GrpoConfig, None, found)
    changed = {f.partition("=")[0].partition(".")[0] for f in found}
    fixed = config.model_copy(update={name: getattr(settings, name) for name in changed})
    assert recipe.plan(fixed, "h100", num_gpus, 40).fits


def test_where_nothing_helps_the_advice_is_another_gpu(tmp_path: Path):
    janus_pro_config("janus-pro-7b", num_layers=90).save_pretrained(tmp_path)  # 40 GB of frozen weights
    config = grpo(lora=None, policy=str(tmp_path))
    words = recipe.advice(config, recipe.plan(config, "l4", 1, 40), 40)
    assert "does not fit" in words and "on l4. Set " not in words and "more memory" in words


def test_sft_is_planned_without_sampling():
    config: Any = read_config("janus_pro_1b_sft", ["policy=janus-pro-1b"])
    assert isinstance(config, SftConfig)
    found = recipe.plan(config, "a100-80", 1, 40)
    assert found.sampling == {} and found.seconds_sampling == 0 and found.seconds_learning > 0


def test_the_command_prints_parts_seconds_and_a_verdict(folder: Path):
    done = CliRunner().invoke(app, ["plan", "lab_grpo", f"policy={folder}", "gpu=l4", "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.output)
    assert found["fits"] and found["advice"].startswith("fits: ") and found["seconds_sampling"] > 0
    shown = CliRunner().invoke(app, ["plan", "lab_grpo", f"policy={folder}", "gpu=l4"])
    assert "keys and values" in shown.output or "decoding pictures" in shown.output
    assert "seconds per phase" in shown.output


@pytest.mark.parametrize(
    ("config", "gpu", "words"),
    [
        ("janus_pro_1b_grpo", "h1000", "gpu=h1000 is not in the planner's table"),
        ("lab_clip", "h100", "recipe=clip: the planner knows only grpo and sft"),
    ],
)
def test_what_cannot_be_planned_is_one_line(config: str, gpu: str, words: str):
    with pytest.raises(UserError, match=words):
        recipe.plan(read_config(config), gpu, 1, 40)


def test_a_policy_without_a_shape_is_one_line(tmp_path: Path):
    with pytest.raises(UserError, match="no folder with a config"):
        find_shape(str(tmp_path / "nothing"))
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(UserError, match="model_type=llama; the planner knows janus, multi_modality only"):
        find_shape(str(tmp_path))
    assert find_shape("deepseek-community/Janus-Pro-7B").layers == 30


def test_a_save_merges_one_adapted_weight_at_a_time():
    # The fp32 product of the widest layer's adapters, twice: 8 · 2048 · 5632 bytes, and what rests.
    load = load_of_1b(lora=ADAPTERS)
    assert saving_bytes(load) == resting_bytes(load) | {"gathered weights": 0, "merging adapters": 8 * 2048 * 5632}
    assert saving_bytes(load_of_1b())["merging adapters"] == 0
    found = recipe.plan(grpo(), "h100", 1, prompt_tokens=40)
    assert found.needed == max(sum(parts.values()) for parts in (found.sampling, found.learning, found.saving))
