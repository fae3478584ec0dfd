"""`corpus write` with a real `transformers serve` as teacher; its small model babbles, so every row is set aside, and none lost."""

import json

import pytest
import torch
from tests.corpus.helpers import picture_folder, rows_of, settings_of
from tests.judges import helpers_vlm as tiny
from tests.judges.helpers_served import serving
from typer.testing import CliRunner

from thinkdraw.cli import app
from thinkdraw.config import save_config
from thinkdraw.corpus.queue import Queue
from thinkdraw.corpus.sources import Item
from thinkdraw.corpus.teachers.teachers import TeacherRequest, conversation
from thinkdraw.corpus.writing import REJECTED_FILE, WORK
from thinkdraw.errors import UserError
from thinkdraw.judges.questioners.picture_chat import read_chat_model
from thinkdraw.picture_reader import read_picture
from thinkdraw.recipes.corpus import CorpusConfig
from thinkdraw.types import Prompt

ANSWER_TOKENS = 16


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tiny.llava(tmp_path_factory.mktemp("teacher") / "llava")
    with serving(folder) as url:
        yield folder, url


@torch.no_grad()
def greedy_answer(folder, picture):
    """What the model says to the teacher's request about a picture, without a server in between."""
    model, processor = read_chat_model(str(folder))
    (_, system), (_, user) = conversation(TeacherRequest(Item(0, "", Prompt(""), True), picture), "English")
    asked = [
        {"role": "system", "content": [{"type": "text", "text": system}]},
        {"role": "user", "content": [{"type": "image", "image": picture}, {"type": "text", "text": user}]},
    ]
    inputs = processor.apply_chat_template(
        asked, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    tokens = model.generate(**inputs, max_new_tokens=ANSWER_TOKENS, do_sample=False)
    return processor.tokenizer.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


def test_a_served_model_is_asked_about_each_picture_and_what_it_says_is_kept_with_its_reason(tmp_path, served):
    folder, url = served
    pictures = picture_folder(tmp_path / "pictures", 3, (28, 28))
    (pictures / "001.txt").write_text("two cups")
    settings = settings_of(
        tmp_path / "out", url, source={"kind": "folder", "path": str(pictures)}, limits={"attempts": 2},
        teacher={"model": str(folder), "temperature": 0.0, "max_answer_tokens": ANSWER_TOKENS, "concurrency": 2},
    )  # fmt: skip
    config = CorpusConfig.model_validate(settings.model_dump() | {"recipe": "corpus", "num_threads": 1})
    save_config(config, tmp_path / "corpus.yaml")
    done = CliRunner().invoke(app, ["corpus", "write", str(tmp_path / "corpus.yaml")])
    assert isinstance(done.exception, UserError) and "out has no rows: cut off (3)" in str(done.exception), done.output
    aside = [json.loads(line) for line in (config.out / REJECTED_FILE).read_text().splitlines()]
    assert rows_of(config.out) == [] and [row["id"] for row in aside] == ["000.png", "001.png", "002.png"]
    assert all(row["reason"].startswith("cut off: ") and len(row["attempts"]) == 2 for row in aside)
    for name in ("000.png", "002.png"):
        (said,) = (row["attempts"][0]["reply"] for row in aside if row["id"] == name)
        assert said == greedy_answer(folder, read_picture((pictures / name).read_bytes()))
    with Queue(config.out / WORK) as queue:
        assert queue.counts().waiting == 0
    assert "0 rows" in (config.out / "README.md").read_text()
