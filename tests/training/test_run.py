"""The owner of a run: what it saves, when, and what it goes on from."""

from dataclasses import dataclass

import pytest
import torch
from tests.training.helpers import sft_config

from thinkdraw.errors import UserError
from thinkdraw.policies.lora import LoraSettings
from thinkdraw.recipes.verifier import open_verifier
from thinkdraw.runtime.checkpoint import latest_checkpoint, load_trainer_state
from thinkdraw.runtime.fingerprint import fingerprints
from thinkdraw.runtime.generators import rng_state
from thinkdraw.training.run import Loss, Run, open_policy


class Counter:
    def __init__(self) -> None:
        self.value = 0

    def state_dict(self) -> dict[str, int]:
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.value = state["value"]


@dataclass
class Fields:
    phase: int = 0


@dataclass
class Numbers:
    """A batch of numbers, all of which pull the same weight."""

    values: tuple[float, ...]

    def micro(self, rows: int):
        for i in range(0, len(self.values), rows):
            yield self.values[i : i + rows]

    def num_micro(self, rows: int) -> int:
        return -(-len(self.values) // rows)


def loss_of(run):
    weight = next(p for p in run.policy.network.parameters() if p.requires_grad)

    def loss(values) -> Loss:
        total = sum(values) * weight.sum()
        return Loss(total, {"loss": total, "count": float(len(values))}, {"largest": max(values)})

    return loss


def test_sums_add_up_over_micro_batches_and_the_highest_is_kept(tmp_path, policy):
    config = sft_config(tmp_path, policy, micro_rows=2)
    with Run.open(config) as run:
        run.begin()
        update = run.update(loss_of(run), Numbers((1.0, 5.0, 2.0)))
        assert update.sums["count"] == 3 and update.maxima == {"largest": 5.0} and run.step == 1


def test_what_is_remembered_is_there_again_and_nothing_else_is_written_before_the_run_begins(tmp_path, policy):
    config = sft_config(tmp_path, policy, max_steps=3, save_every=2)
    with Run.open(config) as run:
        counter, fields = run.remember("counter", Counter()), run.remember_fields(Fields())
        assert not (config.out / "config.yaml").exists()  # a start that is refused here leaves nothing behind
        run.begin()
        while run.goes_on:
            run.update(loss_of(run), Numbers((1.0,)))
            counter.value, fields.phase = 10 * run.step, run.step
            run.log({}, ())
            run.save_when_due()
    assert sorted(p.name for p in (config.out / "checkpoints").glob("step_*")) == ["step_000002", "step_000003"]
    with Run.open(config.model_copy(update={"max_steps": 4})) as run:
        assert run.step == 3 and not run.is_new
        assert run.remember("counter", Counter()).value == 30 and run.remember_fields(Fields()).phase == 3
        assert run.remember("new", Counter()).value == 0


def test_an_error_in_the_loop_saves_nothing(tmp_path, policy):
    config = sft_config(tmp_path, policy, max_steps=9, save_every=2)
    with pytest.raises(UserError, match="the judge fell over"), Run.open(config) as run:
        run.begin()
        for _ in range(3):
            run.update(loss_of(run), Numbers((1.0,)))
            run.save_when_due()
        raise UserError("the judge fell over")
    newest = latest_checkpoint(config.out)
    assert newest is not None and load_trainer_state(newest)["step"] == 2


def test_a_gradient_of_nothing_is_warned_of_unless_it_may_be(tmp_path, policy, capsys):
    config = sft_config(tmp_path, policy)
    for may_be_flat in (True, False):
        with Run.open(config.model_copy(update={"out": tmp_path / str(may_be_flat)})) as run:
            run.begin()
            run.update(loss_of(run), Numbers((0.0,)), may_be_flat=may_be_flat)
        assert ("gradient norm is 0" in capsys.readouterr().err) is not may_be_flat


def test_a_skipped_step_counts(tmp_path, policy):
    with Run.open(sft_config(tmp_path, policy)) as run:
        run.begin()
        run.skip("nothing to learn")
        assert run.step == 1 and torch.isfinite(torch.tensor(run.progress))


def test_weights_that_begin_at_random_follow_from_the_seed_whatever_was_drawn_before(tmp_path, policy):
    lora = LoraSettings.model_validate({"rank": 2})
    begun = {}
    for name, seed, before in (("first", 3, 1), ("again", 3, 2), ("other seed", 4, 1)):
        torch.manual_seed(before)
        for opening, open_trained in (("policy", open_policy), ("verifier", open_verifier)):
            config = sft_config(tmp_path, policy, out=tmp_path / f"{name} {opening}", lora=lora, seed=seed)
            with Run.open(config, open_trained) as run:
                run.begin()
                begun[name, opening] = fingerprints(dict(run.policy.network.named_parameters()))
                drawn = torch.rand(1)
            torch.manual_seed(seed)
            assert torch.equal(drawn, torch.rand(1))  # what a run draws does not depend on how many weights it has
    for opening in ("policy", "verifier"):
        assert begun["first", opening] == begun["again", opening]
        differing = {n for n, v in begun["first", opening].items() if begun["other seed", opening][n] != v}
        assert differing and all(".lora_A." in name for name in differing)


def test_a_process_goes_on_in_its_own_stream_or_in_a_new_one_where_the_number_of_processes_has_changed(
    tmp_path, policy
):
    config = sft_config(tmp_path, policy)
    with Run.open(config) as run:
        run.begin()
        states = []
        for seed in (1, 2):
            torch.manual_seed(seed)
            states.append(rng_state())
        folder, world = run.folder, run.world

        def drawn(rank: int, size: int, **state) -> float:
            world.rank, world.size = rank, size
            folder._set_generators({"step": 5, "rng": states[0], **state})
            world.rank, world.size = 0, 1
            return float(torch.rand(1))

        torch.manual_seed(1)
        first = float(torch.rand(1))
        torch.manual_seed(2)
        second = float(torch.rand(1))
        assert [drawn(r, 2, rng_of_ranks=states) for r in (0, 1)] == [first, second]
        assert drawn(0, 2) == first == drawn(0, 1, rng_of_ranks=states)  # a run of one process, and one of two
        assert (
            len({first, second, drawn(1, 2), drawn(1, 3, rng_of_ranks=states), drawn(2, 3, rng_of_ranks=states)}) == 4
        )
