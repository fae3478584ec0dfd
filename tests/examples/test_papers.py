"""Every command of the paper recipes and of the owner's page, word for word, on a tiny Janus in DeepSeek's layout.

What a command names is here under that name, small and random, in its published format: checkpoint, judges, corpus, prompts.
Only sizes are overridden, and the address of the chat model, which a stub serves.
"""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from tests.documents import ROOT, Command, blocks, commands_of, invoke
from tests.judges import helpers_vqa, published, tiny_detectors
from tests.judges.helpers_endpoint import Stub, completion, serve
from tests.judges.scorers.test_hps import published as published_hps
from tests.recipes.test_corpus import GOOD

from thinkdraw.judges.scorers.hps import FILE
from thinkdraw.policies import load_policy
from thinkdraw.policies.janus.loading import write_deepseek
from thinkdraw.policies.janus.tiny import random_janus

pytestmark = pytest.mark.slow
PAGES = [ROOT / "examples" / name / "README.md" for name in ("reasongen_r1", "dpo_vs_grpo", "t2i_r1")]
PAGES.append(ROOT / "docs" / "your_pictures.md")
WORDS = ["cat", "dog", "sofa", "red", "star", "tram", "cup", "tree", "hat", "bird"]
SMALL_RUN = [
    "max_steps=1", "save_every=1", "device=cpu", "num_threads=1", "micro_rows=4", "dtype=fp32", "precision=fp32",
    "gradient_checkpointing=false",
]  # fmt: skip
# By the verb and the file or name that follows it: what makes the command small.
SIZES: dict[str, list[str]] = {
    "train sft": [*SMALL_RUN, "batch_rows=2", "max_thought_tokens=24"],
    "train grpo": [
        *SMALL_RUN, "prompts_per_phase=2", "group_size=2", "minibatches=1", "refill_rounds=0", "max_no_verdict_frac=1",
    ],
    "train dpo": [*SMALL_RUN, "pairs_per_step=2"],
    "sample": ["count=3", "group_size=2", "prompts_per_shard=2", "device=cpu", "dtype=fp32", "precision=fp32"],
    "eval": ["count=2", "samples=1", "latency_pictures=0", "questions_per_type=0", "device=cpu", "max_no_verdict_frac=1"],
    "generate": ["samples=1", "device=cpu"],
    "check": ["device=cpu"],
}  # fmt: skip
SAMPLING = ["sampling.max_thought_tokens=6"]


