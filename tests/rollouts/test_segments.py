"""A rollout is a row of segments: five and more of them, of three kinds, pass everything between sampler and loss."""

import dataclasses

import pyarrow.parquet as pq
import pytest
import torch
from tests.rollouts import segmented
from tests.rollouts.helpers import assert_equal
from tests.rollouts.segmented import INTERLEAVED, LENGTHS, PICTURE, SCALES, StubPolicy, interleaved, of_ten_scales

from thinkdraw.objectives import clipped_loss, count_segments, dpo_loss, masked_modality_mean
from thinkdraw.rollouts import RolloutStore
from thinkdraw.rollouts.export import export
from thinkdraw.rollouts.readable import readable_segments
from thinkdraw.types import Context, Rollouts, Segment

BOTH = pytest.mark.parametrize("made", [interleaved, of_ten_scales])


def plain() -> Rollouts:
    """A thought and a picture in each row, which do not say what they are."""
    rollouts = interleaved()
    segment = torch.tensor([[0] * 3 + [1] * 16] * 4, dtype=torch.int8)
    columns = {name: getattr(rollouts, name)[:, :19] for name in ("tokens", "log_probs")}
    return dataclasses.replace(
        rollouts, **columns, segment=segment, is_image=segment == 1, mask=segment >= 0, segments=(), fresh_contexts=()
    )


# The type


def test_the_picture_is_the_one_that_was_drawn_last_with_all_its_parts():
    rollouts = interleaved()
    # 3 + 6 + 2 + 10 + 16 shown + 4, then the second picture's 16; the row that stops at the fourth segment has 6 and 10.
    wanted = [rollouts.tokens[0, 41:57], rollouts.tokens[1, 41:57]]
    wanted += [torch.cat([rollouts.tokens[2, 3:9], rollouts.tokens[2, 11:21]]), rollouts.tokens[3, :16]]
    assert torch.equal(rollouts.image_tokens(), torch.stack(wanted))
    assert torch.equal(of_ten_scales().image_tokens(), of_ten_scales().tokens[:, :16])


def test_rows_that_do_not_say_it_have_texts_and_whole_pictures():
    rollouts = plain()
    assert rollouts.segments_of(1) == (Segment("text"), Segment("drawn", 0, context=0))
    assert torch.equal(rollouts.image_tokens(), rollouts.tokens[:, 3:])
    fresh = Context(torch.ones(4, 2).long(), torch.ones(4, 2).bool())
    rewritten = dataclasses.replace(rollouts, fresh_contexts=(fresh,))
    assert rewritten.segments_of(1) == (Segment("text"), Segment("drawn", 0, context=1))
    assert rewritten.token_contexts()[0].tolist() == [0] * 3 + [1] * 16


def test_the_context_of_each_token_is_its_segments():
    contexts = interleaved().token_contexts()
    assert contexts[0].tolist() == [0] * 3 + [1] * 6 + [2] * 2 + [3] * 10 + [4] * 16 + [5] * 4 + [6] * 16 + [-1]
    assert contexts[3].tolist() == [1] * 16 + [-1] * 42
    assert [context.ids.shape[1] for context in interleaved().contexts] == [5, 3, 4, 5, 6, 7, 8]


@BOTH
def test_a_selection_has_the_segments_contexts_and_pictures_of_its_rows(made):
    rollouts = made()
    part = rollouts.select([3, 0])
    length = int((rollouts.segment[[3, 0]] >= 0).sum(1).max())
    assert part.tokens.shape == (2, length) and part.segments == (rollouts.segments[3], rollouts.segments[0])
    for mine, whole in zip(part.contexts, rollouts.contexts, strict=True):
        assert torch.equal(mine.ids, whole.ids[[3, 0]]) and torch.equal(mine.mask, whole.mask[[3, 0]])
    assert torch.equal(part.image_tokens(), rollouts.image_tokens()[[3, 0]])
    assert_equal(rollouts.select(range(4), rollouts.group_size).to("cpu"), rollouts.select(torch.arange(4), 2))


