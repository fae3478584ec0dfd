import math

import pytest
import torch

from thinkdraw.objectives import TOKEN_WEIGHTS, clipped_loss
from thinkdraw.objectives.token_weights import (
    critical_mask,
    entropy_guided_mask,
    guidance_contrast_weights,
    stage_entropy_reward,
    stage_weights,
)

# Two text slots (row 1 has a shorter thought and ends in padding) and a picture of two tokens.
IS_IMAGE = torch.tensor([[0, 0, 1, 1], [0, 1, 1, 0]]).bool()
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]]).bool()
EAST, NORTH, WEST = (1.0, 0.0), (0.0, 1.0), (-1.0, 0.0)


def stage(codes, advantages, mask=MASK, is_image=IS_IMAGE, group_size=2):
    return stage_weights(torch.tensor(codes), torch.tensor(advantages), mask, is_image, group_size)


def test_stage_weighs_down_positions_where_opponents_look_alike():
    # Position 0: same code, c = 1: advantage (1 - 1)/2 = 0, KL 0.5 + 0.5 * 1 = 1.
    # Position 1: orthogonal, c = 0: advantage 0.5, KL 0.5 + 0.5 * clamp(1) = 1.  The picture starts one slot earlier in row 1.
    result = stage([[EAST, EAST], [EAST, NORTH]], [1.0, -1.0])
    torch.testing.assert_close(result.advantage, torch.tensor([[1, 1, 0, 0.5], [1, 0, 0.5, 1]]))
    torch.testing.assert_close(result.kl, torch.ones(2, 4))


def test_stage_is_neutral_where_opponents_are_opposite_and_relaxes_the_kl_there():
    # c = -1: advantage (1 + 1)/2 = 1, KL 0.5 + 0.5 * 0 = 0.5.  c = -0.6: advantage 0.8, KL 0.5 + 0.5 * 0.4 = 0.7
    result = stage([[EAST, EAST], [WEST, (-0.6, 0.8)]], [1.0, -1.0])
    torch.testing.assert_close(result.advantage[0], torch.tensor([1, 1, 1, 0.8]))
    torch.testing.assert_close(result.kl[0], torch.tensor([1, 1, 0.5, 0.7]))


def test_stage_compares_with_the_mean_over_rows_of_opposite_or_zero_advantage_in_the_group():
    # A = (1, 2, -1, 0): row 0 meets row 2 (c = 1) and row 3 (c = -1), not row 1; mean 0: 0.5.
    # Row 2 meets rows 0, 1, 3: (1 + 0 - 1)/3 = 0.  Row 3 meets all: (-1 + 0 - 1)/3 = -2/3: (1 + 2/3)/2.
    picture = torch.ones(4, 1).bool()
    codes = [[EAST], [NORTH], [EAST], [WEST]]
    result = stage(codes, [1.0, 2.0, -1.0, 0.0], picture, picture, 4)
    # row 1 meets rows 2 (c = 0) and 3 (c = 0): 0.5
    torch.testing.assert_close(result.advantage[:, 0], torch.tensor([0.5, 0.5, 0.5, 5 / 6]))


def test_stage_weights_are_one_without_opponents_and_rows_without_verdict_are_none():
    mask = MASK.clone()
    mask[1] = False  # its advantage is 0, and 0 * 1 <= 0 would make it an opponent
    result = stage([[EAST, EAST], [EAST, EAST]], [1.0, 0.0], mask)
    assert (result.advantage == 1).all() and (result.kl == 1).all()
    same_side = stage([[EAST, EAST], [EAST, EAST]], [1.0, 2.0])
    assert (same_side.advantage == 1).all()


def test_stage_groups_do_not_see_each_other():
    doubled = [torch.cat([t, t]) for t in (MASK, IS_IMAGE)]
    codes = torch.randn(4, 2, 3)
    advantages = torch.tensor([1.0, -1.0, 0.5, -0.5])
    both = stage_weights(codes, advantages, *doubled, 2)
    alone = stage_weights(codes[2:], advantages[2:], MASK, IS_IMAGE, 2)
    torch.testing.assert_close(both.advantage[2:], alone.advantage)


