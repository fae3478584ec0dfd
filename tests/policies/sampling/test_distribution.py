"""Temperature, guidance, suppression and cuts, by arithmetic."""

import math

import torch

from thinkdraw.policies.sampling.distribution import allowed_mask, entropy_of, log_distribution, top_k_top_p_mask
from thinkdraw.types import AllowedTokens


def test_guidance_is_u_plus_s_times_c_minus_u_before_temperature():
    # c = (ln 4, 0), u = (ln 2, 0), s = 3: u + 3(c − u) = (ln 2 + 3 ln 2, 0) = (ln 16, 0); at temperature 2 (ln 4, 0)
    c, u = torch.tensor([[math.log(4), 0.0]]), torch.tensor([[math.log(2), 0.0]])
    at = log_distribution(c, temperature=2.0, unconditional=u, guidance_scale=3.0).exp()
    torch.testing.assert_close(at, torch.tensor([[0.8, 0.2]]))
    none = log_distribution(c, temperature=1.0, unconditional=u, guidance_scale=0.0).exp()
    torch.testing.assert_close(none, torch.tensor([[2 / 3, 1 / 3]]))


def test_suppressed_tokens_have_no_probability_and_the_rest_is_renormalised():
    probs = torch.tensor([[0.5, 0.3, 0.2]])
    at = log_distribution(probs.log(), temperature=1.0, suppressed=torch.tensor([True, False, False])).exp()
    torch.testing.assert_close(at, torch.tensor([[0.0, 0.6, 0.4]]))


def test_bf16_logits_are_mixed_in_float32():
    logits = torch.tensor([[1.0, 2.0]], dtype=torch.bfloat16)
    assert log_distribution(logits, temperature=1.0).dtype == torch.float32


def test_kept_sets():
    probs = torch.tensor([[0.1, 0.4, 0.2, 0.3], [0.97, 0.01, 0.01, 0.01]]).log()
    assert top_k_top_p_mask(probs, None, None) is None and top_k_top_p_mask(probs, 4, 1.0) is None
    assert top_k_top_p_mask(probs, 2, None).tolist() == [[False, True, False, True], [True, False, True, False]] or (
        top_k_top_p_mask(probs, 2, None).sum(1).tolist() == [2, 2]  # which of the equal ones stays is torch's choice
    )
    # 0.4 + 0.3 < 0.8 ≤ 0.4 + 0.3 + 0.2; and the first always stays
    assert top_k_top_p_mask(probs, None, 0.8).tolist() == [[False, True, True, True], [True, False, False, False]]
    # top-p after top-k: of 0.4, 0.3 renormalised to 0.57, 0.43 the first alone holds half
    assert top_k_top_p_mask(probs, 2, 0.5)[0].tolist() == [False, True, False, False]


def test_kept_sets_agree_with_transformers_warpers():
    from transformers import TopKLogitsWarper, TopPLogitsWarper

    logits = torch.randn(20, 50) * 2
    expected = TopPLogitsWarper(0.9)(None, TopKLogitsWarper(30)(None, logits.log_softmax(-1)))
    assert torch.equal(top_k_top_p_mask(logits.log_softmax(-1), 30, 0.9), torch.isfinite(expected))


def test_kept_sets_are_read_back_from_compressed_rows():
    # tokens (0, 0): {1, 3}; (0, 1): not cut; (1, 0): {2}; (1, 1): {0, 1}
    allowed = AllowedTokens(
        torch.tensor([1, 3, 2, 0, 1], dtype=torch.int32), torch.tensor([[2, 0], [1, 2]], dtype=torch.int32)
    )
    place = (torch.tensor([1, 0, 0]), torch.tensor([1, 0, 1]))
    expected = [[True, True, False, False], [False, True, False, True], [True] * 4]
    assert allowed_mask(allowed, place, 4).tolist() == expected


def test_entropy_of_a_cut_distribution_is_finite_and_differentiable():
    logits = torch.zeros(1, 4, requires_grad=True)
    allowed = torch.tensor([[True, True, False, False]])
    entropy = entropy_of(log_distribution(logits, temperature=1.0, allowed=allowed))
    torch.testing.assert_close(entropy, torch.tensor([math.log(2)]))
    entropy.sum().backward()
    assert torch.isfinite(logits.grad).all()
