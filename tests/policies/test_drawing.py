"""How a checkpoint draws: what is recorded, what presets say, what the user changes, and what the policy then reads."""

import json
from typing import Any

import pytest
import torch

from thinkdraw.errors import UserError
from thinkdraw.policies import load_policy
from thinkdraw.policies.drawing import (
    PRESETS,
    RECORD,
    choose_drawing,
    describe,
    read_record,
    with_overrides,
    write_record,
)
from thinkdraw.policies.janus.tiny import random_janus
from thinkdraw.types import Prompt, Sampling, SamplingOverrides

FORM = "A photo of {}. Output a richly detailed prompt: "
INSTRUCTION = 'Describe what "{}" will show.'
SCRIPTS = {
    "off": Sampling(thought="off", guidance_scale=3.0, prompt_form=FORM),
    "inline": Sampling(thought="inline", max_thought_tokens=6, guidance_scale=3.0, prompt_form=FORM),
    "rewrite": Sampling(
        thought="rewrite", max_thought_tokens=6, guidance_scale=3.0, prompt_form="A photo of {}",
        thought_instruction=INSTRUCTION, thought_system_prompt="You see pictures.",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return random_janus(tmp_path_factory.mktemp("drawing") / "plain", layers=1, drawing=None)


@pytest.mark.parametrize("script", SCRIPTS)
def test_what_was_sampled_in_a_form_is_scored_in_it_and_judges_see_the_bare_prompt(folder, script):
    policy = load_policy(folder, precision="fp32")
    sampling = SCRIPTS[script]
    prompts = [Prompt("a red circle"), Prompt("two blue stars and a ring")]
    rollouts = policy.sample(prompts, sampling, group_size=2, seed=1)
    assert [p.text for p in rollouts.prompts[::2]] == [p.text for p in prompts]
    scored = policy.log_probs(rollouts).log_probs
    assert (scored - rollouts.log_probs)[rollouts.mask].abs().max() < 1e-4
    bare = policy.sample(
        prompts, sampling.model_copy(update={"prompt_form": None, "thought_instruction": None}), seed=1
    )
    assert bare.prompt_ids.shape[1] < rollouts.prompt_ids.shape[1]
    forced = policy.teacher_forced(rollouts.prompts, rollouts.thoughts, rollouts.image_tokens(), sampling)
    assert torch.equal(forced.prompt_ids, rollouts.prompt_ids)


def test_the_policy_reads_form_and_instruction_where_they_belong(folder):
    policy: Any = load_policy(folder)

    def contexts(sampling: Sampling) -> list[str]:
        rollouts = policy.sample([Prompt("a red circle")], sampling, decode=False)
        ids = [rollouts.prompt_ids[0], *(context.ids[0] for context in rollouts.fresh_contexts)]
        return [policy.text.tokenizer.decode(row) for row in ids]

    (inline,) = contexts(SCRIPTS["inline"])
    assert "<|User|>: A photo of a red circle. Output a richly detailed prompt:\n\n<|Assistant|>:" in inline
    thought, picture = contexts(SCRIPTS["rewrite"])
    assert 'You see pictures.\n\n<|User|>: Describe what "a red circle" will show.' in thought
    assert "<|User|>: A photo of a red circle. " in picture and "Describe" not in picture


def test_words_with_which_form_and_prompt_both_begin_are_said_once():
    sampling = Sampling(prompt_form="A photo of {}.")
    assert sampling.in_form("a photo of a bench") == "A photo of a bench."
    assert sampling.in_form("a photograph") == "A photo of a photograph."


@pytest.mark.parametrize("form", ["A photo", "{} and {}"])
def test_a_form_needs_one_place_and_an_instruction_a_context(form):
    with pytest.raises(ValueError, match=f"{form.count('{}')} places for the prompt"):
        Sampling(prompt_form=form)
    with pytest.raises(ValueError, match="thought=rewrite only"):
        Sampling(thought="inline", thought_instruction=INSTRUCTION)


def test_a_sampling_without_forms_is_written_as_before_there_were_any():
    assert "prompt_form" not in Sampling().model_dump()
    assert Sampling.model_validate(SCRIPTS["rewrite"].model_dump()) == SCRIPTS["rewrite"]


def test_without_a_record_it_draws_as_janus_pro_and_says_so(folder):
    drawing = choose_drawing(load_policy(folder), SamplingOverrides())
    assert drawing.sampling == Sampling(thought="off", guidance_scale=5.0)
    assert drawing.line().startswith(
        "draws with thought=off, guidance_scale=5.0 (nothing is recorded with the checkpoint"
    )


def test_a_record_comes_before_the_usual_a_preset_before_the_record_and_the_user_before_all(folder, tmp_path):
    policy = load_policy(folder)
    write_record(tmp_path, SCRIPTS["inline"].model_copy(update={"greedy": True}))
    policy.drawing = read_record(str(tmp_path))
    assert policy.drawing == SCRIPTS["inline"]  # greedy is never how it was trained
    changed = choose_drawing(policy, SamplingOverrides(guidance_scale=7.0, prompt_form="{}"))
    assert changed.sampling == SCRIPTS["inline"].model_copy(update={"guidance_scale": 7.0, "prompt_form": None})
    assert changed.line().endswith("(as recorded with the checkpoint; guidance_scale, prompt_form by you)")
    assert choose_drawing(policy, SamplingOverrides(), "t2i_r1").sampling == PRESETS["t2i_r1"].sampling
    with pytest.raises(UserError, match="drawing=nobody: there are janus_pro, reasongen_r1, t2i_r1"):
        choose_drawing(policy, SamplingOverrides(), "nobody")


def test_a_change_that_the_script_cannot_follow_is_one_line():
    for changes, message in (
        ({"thought": "off", "max_thought_tokens": 9}, "nothing to limit with thought=off"),
        ({"thought": "inline", "thought_instruction": INSTRUCTION}, "thought=rewrite only"),
        ({"prompt_form": "no place"}, "0 places for the prompt"),
        ({"temperature": 0}, "sampling.temperature"),
    ):
        with pytest.raises(UserError, match=message):
            with_overrides(SCRIPTS["rewrite"], changes)
    # What only the other script can follow goes with it.
    assert with_overrides(SCRIPTS["rewrite"], {"thought": "off"}).thought_instruction is None


def test_runs_from_before_there_were_records_have_their_sampling_in_started_json(tmp_path):
    checkpoint = tmp_path / "checkpoints" / "step_000001"
    checkpoint.mkdir(parents=True)
    assert read_record(str(checkpoint)) is None
    (tmp_path / "started.json").write_text(json.dumps({"sampling": {"thought": "rewrite", "guidance_scale": 2.0}}))
    assert read_record(str(checkpoint)) == Sampling(thought="rewrite", guidance_scale=2.0)
    (checkpoint / RECORD).write_text('{"thought": "sung"}')
    with pytest.raises(UserError, match=r"drawing\.json"):
        read_record(str(checkpoint))


def test_adapters_have_the_record_of_their_run(folder, tmp_path):
    (tmp_path / "adapter").mkdir()
    write_record(tmp_path, SCRIPTS["off"])
    assert read_record(str(folder), str(tmp_path / "adapter")) == SCRIPTS["off"]


def test_a_description_names_what_is_not_usual():
    assert describe(SCRIPTS["off"]).startswith("thought=off, guidance_scale=3.0, prompt_form='A photo of {}.")
    assert describe(Sampling()) == ("thought=inline, max_thought_tokens=64, guidance_scale=1.0")