def test_stage_entropy_reward_is_highest_where_the_entropy_is_the_references():
    # image tokens only: gaps 0 and ((3 - 1) + (3 - 3))/2 = 1  ->  1/(1 + 0) = 1 and 1/(1 + 1) = 0.5, mean 0.75
    entropy = torch.tensor([[9.0, 9, 3, 3], [9, 1, 3, 9]])
    result = stage_entropy_reward(entropy, torch.full((2, 4), 3.0), MASK, IS_IMAGE)
    torch.testing.assert_close(result, 0.4 * torch.tensor([0.25, -0.25]))
    with_mean = stage_entropy_reward(entropy, torch.full((2, 4), 3.0), MASK, IS_IMAGE, scale=1.0, batch_mean=0.5)
    torch.testing.assert_close(with_mean, torch.tensor([0.5, 0.0]))


def test_stage_entropy_reward_is_zero_at_the_reference_and_for_rows_that_train_no_picture():
    entropy = torch.rand(2, 4)
    assert (stage_entropy_reward(entropy, entropy, MASK, IS_IMAGE) == 0).all()
    mask = MASK & torch.tensor([[True], [False]])
    assert stage_entropy_reward(entropy, entropy + 1, mask, IS_IMAGE).tolist() == [0.0, 0.0]


def critical(**fracs):
    """Two rows of ten image tokens. Entropy jumps at 6 and 7; the pictures differ at 8 alone."""
    entropy = torch.tensor([0.0, 0, 0, 0, 0, 0, 5, 0, 0, 0]).expand(2, 10)
    codes = torch.tensor(EAST).expand(2, 10, 2).clone()
    codes[1, 8] = torch.tensor(WEST)
    true = torch.ones(2, 10).bool()
    none = {"first_frac": 0.0, "entropy_gradient_frac": 0.0, "dissimilar_frac": 0.0}
    return critical_mask(codes, entropy, true, true, 2, **({**none, **fracs} if fracs else {}))[0].nonzero().flatten()


def test_critical_tokens_are_the_first_those_at_entropy_jumps_and_the_least_similar():
    assert critical(first_frac=0.2).tolist() == [0, 1]
    assert critical(entropy_gradient_frac=0.2).tolist() == [6, 7]  # |5 - 0| and |0 - 5|
    assert critical(dissimilar_frac=0.1).tolist() == [8]
    assert critical().tolist() == [0, 6, 8]  # a tenth each; of the equal jumps the earlier


def test_critical_keeps_every_token_when_a_share_is_one_and_always_the_text():
    assert critical(first_frac=1.0).tolist() == list(range(10))
    kept = critical_mask(torch.randn(2, 2, 3), torch.rand(2, 4), MASK, IS_IMAGE, 2, dissimilar_frac=0.5)
    assert kept[~IS_IMAGE].all() and kept.dtype == torch.bool


def test_critical_does_not_see_the_jump_from_text_to_picture():
    entropy = torch.tensor([[0.0, 0, 9, 8, 6]]).expand(2, 5)
    is_image = torch.tensor([False, False, True, True, True]).expand(2, 5)
    fracs = {"first_frac": 0.0, "entropy_gradient_frac": 0.34, "dissimilar_frac": 0.0}
    kept = critical_mask(torch.ones(2, 3, 2), entropy, torch.ones(2, 5).bool(), is_image, 2, **fracs)
    assert kept[0].tolist() == [True, True, False, False, True]  # |6 - 8| = 2, |8 - 9| = 1, the 9 has none before it


def test_entropy_guided_skips_tokens_under_the_quantile_of_their_row_and_modality():
    # text of row 0: 1 under the median 4.  image: 0.1 under 0.3.  Row 1 has quantiles of its own.
    entropy = torch.tensor([[1.0, 4, 0.1, 0.3], [7, 0.2, 0.1, 9]])
    kept = entropy_guided_mask(entropy, MASK, IS_IMAGE, text_quantile=0.5, image_quantile=0.5)
    assert kept.tolist() == [[False, True, False, True], [True, True, False, True]]


