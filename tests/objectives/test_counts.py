import dataclasses

import pytest
import torch

from thinkdraw.objectives.counts import SegmentCounts, count_segments, masked_modality_mean

MASK = torch.tensor([[1, 1, 1, 1], [0, 1, 0, 0], [0, 0, 0, 0]]).bool()
IS_IMAGE = torch.tensor([[0, 1, 1, 1], [0, 1, 1, 1], [0, 1, 1, 1]]).bool()


def test_counts_are_trained_tokens_and_rows_that_have_any():
    # text: 1 token in row 0.  image: 3 in row 0 and 1 in row 1.  Row 2 trains nothing and is no sequence.
    assert count_segments(MASK, IS_IMAGE) == SegmentCounts(1, 4, 2, 1, 2)


def test_counts_of_parts_add_up_to_the_counts_of_the_whole():
    parts = [count_segments(MASK[i : i + 1], IS_IMAGE[i : i + 1]) for i in range(3)]
    assert parts[0] + parts[1] + parts[2] == count_segments(MASK, IS_IMAGE)


def test_counts_survive_the_tensor_of_an_all_reduce():
    counts = count_segments(MASK, IS_IMAGE)
    assert SegmentCounts(*torch.tensor(dataclasses.astuple(counts)).tolist()) == counts


def test_modality_means_divide_by_the_tokens_of_their_own_modality():
    values = torch.tensor([[8.0, 1, 2, 3], [9, 6, 9, 9], [9, 9, 9, torch.nan]])
    means = masked_modality_mean(values, MASK, IS_IMAGE)
    assert means.text.item() == 8.0  # 8 / 1
    assert means.image.item() == 3.0  # (1 + 2 + 3 + 6) / 4


def test_a_modality_without_trained_tokens_has_mean_zero():
    means = masked_modality_mean(torch.ones(1, 2), torch.ones(1, 2).bool(), torch.ones(1, 2).bool())
    assert (means.text.item(), means.image.item()) == (0.0, 1.0)


def test_an_integer_mask_is_refused_because_its_inverse_is_not_its_complement():
    with pytest.raises(ValueError, match=r"Write mask\.bool\(\)"):
        count_segments(MASK.long(), IS_IMAGE)


def test_tensors_on_different_token_axes_are_refused():
    with pytest.raises(ValueError, match=r"values is \(3, 3\)"):
        masked_modality_mean(torch.ones(3, 3), MASK, IS_IMAGE)
