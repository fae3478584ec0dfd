"""Learning from a store: pairs and kept rows, splits and resumption, and what is refused."""

import dataclasses
import math
from functools import partial
from pathlib import Path

import pytest
import torch
from tests.rollouts.segmented import interleaved
from tests.training.helpers import flat, gradients, policy_dir, rows_without_times

from thinkdraw.errors import UserError
from thinkdraw.objectives import accepted_rows, pairs_from_rewards
from thinkdraw.policies import load_policy
from thinkdraw.policies.opening import load_trained
from thinkdraw.recipes import preference, rejection
from thinkdraw.recipes import sample as sampling
from thinkdraw.recipes.preference import PairBatch, PreferenceConfig, pairs_of
from thinkdraw.recipes.rejection import RejectionConfig
from thinkdraw.recipes.sample import SampleConfig
from thinkdraw.training.batch import Batch
from thinkdraw.training.judged_store import load_judged_rollouts
from thinkdraw.training.optimiser import Optimiser
from thinkdraw.training.run import open_policy
from thinkdraw.training.world import World
from thinkdraw.types import Verdicts

REWARD = "tests.training.helpers:LowCodes"


def sample_config(out: Path, policy: str, **changes) -> SampleConfig:
    values = {
        "out": out, "policy": policy, "prompts": {"count": 8}, "sampling": {"max_thought_tokens": 6}, "group_size": 4,
        "prompts_per_shard": 3, "rewards": [REWARD], "precision": "fp32", "device": "cpu", "num_threads": 1,
    }  # fmt: skip
    return SampleConfig.model_validate(values | changes)


@pytest.fixture(scope="module")
def policy(tmp_path_factory) -> str:
    return policy_dir(tmp_path_factory.mktemp("policy"))


@pytest.fixture(scope="module")
def store(tmp_path_factory, policy) -> Path:
    return sampling.run(sample_config(tmp_path_factory.mktemp("store") / "store", policy))


def common(folder: Path, policy: str, store: Path) -> dict:
    return {
        "out": folder / "run", "policy": policy, "store": store, "judge": "low-codes", "device": "cpu", "micro_rows": 6,
        "precision": "fp32", "num_threads": 1, "max_steps": 4, "save_every": 2,
        "optimiser": {"learning_rate": 1e-3, "warmup_steps": 0},
    }  # fmt: skip


def preference_config(folder, policy, store, **changes) -> PreferenceConfig:
    values = common(folder, policy, store) | {"pairs_per_step": 6}
    return PreferenceConfig.model_validate(values | changes)


def rejection_config(folder, policy, store, **changes) -> RejectionConfig:
    return RejectionConfig.model_validate(common(folder, policy, store) | {"batch_rows": 6} | changes)


@pytest.mark.parametrize("objective", ["dpo", "rebel"])
def test_any_split_into_micro_batches_gives_the_same_gradient(tmp_path, policy, store, objective):
    results = []
    for micro_rows in (64, 2, 5):
        config = preference_config(tmp_path, policy, store, objective=objective, micro_rows=micro_rows)
        model = open_policy(config, World(config))
        judged = load_judged_rollouts(store, "low-codes", model)
        pairs = pairs_from_rewards(judged.rewards, judged.group_size)
        # not the policy's own log-probs, so that every pair has another gradient
        before = judged.rollouts.log_probs + 0.1 * torch.sin(torch.arange(judged.rollouts.tokens.shape[1]))
        batch = PairBatch(dataclasses.replace(judged, old_log_probs=before), pairs.better, pairs.worse)
        loss = partial(preference.pair_loss, model, num_pairs=len(pairs.better), config=config)
        grads, sums = gradients(config, model, loss, batch)
        results.append((flat(grads), sums))
    for other, sums in results[1:]:
        assert (other - results[0][0]).norm() < 1e-5 * results[0][0].norm()
        assert sums == pytest.approx(results[0][1], rel=1e-4, abs=1e-6)


def test_in_bf16_too_the_first_step_finds_policy_and_reference_the_same(tmp_path, policy, store):
    # margin 0 and loss log 2, though the reference's log-probs come from passes without gradient, of other rows together
    config = preference_config(tmp_path, policy, store, precision="bf16", max_steps=1)
    (row,) = rows_without_times(preference.run(config))
    assert row["margin_mean"] == pytest.approx(0, abs=1e-6) and row["loss"] == pytest.approx(math.log(2), abs=1e-6)


