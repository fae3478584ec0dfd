"""Who judges a run: the same before and after it was stopped, the policy itself included, and what a judge says that failed."""

from collections import Counter

import pytest
import torch
from tests.training.helpers import LowCodes, grpo_config, rows_without_times

from thinkdraw.errors import UserError
from thinkdraw.recipes import grpo
from thinkdraw.recipes.phase.judges import Judges
from thinkdraw.rewards.combined import CombinedReward
from thinkdraw.rewards.judges_of import failure_summary
from thinkdraw.rewards.revision import judges_revision
from thinkdraw.rewards.user_rewards import as_reward
from thinkdraw.rewards.vqa_yes import OrmReward
from thinkdraw.types import Sampling, Verdicts

SMALL = {"prompts_per_phase": 1, "group_size": 4, "save_every": 1, "sampling": Sampling(max_thought_tokens=3)}


class Versioned(LowCodes):
    """Its codes do not change with its revision; those of a judge behind an address would."""

    name = "versioned"
    revision = "first"

    def __init__(self, revision=None):
        super().__init__()
        self.revision = revision or Versioned.revision


class Asked:
    """A questioner with weights, and as many failures as it is told."""

    def __init__(self, weight=1.0, failures=()):
        self.model = torch.nn.Linear(2, 1)
        torch.nn.init.constant_(self.model.weight, weight)
        torch.nn.init.zeros_(self.model.bias)
        self.name, self.failures = "asked", Counter(dict(failures))

    def answer(self, pictures, questions):
        return torch.full((len(questions),), torch.nan)


@pytest.mark.parametrize("lora", [None, {"rank": 2}])
def test_a_run_that_its_own_policy_judges_goes_on_with_the_policy_it_began_with(tmp_path, policy, lora):
    judge = {"name": "orm", "settings": {"questioner": "self"}}
    changes = SMALL | {"reward": judge, "lora": lora, "optimiser": {"learning_rate": 0.03, "warmup_steps": 0}}
    whole, parts = (grpo_config(tmp_path / name, policy, max_steps=4, **changes) for name in ("whole", "parts"))
    grpo.run(whole)
    grpo.run(parts.model_copy(update={"max_steps": 2}))
    grpo.run(parts)  # goes on at step 2, with a policy that would answer otherwise by then
    assert rows_without_times(parts.out) == rows_without_times(whole.out)
    assert len({row["reward_mean"] for row in rows_without_times(whole.out)}) == 4


def test_a_run_goes_on_with_the_judge_of_its_beginning_only(tmp_path, policy):
    config = grpo_config(tmp_path, policy, max_steps=2, **SMALL)
    grpo.run(config.model_copy(update={"max_steps": 1}), reward=Versioned("a1"))
    with pytest.raises(UserError, match="began with revision a1 of reward versioned, and now it has b2") as caught:
        grpo.run(config, reward=Versioned("b2"))
    assert "\n" not in str(caught.value) and len(rows_without_times(config.out)) == 1
    grpo.run(config, reward=Versioned("a1"))
    assert len(rows_without_times(config.out)) == 2


def test_a_served_judge_may_move_and_is_known_by_its_model_also_where_an_older_version_wrote_its_address(
    tmp_path, policy
):
    class Served(Asked):
        def __init__(self, revision):
            super().__init__()
            self.revision, self.former_revision = revision, f"http://node-17:8000/v1 {revision}"

    def served(**where):
        settings = {"questioner": {"name": "openai", "model": "m", "base_url": "http://node-17:8000/v1"} | where}
        return grpo_config(tmp_path, policy, max_steps=2, **SMALL | {"reward": {"name": "orm", "settings": settings}})

    grpo.run(served().model_copy(update={"max_steps": 1}), reward=Versioned("m"))
    with pytest.raises(UserError, match=r"reward\.settings\.questioner\.model \(m there, n now\)"):
        grpo.run(served(model="n"), reward=Versioned("m"))
    grpo.run(served(base_url="http://node-42:8000/v1", timeout_s=9), reward=Versioned("m"))
    assert len(rows_without_times(served().out)) == 2
    former = judges_revision(OrmReward(Served("m")), former=True)
    assert former != judges_revision(OrmReward(Served("m")))
    judges = Judges(OrmReward(Served("m")), {"monitor/orm": OrmReward(Served("m"))}, tmp_path)
    judges.load_state_dict({"monitor/orm": former})
    with pytest.raises(UserError, match="began with revision"):
        judges.load_state_dict({"monitor/orm": judges_revision(OrmReward(Served("n")))})


def test_nor_with_another_monitor(tmp_path, policy, monkeypatch):
    validation = {"every": 1, "prompts": {"split": "validation", "count": 2}}
    validation |= {"monitors": [{"name": "tests.recipes.test_grpo_judges:Versioned"}]}
    config = grpo_config(tmp_path, policy, max_steps=1, validation=validation, **SMALL)
    grpo.run(config)
    monkeypatch.setattr(Versioned, "revision", "second")
    with pytest.raises(UserError, match=r"revision first of reward monitor/tests\.recipes\.test_grpo_judges:Versioned"):
        grpo.run(config.model_copy(update={"max_steps": 2}))


def test_judges_of_other_weights_are_others_wherever_they_stand_and_rules_have_no_revision():
    def combined(weight):
        return CombinedReward({"right": OrmReward(Asked(weight)), "low": LowCodes()})

    assert judges_revision(as_reward(LowCodes())) is None and judges_revision(as_reward(Versioned("a1"))) == "a1"
    assert judges_revision(combined(1.0)) == judges_revision(combined(1.0)) != judges_revision(combined(1.001))


def test_a_run_that_stops_without_verdicts_says_why_the_judge_had_none(tmp_path, policy):
    failures = {"timeout": 5, "HTTP 500": 9, "unreadable\nreply": 1}
    reward = CombinedReward({"right": OrmReward(Asked(failures=failures))})
    with pytest.raises(UserError, match=r"for 100% .*\(asked: HTTP 500 \(9\), timeout \(5\)\)\. Look") as caught:
        grpo.run(grpo_config(tmp_path, policy, max_steps=1, **SMALL), reward=reward)
    assert "\n" not in str(caught.value)


def test_a_run_that_stops_without_verdicts_says_what_they_note(tmp_path, policy):
    def silent(rollouts):
        return Verdicts.of(torch.full((len(rollouts),), torch.nan), notes=Counter({"no answer": len(rollouts)}))

    with pytest.raises(UserError, match=r"\(silent: no answer \(4\)\)"):
        grpo.run(grpo_config(tmp_path, policy, max_steps=1, **SMALL), reward=silent)


def test_a_reward_that_counts_its_problems_itself_is_heard_too_and_one_that_says_nothing_adds_nothing():
    mine = LowCodes()
    reward = as_reward(mine)
    assert failure_summary(reward) == ""
    assert failure_summary(reward, Counter({"no answer": 3})) == "low-codes: no answer (3)"  # as its verdicts note it
    mine.problems = Counter({"HTTP 503\n from there": 2})
    assert failure_summary(reward) == "low-codes: HTTP 503 from there (2)"
