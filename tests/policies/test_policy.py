"""Saving, references and pictures, of every family."""

from typing import Any

import pytest
import torch
from tests.policies.suite import FAMILIES, PROMPTS, SEEDS, assert_same_rollouts, sampling, some_codes

from thinkdraw.errors import UserError
from thinkdraw.policies import load_policy, split_name
from thinkdraw.policies.check import check_policy


def perturb(policy):
    with torch.no_grad():
        for parameter in policy.network.parameters():
            if parameter.requires_grad:
                parameter += 0.02 * torch.randn_like(parameter)


def score(policy, rollouts):
    with torch.no_grad():
        return policy.log_probs(rollouts).log_probs


def test_a_saved_policy_samples_the_same(any_policy, family, tmp_path):
    perturb(any_policy)
    any_policy.save(tmp_path / "saved")
    name, _ = split_name(family)
    again = load_policy(f"{name}@{tmp_path / 'saved'}" if name else tmp_path / "saved")
    one = any_policy.sample(PROMPTS, sampling(guidance_scale=3.0), seeds=SEEDS[:3])
    assert_same_rollouts(one, again.sample(PROMPTS, sampling(guidance_scale=3.0), seeds=SEEDS[:3]))
    assert again.revision == any_policy.revision == one.revision


def test_revision_follows_the_weights(any_policy):
    before = any_policy.revision
    assert any_policy.revision == before
    perturb(any_policy)
    assert any_policy.revision != before


def test_the_reference_stays_while_the_policy_moves_and_can_be_put_back(any_policy):
    with pytest.raises(RuntimeError, match="make_reference"), any_policy.reference():
        pass
    rollouts = any_policy.sample(PROMPTS, sampling(), decode=False)
    any_policy.make_reference()
    weights = {name: weight.clone() for name, weight in any_policy.reference_weights().items()}
    before = score(any_policy, rollouts)
    perturb(any_policy)
    with any_policy.reference():
        assert torch.equal(any_policy.log_probs(rollouts).log_probs, before)
        assert not any_policy.log_probs(rollouts).log_probs.requires_grad
    any_policy.make_reference()
    any_policy.load_reference(weights)
    with any_policy.reference():
        assert torch.equal(score(any_policy, rollouts), before)


def test_the_network_can_be_replaced_by_another_of_its_shape(any_policy):
    rollouts = any_policy.sample(PROMPTS, sampling(), seeds=SEEDS[:3])
    own, before = any_policy.network, score(any_policy, rollouts)
    any_policy.make_reference()
    twin = load_policy_like(any_policy)
    perturb(any_policy)
    any_policy.network = twin
    assert torch.equal(score(any_policy, rollouts), before)
    assert_same_rollouts(rollouts, any_policy.sample(PROMPTS, sampling(), seeds=SEEDS[:3]))
    any_policy.network = own
    assert not torch.equal(score(any_policy, rollouts), before)


def load_policy_like(policy):
    import copy

    return copy.deepcopy(policy.network)


def test_blocks_are_modules_of_the_network(any_policy):
    modules = set(any_policy.network.modules())
    assert len(any_policy.blocks) and all(block in modules for block in any_policy.blocks)


def test_pictures_have_the_size_that_the_policy_says(any_shared_policy):
    spec = any_shared_policy.picture
    pictures = any_shared_policy.decode_tokens(some_codes(any_shared_policy, 2))
    assert pictures.shape == (2, spec.height, spec.width, 3) and pictures.dtype == torch.uint8
    codes = any_shared_policy.encode_pictures(pictures)
    assert codes.shape == (2, spec.num_tokens) and codes.min() >= 0 and codes.max() < spec.num_codes
    vectors = any_shared_policy.code_vectors(codes)
    assert vectors.shape[:2] == codes.shape
    torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(codes.shape))
    assert any_shared_policy.decode_tokens(codes[:, :3]).shape == pictures.shape
    with pytest.raises(ValueError, match="Resize"):
        any_shared_policy.encode_pictures(torch.zeros(1, 8, 9, 3, dtype=torch.uint8))


def test_a_policy_that_cannot_see_says_so(any_shared_policy):
    picture = any_shared_policy.decode_tokens(some_codes(any_shared_policy, 1))
    if any_shared_policy.sees:
        assert 0 <= float(any_shared_policy.answer(picture, ["a star?"])) <= 1
        return
    for ask in (any_shared_policy.answer, any_shared_policy.yes_logits, any_shared_policy.log_likelihood):
        with pytest.raises(UserError, match="cannot see"):
            ask(picture, ["a star?"])


def test_the_check_passes(any_shared_policy):
    result = check_policy(any_shared_policy)
    assert result.ok, result.rows


def test_a_class_is_named_before_its_checkpoint(tmp_path):
    assert split_name("my.mod:Mine@runs/x") == ("my.mod:Mine", "runs/x")
    assert split_name("my.mod:Mine") == ("my.mod:Mine", None)
    assert split_name("runs/x") == (None, "runs/x") and split_name("org/model") == (None, "org/model")
    load_policy(FAMILIES["grid"]).save(tmp_path / "saved")
    with pytest.raises(UserError, match=r"model_type=gpt2.*pkg\.mod:Class@"):
        load_policy(tmp_path / "saved")


def test_a_class_of_policies_in_the_current_folder_is_found(tmp_path, monkeypatch):
    (tmp_path / "family_of_mine.py").write_text(
        "class Mine:\n"
        "    @classmethod\n    def load(cls, path, **options):\n        mine = cls()\n        mine.path = path\n        return mine\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")  # what `find` adds is taken back
    mine: Any = load_policy("family_of_mine:Mine@somewhere")
    assert mine.path == "somewhere" and mine.drawing is None
    with pytest.raises(UserError, match="neither installed nor in"):
        load_policy("no_family_of_mine:Mine")