@pytest.mark.parametrize("objective", ["dpo", "rebel"])
def test_the_better_rollouts_become_likelier_than_the_worse(tmp_path, policy, store, objective):
    rebel = {"eta": 20.0, "optimiser": {"learning_rate": 1e-4, "warmup_steps": 0}} if objective == "rebel" else {}
    run = preference.run(preference_config(tmp_path, policy, store, objective=objective, max_steps=12, **rebel))
    rows = rows_without_times(run)
    assert rows[0]["margin_mean"] == pytest.approx(0, abs=1e-4) and rows[-1]["margin_mean"] > 0
    assert rows[-1]["accuracy"] > 0.7 and rows[-1]["loss"] < rows[0]["loss"]
    assert rows[-1]["sequences_trained"] == 12 * 12 and rows[-1]["pictures_sampled"] == 32


def test_a_stopped_run_goes_on_to_the_same_numbers_rounds_included(tmp_path, policy, store):
    settings = sample_config(Path("x"), policy, prompts={"count": 4}).model_dump()
    changes = {"rounds": 2, "sample": settings}
    whole = preference.run(preference_config(tmp_path / "whole", policy, None, **changes))
    for steps in (1, 3, 4):
        stop_after(preference_config(tmp_path / "parts", policy, None, **changes), steps)
    parts = tmp_path / "parts" / "run"
    rows = rows_without_times(parts)
    assert [row["round"] for row in rows] == [0, 0, 1, 1]
    assert rows == rows_without_times(whole) and rows[-1]["pictures_sampled"] == 32


def stop_after(config: PreferenceConfig, steps: int) -> None:
    """Run until the metrics have so many rows, then stop as a kill would."""

    class Stop(Exception):
        pass

    step = Optimiser.step

    def counted(self, number, progress):
        if number >= steps:
            raise Stop
        return step(self, number, progress)

    Optimiser.step = counted
    try:
        preference.run(config)
    except Stop:
        pass
    finally:
        Optimiser.step = step


def test_rejection_makes_the_kept_rollouts_likelier(tmp_path, policy, store):
    run = rejection.run(rejection_config(tmp_path, policy, store, max_steps=8))
    rows = rows_without_times(run)
    assert rows[-1]["kept_frac"] == 0.25 and rows[-1]["sequences_trained"] == 48
    before, after = load_policy(policy, precision="fp32"), load_trained(run, precision="fp32")
    judged = load_judged_rollouts(store, "low-codes", before)
    kept = judged.rollouts.select(accepted_rows(judged.rewards, 4, best_of=True))
    with torch.no_grad():
        gain = after.log_probs(kept).log_probs - before.log_probs(kept).log_probs
    assert float(gain[kept.mask].mean()) > 0.01


def test_a_rejection_run_goes_on_to_the_same_numbers(tmp_path, policy, store):
    whole = rejection.run(rejection_config(tmp_path / "whole", policy, store))
    rejection.run(rejection_config(tmp_path / "parts", policy, store, max_steps=2))
    parts = rejection.run(rejection_config(tmp_path / "parts", policy, store))
    # the learning rate follows progress, so only a constant one is the same before and after
    assert [row["step"] for row in rows_without_times(parts)] == [1, 2, 3, 4]
    assert rows_without_times(parts)[0]["loss"] == rows_without_times(whole)[0]["loss"]


def test_what_cannot_be_learned_from_is_refused(tmp_path, policy, store):
    with pytest.raises(UserError, match="no scores of nobody"):
        preference.run(preference_config(tmp_path / "a", policy, store, judge="nobody"))
    with pytest.raises(UserError, match="no scores of low-codes differ by more than min_margin=2"):
        preference.run(preference_config(tmp_path / "b", policy, store, min_margin=2.0))
    with pytest.raises(UserError, match="fewer than batch_rows"):
        rejection.run(rejection_config(tmp_path / "c", policy, store, threshold=2.0))
    trained = rejection.run(rejection_config(tmp_path / "d", policy, store, max_steps=1))
    with pytest.raises(UserError, match="revision"):
        preference.run(preference_config(tmp_path / "e", str(trained), store, objective="rebel"))
    with pytest.raises(ValueError, match="refresh_reference"):
        preference_config(tmp_path, policy, store, objective="rebel", refresh_reference=False)
    with pytest.raises(ValueError, match="nothing would be rejected"):
        rejection_config(tmp_path, policy, store, best_of_group=False)


def test_a_pair_is_of_one_prompt(tmp_path, policy):
    rollouts = interleaved()
    retold = tuple(dataclasses.replace(p, text=f"{p.text}, in other words {i}") for i, p in enumerate(rollouts.prompts))
    config = PreferenceConfig(policy=policy, out=tmp_path)
    rewards = Verdicts.of(torch.tensor([0.0, 1.0, 0.0, 1.0]))
    assert len(pairs_of(Batch(rollouts, rewards), config, 0).better) == 2
    with pytest.raises(UserError, match=r"groups of several prompts.*rewrites=off"):
        pairs_of(Batch(dataclasses.replace(rollouts, prompts=retold), rewards), config, 0)