def draw_noise(folder: Path, name: str, index: int) -> None:
    """Write a picture with transparent parts."""
    rng = np.random.default_rng(index)
    Image.fromarray(rng.integers(0, 255, (64, 64, 4), dtype=np.uint8), "RGBA").save(folder / f"{name}.png")


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """A current folder in which everything that the pages name exists, small."""
    folder = tmp_path_factory.mktemp("owner")
    tiny = random_janus(folder / "tiny", layers=1, max_positions=1024, drawing=None)
    for name in ("deepseek-ai/Janus-Pro-7B", "deepseek-ai/Janus-Pro-1B", "Franklin0/ReasonGen-R1"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_deepseek(load_policy(tiny), folder / name)
    for name in ("reasongen_r1", "dpo_vs_grpo", "t2i_r1"):
        shutil.copytree(ROOT / "examples" / name, folder / "examples" / name)
    _judges(folder)
    _prompts(folder / "benchmarks")
    (folder / "pictures").mkdir()
    for i, word in enumerate(WORDS):
        draw_noise(folder / "pictures", f"{i:04d}", i)
        (folder / "pictures" / f"{i:04d}.txt").write_text(f"a {word} on a table")
    for name, words in (("prompts", WORDS[:6]), ("validation", WORDS[6:8]), ("test", WORDS[8:])):
        (folder / f"{name}.txt").write_text("".join(f"a picture of a {word}\n" for word in words))
    for _, _, text in blocks(ROOT / "docs" / "your_pictures.md", "yaml"):
        (folder / "corpus.yaml").write_text(text)
    _corpus(folder / "Franklin0" / "ReasonGen-R1-SFT-230k" / "data", folder / "pictures")
    return folder


def _judges(folder: Path) -> None:
    for owner in ("xswu", "laion", "microsoft", "IDEA-Research", "facebook", "openai"):
        (folder / owner).mkdir()
    (folder / "xswu" / "HPSv2").mkdir()
    torch.save(published_hps(), folder / "xswu" / "HPSv2" / FILE)
    published.save_clip_tokenizer(folder / "laion" / "CLIP-ViT-H-14-laion2B-s32B-b79K")
    helpers_vqa.git(folder / "microsoft" / "git-large-vqav2")
    tiny_detectors.grounding_dino(folder / "IDEA-Research" / "grounding-dino-tiny")
    detector = tiny_detectors.mask2former(folder / "facebook" / "mask2former-swin-small-coco-instance") / "config.json"
    detector.write_text(detector.read_text().replace('"class 0"', '"cat"').replace('"class 1"', '"dog"'))
    tiny_detectors.clip(folder / "openai" / "clip-vit-large-patch14")


def _prompts(folder: Path) -> None:
    geneval = [
        {"tag": "single_object", "include": [{"class": word, "count": 1}], "prompt": f"a photo of a {word}"}
        for word in ("cat", "dog")
    ]
    for name in ("geneval", "t2i_compbench", "reasongen_r1", "t2i_r1", "dpg_bench"):
        (folder / name).mkdir(parents=True)
    (folder / "geneval" / "evaluation_metadata.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in geneval))
    for i, category in enumerate(
        ("color", "shape", "texture", "spatial", "3d_spatial", "numeracy", "non_spatial", "complex")
    ):
        (folder / "t2i_compbench" / f"{category}_train.txt").write_text(
            f"a {WORDS[i]} and a {category.replace('_', ' ')} hat\n"
        )
    for name in ("geneval_train", "dpg_train", "t2i_train", "validation"):
        (folder / "reasongen_r1" / f"{name}.txt").write_text("".join(f"a {word} for {name}\n" for word in WORDS))
    rows = [
        {
            "prompt": f"a {word} on the left of a hat", "task_type": "spatial", "nouns": [word, "hat"], "attr_nouns": None,
            "spatial_info": {"obj1": word, "locality": "on the left of", "obj2": "hat"}, "numeracy_info": None,
        }
        for word in WORDS[:4]
    ]  # fmt: skip
    (folder / "t2i_r1" / "geneval_and_t2i_data_final.json").write_text(json.dumps(rows))


def _corpus(folder: Path, pictures: Path) -> None:
    folder.mkdir(parents=True)
    rows = [
        {"image": {"bytes": (pictures / f"{i:04d}.png").read_bytes(), "path": None}, "brief_caption": f"a {word}.",
         "detailed_caption": f"a {word} stands on a table.",
         "augmented_prompts": {"short_caption": f"a {word}", "paraphrases": [f"one {word}"], "varied_captions": [f"the {word}"],
                               "tags": [word], "object_prompts": [word]},
         "augmented_cots": {"step_by_step": f"first a {word}.", "object_centric": [word], "region_descriptions": [word],
                            "tags": [word]}}
        for i, word in enumerate(WORDS)
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), folder / "train-00000-of-00001.parquet")


def _answer(word: str) -> dict:
    """A teacher's answer about a picture of one thing."""
    said = f"A {word} stands on a table in front of a wall, and the {word} is lit from the left."
    return {
        key: f"{value} {said}" if isinstance(value, str) else [f"{v} {word}" for v in value]
        for key, value in GOOD.items()
    }


@pytest.fixture(scope="module")
def chat_model():
    """The address of a chat model that writes rationales, answers yes or no, and ends texts with a verdict."""

    def reply(body: dict) -> dict:
        text = json.dumps(body["messages"])
        if "step_by_step" in text:
            return completion(json.dumps(_answer(next((word for word in WORDS if f"a {word} on" in text), "thing"))))
        if "boxed" in text:
            return completion(rf"It is seen. \boxed{{{len(text) % 2}}}")
        share = 0.2 + (len(text) % 7) / 10
        top = [("yes", float(np.log(share))), ("no", float(np.log(1 - share)))]
        return completion("no" if "grey" in text and "yes" not in text else "yes", top)

    stub = Stub(reply)
    stub.models = ["my-vlm", "Qwen/Qwen2.5-VL-7B-Instruct", "CodeGoat24/UnifiedReward-7b"]
    with serve(stub) as address:
        yield address


def kind_of(command: Command) -> str:
    """The key of SIZES: verb, and what is trained."""
    verb, *words = command.words[1:]
    if verb != "train":
        return verb
    name = Path(words[0]).stem.rpartition("_")[2]
    return f"train {name}"


def small(command: Command, address: str) -> list[str]:
    """The command's words, with sizes in place of its own, and the chat model's address."""
    kind = kind_of(command)
    extra = [] if "compare=" in command.text else list(SIZES.get(kind, []))
    if kind == "train grpo" and "dpo_vs_grpo" not in command.text:
        extra += SAMPLING
    if kind == "train grpo" and command.page.stem == "your_pictures":
        extra += ["validation.every=1", "validation.prompts.count=2", "lora.rank=2"]
    if kind == "train grpo" and "reasongen_r1" in command.text:
        extra += ["validation.prompts.count=2"]
    replaced = {word.partition("=")[0] for word in extra}
    words = [word.replace("http://localhost:8000/v1", address) for word in command.words[1:]]
    return [*(word for word in words if word.partition("=")[0] not in replaced), *extra]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name if page.name == "README.md" else page.stem)