def test_entropy_guided_skips_nothing_at_quantile_zero_or_equal_entropies():
    entropy = torch.rand(2, 4)
    assert entropy_guided_mask(entropy, MASK, IS_IMAGE, text_quantile=0.0, image_quantile=0.0).all()
    assert entropy_guided_mask(torch.ones(2, 4), MASK, IS_IMAGE, text_quantile=0.9, image_quantile=0.9).all()


def test_guidance_contrast_is_the_gap_between_the_branches_over_its_mean_in_the_picture():
    # gaps of row 0: 1 and 3, mean 2: weights 0.5 and 1.5.  Row 1: no gap at all: 1.
    cond = torch.tensor([[-1.0, -1, -2, -1], [-1, -2, -3, -math.inf]])
    uncond = torch.tensor([[-9.0, -9, -3, -4], [-9, -2, -3, -math.inf]])
    weights = guidance_contrast_weights(cond, uncond, MASK, IS_IMAGE)
    torch.testing.assert_close(weights, torch.tensor([[1, 1, 0.5, 1.5], [1, 1, 1, 1]]))


def test_guidance_contrast_is_neutral_when_all_gaps_are_equal():
    cond = torch.randn(2, 4)
    assert torch.allclose(guidance_contrast_weights(cond, cond + 0.3, MASK, IS_IMAGE), torch.ones(2, 4))


def weights_of(name):
    torch.manual_seed(0)
    codes, entropy = torch.randn(2, 2, 3), torch.rand(2, 4)
    if name == "stage":
        return stage_weights(codes, torch.tensor([1.0, -1.0]), MASK, IS_IMAGE, 2).advantage
    if name == "critical":
        return critical_mask(codes, entropy, MASK, IS_IMAGE, 2, first_frac=0.5)
    if name == "entropy_guided":
        return entropy_guided_mask(entropy, MASK, IS_IMAGE, text_quantile=0.5, image_quantile=0.5)
    return guidance_contrast_weights(torch.randn(2, 4), torch.randn(2, 4), MASK, IS_IMAGE)


@pytest.mark.parametrize("name", list(TOKEN_WEIGHTS))
def test_every_token_weight_multiplies_the_gradient_of_its_token(name):
    weights = weights_of(name)
    assert weights.shape == MASK.shape and not weights.requires_grad and not (weights[MASK] == 1).all()
    gradients = []
    for advantages in (torch.ones(2, 4), weights.float()):
        lp = torch.full((2, 4), -1.0, requires_grad=True)
        clipped_loss(lp, lp, advantages, MASK, IS_IMAGE).loss.backward()
        gradients.append(lp.grad)
    torch.testing.assert_close(gradients[1], gradients[0] * weights)


def test_settings_without_meaning_are_refused():
    codes, entropy, advantages = torch.ones(2, 2, 3), torch.ones(2, 4), torch.ones(2)
    with pytest.raises(ValueError, match="whole groups of at least 2"):
        stage_weights(codes, advantages, MASK, IS_IMAGE, 1)
    with pytest.raises(ValueError, match="2 image tokens and codes holds 1"):
        stage_weights(codes[:, :1], advantages, MASK, IS_IMAGE, 2)
    with pytest.raises(ValueError, match="before any weights"):
        stage_weights(codes, torch.ones(2, 4), MASK, IS_IMAGE, 2)
    with pytest.raises(ValueError, match="first_frac=10"):
        critical_mask(codes, entropy, MASK, IS_IMAGE, 2, first_frac=10)
    with pytest.raises(ValueError, match="all three shares are 0"):
        critical_mask(codes, entropy, MASK, IS_IMAGE, 2, first_frac=0, entropy_gradient_frac=0, dissimilar_frac=0)
    with pytest.raises(ValueError, match="image_quantile=1"):
        entropy_guided_mask(entropy, MASK, IS_IMAGE, image_quantile=1)