def test_rows_of_several_kinds_are_joined_and_each_says_what_it_is():
    parts = [plain(), interleaved(), of_ten_scales()]
    whole = Rollouts.join(parts, pad_id=0)
    assert len(whole) == 12 and len(whole.contexts) == 7
    assert whole.segments_of(0) == (Segment("text"), Segment("drawn", 0))
    for number, part in enumerate(parts):
        mine = whole.select(range(4 * number, 4 * number + 4), 2)
        assert torch.equal(mine.image_tokens(), part.image_tokens())
        width = part.tokens.shape[1] if part.segments else 19
        assert torch.equal(mine.token_contexts()[:, : width - 1], part.token_contexts()[:, : width - 1])
    assert Rollouts.join([plain(), plain()]).segments == ()


def changed(rollouts: Rollouts, row: int, index: int, segment: Segment) -> tuple[tuple[Segment, ...], ...]:
    rows = [list(segments) for segments in rollouts.segments]
    rows[row][index] = segment
    return tuple(map(tuple, rows))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda r: {"segments": r.segments[:3]}, "`segments` describes 3 rows of 4 rollouts"),
        (lambda r: {"segments": (INTERLEAVED[:3], *r.segments[1:])}, "row 0 has tokens of 7 segments and describes 3"),
        (lambda r: {"segments": changed(r, 0, 0, Segment("drawn", 5))}, "is_image contradicts"),
        (lambda r: {"segments": changed(r, 0, 0, Segment("text", context=7))}, "with 6 fresh contexts"),
        (lambda r: {"segments": changed(r, 0, 1, Segment("drawn", -1))}, "Only a picture has a number"),
        (lambda r: {"segments": changed(r, 0, 1, Segment("shown", 0))}, "mask is True in a shown picture"),
        (lambda r: {"segments": ()}, "6 fresh contexts: describe in `segments`"),
        (
            lambda r: {"fresh_contexts": (Context(torch.ones(4, 0).long(), torch.ones(4, 0).bool()),)},
            "a fresh context has ids",
        ),
        (lambda r: {"segment": (6 - r.segment).where(r.segment >= 0, -1).to(torch.int8)}, "out of order"),
    ],
)
def test_what_contradicts_itself_is_refused(change, says):
    rollouts = interleaved()
    with pytest.raises(ValueError, match=says):
        dataclasses.replace(rollouts, **change(rollouts))


# The store


@BOTH
def test_a_store_gives_back_exactly_what_was_appended(tmp_path, made):
    store = RolloutStore.create(tmp_path, StubPolicy(), "inline")
    for rollouts in (made(), made().select([2, 3, 0, 1], 2)):  # the second with padding that the selection left
        store.append(rollouts)
    again = RolloutStore.open(tmp_path)
    assert_equal(made(), again.read_shard(0).rollouts())
    assert_equal(made().select([2, 3, 0, 1], 2), again.read_shard(1).rollouts())
    assert_equal(made().select([2]), again.row(2))


def test_plain_rows_have_the_columns_that_they_always_had(tmp_path):
    store = RolloutStore.create(tmp_path, StubPolicy(), "inline")
    store.append(plain())
    store.append(interleaved())
    names = [set(shard.table.column_names) for shard in store.shards()]
    new = {"segment_is_shown", "segment_picture", "segment_context", "fresh_lengths", "fresh_ids"}
    assert names[1] - names[0] == new and not names[0] & new and len(names[0]) == 23
    assert_equal(plain(), store.read_shard(0).rollouts())


def test_a_damaged_segment_is_found(tmp_path):
    store = RolloutStore.create(tmp_path, StubPolicy(), "inline")
    store.append(interleaved())
    other = RolloutStore.create(tmp_path / "other", StubPolicy(), "inline")
    other.append(dataclasses.replace(interleaved(), segments=changed(interleaved(), 0, 6, Segment("drawn", 2, 6))))
    assert store.info()["content_hash"] != other.info()["content_hash"]


def test_an_export_of_both_kinds_has_nulls_where_a_shard_does_not_say_it(tmp_path):
    store = RolloutStore.create(tmp_path, StubPolicy(), "inline")
    store.append(plain())
    store.append(interleaved())
    rows = pq.read_table(export(store, tmp_path / "flat")).to_pylist()
    assert rows[0]["segment_picture"] is None and rows[4]["segment_picture"] == [-1, 0, -1, 0, 0, -1, 1]


