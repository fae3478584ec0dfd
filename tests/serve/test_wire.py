import base64
import dataclasses
import io
import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from tests.rollouts.segmented import StubPolicy, interleaved
from tests.serve.serving import PROMPT, noise

from thinkdraw.errors import UserError
from thinkdraw.serve.wire import Limits, Verdict, WireError, read_reply, read_request, row_hashes, write_request
from thinkdraw.types import Prompt, Question, Relation, Rollouts, Sampling

LIMITS = Limits()
RICH = Prompt(
    "two red dögs left of “a” cat", id="x/1", tag="position",
    include=({"class": "dog", "count": 2, "color": "red"}, {"class": "cat", "count": 1, "position": ("right of", 0)}),
    exclude=({"class": "dog", "count": 3},), nouns=("dog", "cat"), attributed=("red dog",), counts=(("dog", 2),),
    relation=Relation("dog", "left of", "cat"),
    questions=(
        Question(0, "a dog?", fact={"kind": "exists"}, category="entity"),
        Question(1, "is it red?", depends_on=(0,)),
    ),
)  # fmt: skip


def there_and_back(rollouts: Rollouts, pictures="raw") -> Rollouts:
    request_id, back = read_request(write_request(rollouts, "r1", pictures), LIMITS)
    assert request_id == "r1"
    return back


def ragged() -> Rollouts:
    """Two rows of 3 and 5 tokens, a thought that was cut (its last token forced), an own prompt each."""
    made = noise(2)
    segment = torch.tensor([[0, 1, 1, -1, -1], [0, 0, 1, 1, 1]], dtype=torch.int8)
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 0, 1, 1, 1]]).bool()
    return dataclasses.replace(
        made, prompts=(RICH, PROMPT), segment=segment, mask=mask, is_image=segment == 1,
        tokens=torch.arange(10).reshape(2, 5) * (segment >= 0),
        sampling=Sampling(thought="rewrite", max_thought_tokens=7, top_p=0.9),
    )  # fmt: skip


def changed(body: bytes, change) -> bytes:
    message = json.loads(body)
    change(message)
    return json.dumps(message).encode()


@pytest.mark.parametrize("pictures", ["raw", "png"])
def test_all_that_a_reward_may_read_comes_back_as_it_was(pictures):
    sent = ragged()
    back = there_and_back(sent, pictures)
    for name in ("tokens", "segment", "is_image", "mask", "pictures"):
        assert torch.equal(getattr(back, name), getattr(sent, name)), name
    assert back.thoughts == sent.thoughts and back.sampling == sent.sampling and back.group_size == 1
    plain = dataclasses.replace(RICH, include=(RICH.include[0], {**RICH.include[1], "position": ["right of", 0]}))
    assert back.prompts == (plain, PROMPT)  # JSON has no tuples inside a clause
    assert row_hashes(back) == row_hashes(sent)


def test_rollouts_of_many_segments_travel_with_what_their_segments_are():
    sent = interleaved()
    sent = dataclasses.replace(sent, pictures=StubPolicy().decode_tokens(sent.image_tokens()))
    back = there_and_back(sent)
    kinds = [[(s.kind, s.picture) for s in row] for row in sent.segments]
    assert [[(s.kind, s.picture) for s in row] for row in back.segments] == kinds
    assert torch.equal(back.image_tokens(), sent.image_tokens()) and row_hashes(back) == row_hashes(sent)
    body = changed(write_request(sent, "r"), lambda m: m["rows"][0].pop("segments"))
    with pytest.raises(WireError, match="some do not"):
        read_request(body, LIMITS)
    with pytest.raises(WireError, match="out of order"):
        read_request(changed(write_request(ragged(), "r"), lambda m: m["rows"][1]["segment"].reverse()), LIMITS)


def test_what_does_not_travel_is_nan_and_never_a_number():
    assert bool(there_and_back(noise(2)).log_probs.isnan().all())


def test_a_prompt_that_a_group_shares_travels_once():
    assert len(json.loads(write_request(noise(8, group_size=4), "r"))["prompts"]) == 1


@pytest.mark.parametrize(
    ("what", "rows"),
    [
        ("pictures", [1]),
        ("thoughts", [1]),
        ("prompts", [1]),
        ("tokens", [1]),
        ("mask", [1]),
        ("sampling", [0, 1, 2, 3]),
        ("log_probs", []),
        ("seeds", []),
    ],
)
def test_a_hash_changes_with_its_own_row_alone(what, rows):
    one = noise(4)
    two = {
        "pictures": one.pictures.clone(), "tokens": one.tokens.clone(), "mask": one.mask.clone(),
        "prompts": (PROMPT, dataclasses.replace(PROMPT, tag="colors"), PROMPT, PROMPT),
        "thoughts": (one.thoughts[0], "another", *one.thoughts[2:]), "sampling": Sampling(temperature=0.5),
        "log_probs": one.log_probs - 1, "seeds": one.seeds + 1,
    }[what]  # fmt: skip
    if what == "pictures":
        two[1, 0, 0, 0] ^= 1
    if what == "tokens":
        two[1, 0] += 1
    if what == "mask":
        two[1, 0] = False
    before, after = row_hashes(one), row_hashes(dataclasses.replace(one, **{what: two}))
    assert [i for i in range(4) if before[i] != after[i]] == rows


def test_a_hash_covers_the_group_whose_members_a_reward_may_compare():
    one = noise(4, group_size=2)
    pictures = one.pictures.clone()
    pictures[1] ^= 1
    before, after = row_hashes(one), row_hashes(dataclasses.replace(one, pictures=pictures))
    assert [i for i in range(4) if before[i] != after[i]] == [0, 1]
    same = dataclasses.replace(noise(2, group_size=2), pictures=torch.zeros(2, 8, 8, 3, dtype=torch.uint8), thoughts=())
    assert len(set(row_hashes(same))) == 2  # members that are alike are still two rows