def test_every_command_of_a_page_runs_in_order(page, world, chat_model, monkeypatch):
    monkeypatch.chdir(world)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for file in (world / "examples").rglob("*.yaml"):
        file.write_text(file.read_text().replace("http://localhost:8000/v1", chat_model))
    (world / "corpus.yaml").write_text(
        (world / "corpus.yaml").read_text().replace("http://localhost:8000/v1", chat_model)
    )
    done = set()
    for command in commands_of(page):
        text = command.text
        if not text.startswith("thinkdraw ") or command.is_form or text in done:
            continue
        if re.search(r" dpg | compbench |imagereward|push=", text):
            continue  # judges that no tiny stand-in exists for here; pushing is tested in tests/publishing
        done.add(text)
        code, output = invoke(small(command, chat_model))
        assert code == 0, f"{command}: {text}\n{output[-3000:]}"
    assert len(done) >= 5


def test_a_planted_judge_is_learned_on_the_same_path(world, monkeypatch):
    monkeypatch.chdir(world)
    monkeypatch.syspath_prepend(str(world))
    (world / "bright_pictures.py").write_text(
        "def bright(rollouts):\n    return rollouts.pictures.float().mean((1, 2, 3)) / 255\n"
    )
    judge = "reward={name: 'bright_pictures:bright'}"
    sizes = [
        size for size in SIZES["train grpo"] if not size.startswith(("max_steps", "save_every", "prompts_per", "group"))
    ]
    trained = [
        "train", "examples/dpo_vs_grpo/grpo.yaml", "out=runs/bright", judge, "prompts.source=prompts.txt", "max_steps=24",
        "save_every=24", "prompts_per_phase=4", "group_size=8", "optimiser.learning_rate=2e-3", "micro_rows=32",
        *(size for size in sizes if not size.startswith("micro_rows")),
    ]  # fmt: skip
    evaluations = [
        ["eval", policy, "prompts=prompts.txt", judge, f"out=runs/bright_{name}", "samples=8", "latency_pictures=0",
         "questions_per_type=0", "device=cpu"]
        for name, policy in (("before", "deepseek-ai/Janus-Pro-7B"), ("after", "runs/bright"))
    ]  # fmt: skip
    for words in [trained, *evaluations]:
        code, output = invoke(words)
        assert code == 0, output[-3000:]
    code, output = invoke(["eval", "compare=[runs/bright_after,runs/bright_before]", "--json"])
    assert code == 0, output
    (comparison,) = json.loads(output[output.index("[") :])
    assert comparison["difference"]["low"] > 0, comparison["difference"]