def test_unfinished_pictures_and_pictures_of_several_sizes_are_stored(tmp_path):
    store = RolloutStore.create(tmp_path, StubPolicy(), "inline")
    # a row that stopped after the first part of its picture, and one with a whole picture
    rows = [(INTERLEAVED[:2], (3, 6)), (INTERLEAVED[:4], (3, 6, 2, 10))]
    stopped = segmented.made(rows, num_fresh=3, group_size=1)
    store.append(stopped)
    assert_equal(stopped, store.read_shard(0).rollouts())
    assert [len(row) for row in store.read_shard(0).table["image_tokens"].to_pylist()] == [6, 16]


# The losses


def micro_batches(rollouts: Rollouts, rows: torch.Tensor, size: int) -> list[torch.Tensor]:
    """As the recipes split a batch: sorted by length."""
    lengths = (rollouts.segment[rows] >= 0).sum(1) + rollouts.prompt_mask[rows].sum(1)
    return list(rows[torch.argsort(lengths, stable=True)].split(size))


def gradient_of(policy: StubPolicy) -> torch.Tensor:
    (weight,) = policy.network.parameters()
    assert weight.grad is not None
    gradient, weight.grad = weight.grad.clone(), None
    return gradient


@pytest.mark.parametrize("variant", ["grpo", "dapo", "gspo"])
@BOTH
def test_micro_batches_have_the_gradient_of_the_whole_batch_in_grpo(made, variant):
    rollouts, policy, advantages = made(), StubPolicy(), torch.tensor([1.0, -1.0, 0.5, -0.5])
    counts = count_segments(rollouts.mask, rollouts.is_image)
    gradients, losses = [], []
    for size in (4, 1, 3):
        loss = 0.0
        for rows in micro_batches(rollouts, torch.arange(4), size):
            micro = rollouts.select(rows)
            lp = policy.log_probs(micro).log_probs
            found = clipped_loss(
                lp, micro.log_probs, advantages[rows], micro.mask, micro.is_image, variant=variant, counts=counts,
                clip_low=0.9, clip_high=9.0,
            )  # fmt: skip
            entropies = masked_modality_mean(-lp, micro.mask, micro.is_image, counts)
            (found.loss + 0.1 * entropies.text + 0.1 * entropies.image).backward()
            loss += float(found.loss.detach())
        gradients.append(gradient_of(policy))
        losses.append(loss)
    assert gradients[0].abs().sum() > 0
    torch.testing.assert_close(gradients[1:], [gradients[0]] * 2)
    assert losses == pytest.approx([losses[0]] * 3, abs=1e-6)


def test_the_policy_gradient_takes_all_texts_together_and_all_chosen_image_tokens_together():
    rollouts = interleaved().select([0, 1], 2)
    lp = torch.randn(rollouts.tokens.shape, requires_grad=True)
    loss = clipped_loss(lp, lp.detach(), torch.tensor([1.0, -1.0]), rollouts.mask, rollouts.is_image).loss
    loss.backward()
    # Texts of 3, 2 and 4 tokens, the last of each forced: 6 chosen. Parts of 6 and 10 and a picture of 16: 32 chosen.
    # The gradient of −ratio·A at ratio 1 is −A, divided by the row's tokens of its modality and by 2 rows.
    wanted = torch.zeros(2, 57)
    for row, advantage in enumerate((1.0, -1.0)):
        wanted[row][rollouts.mask[row] & ~rollouts.is_image[row]] = -advantage / (6 * 2)
        wanted[row][rollouts.mask[row] & rollouts.is_image[row]] = -advantage / (32 * 2)
    torch.testing.assert_close(lp.grad, wanted)
    assert (wanted[:, 21:37] == 0).all()  # the shown picture