def png_of(mode: str, size: int = 8) -> dict:
    file = io.BytesIO()
    Image.new(mode, (size, size)).save(file, format="PNG")
    return {"png": base64.b64encode(file.getvalue()).decode()}


RAW = {"raw": base64.b64encode(bytes(8 * 8 * 3)).decode(), "shape": [8, 8, 3]}


@pytest.mark.parametrize(
    ("picture", "error", "says"),
    [
        (png_of("RGB", 9), WireError, "several sizes"),
        (png_of("RGB", 65), UserError, "65×65: this server takes 64 pixels"),
        ({**RAW, "shape": [10**6, 10**6, 3]}, UserError, "1000000×1000000"),
        ({**RAW, "shape": [8, 8, 4]}, WireError, "has 192 bytes"),
        ({**RAW, "shape": [8, 7, 3]}, WireError, "has 192 bytes"),
        ({**RAW, "shape": [-8, -8, 3]}, WireError, "has 192 bytes"),
        ({"raw": "%%%", "shape": [8, 8, 3]}, WireError, "cannot be read"),
        ({"png": base64.b64encode(b"GIF89a" + bytes(40)).decode()}, WireError, "cannot be read"),
        ({}, WireError, "has 0 bytes"),
    ],
)
def test_a_picture_of_the_wrong_size_or_form_is_refused(picture, error, says):
    body = changed(write_request(noise(2), "r"), lambda m: m["rows"][1].update(picture=picture))
    with pytest.raises(error, match=says):
        read_request(body, Limits(side=64))


def test_a_png_of_any_mode_is_read_by_value():
    message = json.loads(write_request(noise(2), "r"))
    for row, mode in zip(message["rows"], ("RGBA", "L")):
        row["picture"] = png_of(mode)  # transparent, and black
    pictures = read_request(json.dumps(message).encode(), LIMITS)[1].pictures
    assert pictures is not None and [int(p.max()) for p in pictures] == [int(p.min()) for p in pictures] == [255, 0]


def test_all_pixels_of_a_request_are_counted_before_any_is_unpacked(monkeypatch):
    monkeypatch.setattr("thinkdraw.serve.wire.read_picture", lambda *a: pytest.fail("unpacked"))
    body = changed(write_request(noise(4), "r"), lambda m: [row.update(picture=png_of("RGB", 32)) for row in m["rows"]])
    with pytest.raises(UserError, match="pictures of 4096 pixels in one request: this server takes 4095"):
        read_request(body, Limits(pixels=4095))


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (lambda m: m.update(api=2), WireError, "no JudgeRequest: api"),
        (lambda m: m.update(surprise=1), WireError, "surprise"),
        (lambda m: m.update(rows=[]), WireError, "rows"),
        (lambda m: m.update(group_size=3), WireError, "4 rows do not divide into groups of 3"),
        (lambda m: m["rows"][0].update(prompt=1), WireError, "beyond the 1 that came"),
        (lambda m: m["rows"][0]["mask"].pop(), WireError, "differ in length"),
        (lambda m: m["rows"][0]["tokens"].__setitem__(0, 2**70), WireError, "tokens"),
        (lambda m: m["prompts"][0].update(text="  "), UserError, "prompt is empty"),
        (lambda m: m.update(rows=m["rows"] * 2), UserError, "8 rows in one request: this server takes 4"),
    ],
)
def test_a_request_that_is_none_or_asks_too_much_is_refused_in_one_line(change, error, says):
    with pytest.raises(error, match=says) as refused:
        read_request(changed(write_request(noise(4), "r"), change), Limits(rows=4))
    assert "\n" not in str(refused.value)


def reply(rewards, **changes):
    rows = [Verdict(hash=f"h{i}", reward=None).model_dump() | {"reward": r} for i, r in enumerate(rewards)]
    return json.dumps({"api": 1, "id": "r1", "reward": "x", "revision": "v1", "rows": rows} | changes).encode()


def test_a_good_reply_gives_its_numbers_to_the_last_bit():
    value = float(np.float32(1 / 3))
    assert [v.reward for v in read_reply(reply([value, None, 2]), "r1", ["h0", "h1", "h2"], "v1")] == [value, None, 2.0]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (reply([1.0, 2.0])[:-9], "no JudgeReply"),
        (b"", "no JudgeReply"),
        (b"<html>bad gateway</html>", "no JudgeReply"),
        (reply([1.0]), "1 verdicts for 2 rows"),
        (reply([1.0, 2.0, 3.0]), "3 verdicts for 2 rows"),
        (reply([1.0, math.nan]), "rows.1.reward"),
        (reply([1.0, math.inf]), "rows.1.reward"),
        (reply([1.0, "2.0"]), "rows.1.reward"),
        (reply([1.0, True]), "rows.1.reward"),
        (reply([1.0, 2.0], id="r2"), "another request"),
        (reply([1.0, 2.0], revision="v2"), "now has revision v2, and had v1"),
        (reply([1.0, 2.0], api=2), "api"),
    ],
)
def test_a_reply_that_cannot_be_trusted_is_refused_whole(body, says):
    with pytest.raises(WireError, match=says):
        read_reply(body, "r1", ["h0", "h1"], "v1")


def test_verdicts_on_other_rows_are_refused_even_if_they_are_only_swapped():
    with pytest.raises(WireError, match="on other rows"):
        read_reply(reply([1.0, 2.0]), "r1", ["h1", "h0"], "v1")
