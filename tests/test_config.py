import re
from importlib import import_module
from pathlib import Path
from typing import Annotated, Literal, get_args, get_origin

import pytest
from pydantic import BaseModel, Field, model_validator

from thinkdraw.config import StrictModel, dump_config, load_config, save_config
from thinkdraw.errors import UserError
from thinkdraw.recipes.catalog import RECIPES, read_config


class Sampling(StrictModel):
    temperature: float = 1.0
    guidance_scale: float | tuple[float, ...] = 5.0
    thought_format: Literal["inline", "rewrite", "off"] = "inline"
    seed: int = 0


class GRPO(StrictModel):
    name: Literal["grpo"] = "grpo"
    clip: float = 0.2
    beta: float = 0.0


class DPO(StrictModel):
    name: Literal["dpo"] = "dpo"
    label_smoothing: float = 0.0


class Reward(StrictModel):
    name: str
    weight: float = 1.0


class Run(StrictModel):
    group_size: int = 8
    learning_rate: float = 1e-5
    shuffle: bool = True
    note: str | None = None
    output: Path = Path("runs/a")
    # differs from Sampling's own defaults on purpose
    sampling: Sampling = Sampling(temperature=0.7, seed=3)
    objective: Annotated[GRPO | DPO, Field(discriminator="name")] = GRPO(beta=0.1)
    rewards: list[Reward] = []

    @model_validator(mode="after")
    def _group(self):
        if self.group_size < 2:
            raise ValueError(f"group_size={self.group_size}: GRPO compares rollouts and needs at least 2. Raise it.")
        return self


def write(tmp_path, text):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    return path


def one_line_error(path, *overrides):
    with pytest.raises(UserError) as error:
        load_config(Run, path, overrides)
    message = str(error.value)
    assert "\n" not in message
    return message


def test_the_command_line_wins_over_yaml_which_wins_over_defaults(tmp_path):
    path = write(tmp_path, "group_size: 4\nlearning_rate: 1e-4\n")
    cfg = load_config(Run, path, ["group_size=16"])
    assert (cfg.group_size, cfg.learning_rate, cfg.shuffle) == (16, 1e-4, True)


def test_a_section_given_in_part_keeps_the_rest_of_its_default(tmp_path):
    cfg = load_config(Run, write(tmp_path, "sampling: {seed: 9}\n"), ["sampling.thought_format=rewrite"])
    assert cfg.sampling == Sampling(temperature=0.7, seed=9, thought_format="rewrite")


def test_choosing_another_variant_of_a_union_drops_the_defaults_of_the_first():
    assert load_config(Run, None, ["objective.name=dpo"]).objective == DPO()
    assert load_config(Run, None, ["objective.clip=0.3"]).objective == GRPO(clip=0.3, beta=0.1)


def test_an_override_reaches_into_a_list_that_the_yaml_gives(tmp_path):
    path = write(tmp_path, "rewards: [{name: clip}, {name: count}]\n")
    assert load_config(Run, path, ["rewards.1.weight=0.5"]).rewards[1] == Reward(name="count", weight=0.5)


@pytest.mark.parametrize("word", ["off", "inline"])
def test_off_is_a_thought_format_and_not_false(tmp_path, word):
    assert load_config(Run, None, [f"sampling.thought_format={word}"]).sampling.thought_format == word
    path = write(tmp_path, f"sampling: {{thought_format: {word}}}\n")
    assert load_config(Run, path).sampling.thought_format == word


def test_scientific_notation_without_a_dot_is_a_number():
    assert load_config(Run, None, ["sampling.guidance_scale=[1e0, 25e-1]"]).sampling.guidance_scale == (1.0, 2.5)


def test_an_unknown_key_names_its_full_path_and_the_nearest_valid_key(tmp_path):
    message = one_line_error(write(tmp_path, "sampling: {temprature: 2}\n"))
    assert "sampling.temprature" in message and "did you mean sampling.temperature?" in message
    assert "run.yaml" in message


def test_a_key_in_the_wrong_section_is_pointed_to_the_right_one():
    message = one_line_error(None, "betta=2")
    assert "did you mean objective.beta?" in message and "command line" in message


def test_an_unknown_key_inside_a_union_and_inside_a_list_has_a_path_without_type_names(tmp_path):
    assert "unknown config key objective.betta" in one_line_error(None, "objective.betta=1")
    path = write(tmp_path, "rewards: [{name: clip, wieght: 2}]\n")
    assert "unknown config key rewards.0.wieght" in one_line_error(path)


def test_a_key_like_no_other_still_names_the_nearest_and_lists_the_valid_ones():
    message = one_line_error(None, "sampling.zzz=1")
    assert "nearest is" in message and "sampling.seed" in message


def test_a_wrong_type_names_key_value_and_what_was_expected():
    message = one_line_error(None, "group_size=many")
    assert "group_size='many'" in message and "valid integer" in message
    message = one_line_error(None, "sampling.thought_format=loud")
    assert "'inline', 'rewrite' or 'off'" in message