@pytest.mark.parametrize("loss_type", ["sigmoid", "ipo", "sigmoid_norm"])
@BOTH
def test_pairs_have_the_gradient_of_all_pairs_in_dpo(made, loss_type):
    rollouts, policy = made(), StubPolicy()
    better, worse, gradients = torch.tensor([0, 3]), torch.tensor([1, 2]), []
    for size in (2, 1):
        for b, w in zip(better.split(size), worse.split(size)):
            both = rollouts.select(torch.cat([b, w]))
            lp, half = policy.log_probs(both).log_probs, len(b)
            sides = [(t[:half], t[half:]) for t in (lp, both.log_probs, both.mask, both.is_image)]
            found = dpo_loss(*(t for side in sides for t in side), loss_type=loss_type, beta=0.5, num_pairs=2)
            found.loss.backward()
        gradients.append(gradient_of(policy))
    assert gradients[0].abs().sum() > 0
    torch.testing.assert_close(*gradients)


def test_the_means_of_dpo_are_of_texts_and_of_pictures_apart():
    rollouts = interleaved().select([0, 1], 2)
    lp = torch.where(rollouts.is_image, -2.0, -1.0).masked_fill(~rollouts.mask, 0.0)
    lp[0] *= 3  # the chosen row: texts −3 a token, pictures −6; the reference has 0
    mask, is_image, zero = rollouts.mask, rollouts.is_image, torch.zeros_like(lp)
    found = dpo_loss(
        lp[:1], lp[1:], zero[:1], zero[1:], mask[:1], mask[1:], is_image[:1], is_image[1:], loss_type="ipo", beta=0.5
    )
    # Δ = (−3 − 6)/2 − (−1 − 2)/2 = −3, and the loss (Δ − 1/(2β))² = (−3 − 1)²
    assert float(found.loss) == pytest.approx(16.0)


# To read


def test_texts_and_pictures_are_read_in_the_order_in_which_they_came():
    rollouts, policy = interleaved(), StubPolicy()
    found = readable_segments(rollouts, 0, policy)
    assert [s.kind for s in found] == [s.kind for s in INTERLEAVED]
    texts = [rollouts.tokens[0, 0:3], rollouts.tokens[0, 9:11], rollouts.tokens[0, 37:41]]
    assert [s.text for s in found if s.kind == "text"] == [policy.text.thought_text(t.tolist()) for t in texts]
    first = torch.cat([rollouts.tokens[0, 3:9], rollouts.tokens[0, 11:21]])
    wanted = [rollouts.tokens[0, 3:9], first, rollouts.tokens[0, 21:37], rollouts.tokens[0, 41:57]]
    for segment, codes in zip([s for s in found if s.kind != "text"], wanted, strict=True):
        assert torch.equal(segment.picture, policy.decode_tokens(codes[None])[0])


def test_ten_scales_are_one_picture():
    (found,) = readable_segments(of_ten_scales(), 2, StubPolicy())
    assert sum(SCALES) == PICTURE.num_tokens and found.kind == "drawn"
    assert torch.equal(found.picture, StubPolicy().decode_tokens(of_ten_scales().image_tokens())[2])


def test_what_was_shown_is_neither_sampled_nor_left_out_of_the_codes():
    rollouts = interleaved()
    assert rollouts.is_sampled()[0].sum() == sum(LENGTHS) - 16  # the shown picture
    assert torch.equal(rollouts.all_image_tokens()[3, :16], rollouts.tokens[3, :16])
    assert rollouts.all_image_tokens().shape == (4, 6 + 10 + 16 + 16)
    assert torch.equal(plain().all_image_tokens(), plain().image_tokens())


def test_a_text_was_cut_where_any_of_the_policys_texts_was_and_not_where_one_was_given():
    rollouts = interleaved()  # the last token of each text was forced
    assert rollouts.text_was_cut().tolist() == [True, True, True, False]
    given = dataclasses.replace(rollouts, mask=rollouts.mask & rollouts.is_image)
    assert given.text_was_cut().tolist() == [False] * 4
    rewrite = rollouts.sampling.model_copy(update={"thought": "rewrite", "max_thought_tokens": 4})
    assert dataclasses.replace(rollouts, sampling=rewrite).text_was_cut().tolist() == [True, True, False, False]
