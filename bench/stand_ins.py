"""Stand-ins for what a whole benchmark needs and a machine without network lacks, made up and the same every time.

    python -m bench.stand_ins --benchmarks ../shared/benchmarks --out stand_ins

Writes, below --out, for `bench/evaluation.py`:

* `janus/`: a random checkpoint that draws pictures of 32 pixels;
* `judges/`: random checkpoints in the published formats of mask2former, owlv2, clip, dpt and blip;
* `dpg_bench.csv`: a question table in DPG-Bench's columns, about words of its prompts;
* `chunks.jsonl`: noun chunks and tagged words of T2I-CompBench's prompts, by a list of words in place of spaCy.

No score made with them means anything: what they show is that the flow holds at full size.
"""

import argparse
import csv
import json
import re
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tests.judges import helpers_vqa, tiny_detectors

from thinkdraw.data.prompt_files import json_rows, read_compbench, read_geneval
from thinkdraw.data.structure.noun_chunks import Parse, write_parses
from thinkdraw.policies.janus.tiny import random_janus

COLUMNS = (
    "item_id", "text", "keywords", "proposition_id", "dependency", "category_broad", "category_detailed", "tuple",
    "question_natural_language",
)  # fmt: skip
KINDS = (
    "entity - whole", "attribute - color", "relation - spatial", "global", "other - count", "attribute - texture",
)  # fmt: skip
QUESTIONS_PER_PROMPT = 12
TAGS = {
    "DET": "a an the",
    "ADJ": "red green blue yellow black white brown pink purple orange big small tall round square oval triangular rubber "
    "wooden metallic plastic fabric fluffy glass leather",
    "NUM": "one two three four five six seven eight",
    "ADP": "on in next to of behind and front hidden by near with at under is are",
}
TAG_OF = {word: tag for tag, words in TAGS.items() for word in words.split()}
PARTS_OF_CHUNKS = ("DET", "ADJ", "NOUN")


def write_question_table(path: Path, prompts: Path) -> None:
    """Up to 12 questions about each prompt's long words; each sixth is an entity, on which those after it depend."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        for _, item in json_rows(prompts):
            text = item["prompt"].strip()
            words = list(dict.fromkeys(re.findall(r"[a-z]{5,}", text.lower())))[:QUESTIONS_PER_PROMPT]
            for i, word in enumerate(words):
                kind, entity = KINDS[i % len(KINDS)], i - i % len(KINDS) + 1
                parent = 0 if kind in ("entity - whole", "global") else entity
                table.writerow([
                    item["item_id"], text, "", i + 1, parent, kind.split(" - ")[0], kind, f"{kind} ({word})",
                    f"Is there {word}, in the picture?",
                ])  # fmt: skip


def parse(prompt: str) -> Parse:
    """What is in no list is a noun; a chunk is a run of articles, adjectives and nouns."""
    words = re.findall(r"\w+|[^\w\s]", prompt)
    tokens = tuple((word, TAG_OF.get(word.lower(), "NOUN" if word.isalnum() else "PUNCT")) for word in words)
    marked = " ".join(word if tag in PARTS_OF_CHUNKS else "|" for word, tag in tokens)
    return Parse(tuple(chunk.strip() for chunk in marked.split("|") if chunk.strip()), tokens)


def write_judges(folder: Path, texts: list[str]) -> None:
    """texts: what they are asked about; the tokenizers that need words get theirs."""
    words = sorted({word for text in texts for word in re.findall(r"[a-z]+", text.lower())})
    for name in ("mask2former", "owlv2", "clip", "dpt", "blip"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    tiny_detectors.mask2former(folder / "mask2former")
    _make_sure(folder / "mask2former" / "model.safetensors")
    tiny_detectors.owlv2(folder / "owlv2", words)
    tiny_detectors.clip(folder / "clip", words)
    tiny_detectors.dpt(folder / "dpt")
    helpers_vqa.blip(folder / "blip", list(dict.fromkeys([*helpers_vqa.WORDS, *words])))


def _make_sure(weights: Path) -> None:
    """Sharpen a random Mask2Former, which would find nothing above GenEval's thresholds: each query prefers a class."""
    found = load_file(weights)
    for name in found:
        if name.startswith("class_predictor."):
            found[name] = found[name] * 20
    save_file(found, weights, metadata={"format": "pt"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--benchmarks", type=Path, required=True, help="folder with dpg_bench/, geneval/, t2i_compbench/"
    )
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()

    given.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    random_janus(given.out / "janus", image_size=32, patch=8, max_positions=2048)
    compbench = [prompt.text for prompt in read_compbench(given.benchmarks / "t2i_compbench")]
    geneval = [prompt.text for prompt in read_geneval(given.benchmarks / "geneval" / "evaluation_metadata.jsonl")]
    write_judges(given.out / "judges", [*tiny_detectors.WORDS, *compbench, *geneval])
    write_question_table(given.out / "dpg_bench.csv", given.benchmarks / "dpg_bench" / "prompts.jsonl")
    write_parses(given.out / "chunks.jsonl", compbench, parse)
    print(json.dumps({"out": str(given.out), "files": sorted(path.name for path in given.out.iterdir())}))


if __name__ == "__main__":
    main()