def test_a_missing_key_is_named(tmp_path):
    assert "rewards.0.name is required" in one_line_error(write(tmp_path, "rewards: [{weight: 2}]\n"))


def test_a_rule_of_the_model_speaks_in_its_own_words():
    assert one_line_error(None, "group_size=1").startswith("config group_size=1: GRPO compares")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("- a\n- b\n", "holds a list, not a mapping"),
        ("a: [1, 2\n", "not valid YAML: line 2"),
        ("seed: 1\nseed: 2\n", "given twice"),
        ("1: 2\n", "unknown config key 1"),
    ],
)
def test_yaml_that_is_not_a_config_is_refused_in_one_line(tmp_path, text, expected):
    assert expected in one_line_error(write(tmp_path, text))


def test_a_missing_file_is_refused_by_name(tmp_path):
    assert "nowhere.yaml does not exist" in one_line_error(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize("override", ["group_size", "=3", "a..b=1", "note=[1", "group_size.x.y=1"])
def test_a_malformed_override_is_refused(tmp_path, override):
    one_line_error(write(tmp_path, "group_size: 4\n"), override)


def test_an_empty_file_means_the_defaults(tmp_path):
    assert load_config(Run, write(tmp_path, "# nothing\n")) == Run()


@pytest.mark.parametrize("note", [None, "off", "1e-4", "yes", "3", "null", "true", "a: b # c", "×→"])
def test_a_dumped_config_loads_to_an_equal_one(tmp_path, note):
    cfg = Run(
        note=note,
        learning_rate=3e-7,
        sampling=Sampling(thought_format="off", guidance_scale=(1.0, 3.5)),
        objective=DPO(label_smoothing=1e-7),
        rewards=[Reward(name="clip", weight=0.25)],
    )
    save_config(cfg, tmp_path / "config.yaml")
    assert load_config(Run, tmp_path / "config.yaml") == cfg
    assert (tmp_path / "config.yaml").read_text() == dump_config(cfg)


def test_a_default_section_dumps_to_its_own_values_and_not_to_those_of_its_class(tmp_path):
    assert load_config(Run, write(tmp_path, dump_config(Run()))) == Run()


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("note=https://me:sk-secret@example.org/v1", "note"),
        ("note=https://sk-secret@example.org/v1", "note"),
        ("note=http://example.org/v1?api_key=sk-secret", "note"),
        (
            "rewards=[{name: 'x', settings: {extra_body: {api_key: sk-secret}}}]",
            "rewards.0.settings.extra_body.api_key",
        ),
        ("rewards=[{name: 'x', settings: {Authorization: sk-secret}}]", "rewards.0.settings.Authorization"),
        ("rewards=[{name: 'x', settings: {api_key_env: sk-secret}}]", "rewards.0.settings.api_key_env"),
    ],
)
def test_a_secret_in_a_configuration_is_refused_before_it_is_written_down_and_not_repeated(override, key):
    error = one_line_error(None, override)
    assert key in error and "environment variable" in error and "sk-secret" not in error


def numbers_of(model, prefix=""):
    """(key, annotation, bounds) of each number below a configuration's class."""
    for name, field in model.model_fields.items():
        stack = [(field.annotation, field.metadata)]
        while stack:
            kind, bounds = stack.pop()
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from numbers_of(kind, f"{prefix}{name}.")
            elif kind in (int, float):
                yield f"{prefix}{name}", bounds
            elif get_origin(kind) is Annotated:
                stack.append((get_args(kind)[0], [*bounds, *(c for f in get_args(kind)[1:] for c in f.metadata)]))
            elif get_origin(kind) is not Literal:
                stack += [(inner, bounds if type(None) in get_args(kind) else []) for inner in get_args(kind)]


ANY_NUMBER = re.compile("threshold|ranges|min_score|min_yes|solved_reward|fixed_(text|image)")


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_number_of_a_configuration_says_what_it_can_be(recipe):
    module, model = RECIPES[recipe]
    unbounded = [key for key, bounds in numbers_of(getattr(import_module(module), model)) if not bounds]
    assert not [key for key in unbounded if not ANY_NUMBER.search(key)]


@pytest.mark.parametrize("text", ["max_steps=-1", "seed=-1", "num_threads=0", "optimiser.learning_rate=.inf", "optimiser.betas=[2, 0.9]",
                                  "optimiser.learning_rate=1e999", "save_every=0", "max_seconds=.nan"])  # fmt: skip
def test_a_number_that_cannot_be_is_refused_where_it_is_read(text):
    with pytest.raises(UserError) as caught:
        read_config("lab_grpo", [text])
    assert text.partition("=")[0] in str(caught.value)


@pytest.mark.parametrize(
    "text", ["x" * 5000, "seed.a=" + "y" * 5000, "max_steps=[" + "1, " * 3000 + "]", "a" * 5000 + "=1"]
)
def test_what_is_refused_is_echoed_in_part_where_it_is_long(text):
    with pytest.raises(UserError) as caught:
        read_config("lab_grpo", [text])
    assert len(str(caught.value)) < 2500
