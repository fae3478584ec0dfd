"""Every setting says what it does, and is read."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel, Field

import thinkdraw
from thinkdraw.settings.catalog import TARGETS

LEAST_WORDS = 4  # of a description, beside those of the setting's name
LONGEST = 200  # characters


def models_below(annotation: Any) -> Iterator[type[BaseModel]]:
    """Every configuration class that a setting of this type may hold, through unions, lists and mappings."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        for field in annotation.model_fields.values():
            yield from models_below(field.annotation)
    else:
        for inner in get_args(annotation):
            yield from models_below(inner)


def poorly_described(model: type[BaseModel]) -> list[str]:
    """Settings of a class whose description is missing, too long, no sentence, or says no more than the name."""
    poor = []
    for name, field in model.model_fields.items():
        text = field.description or ""
        words = re.findall(r"\w+", text.lower())
        beside = [word for word in words if word not in name.lower().split("_")]
        if len(beside) < LEAST_WORDS or len(text) > LONGEST or not text.endswith((".", "?")):
            poor.append(f"{model.__name__}.{name}: {text!r}")
    return poor


@pytest.mark.parametrize("name", TARGETS)
def test_every_setting_has_a_description_that_says_more_than_its_name(name: str):
    models = dict.fromkeys(models_below(TARGETS[name].open()))
    poor = [line for model in models for line in poorly_described(model)]
    assert not poor, "\n".join(poor)


def test_a_missing_an_empty_and_an_endless_description_are_found():
    class Bad(BaseModel):
        beta: float = 0.1
        loss_type: str = Field(default="a", description="Loss type of dpo.")
        top_k: int = Field(default=1, description="word " * 41 + ".")
        seed: int = Field(default=0, description="Seed by which prompts and scenes are drawn.")

    assert [line.split(":")[0] for line in poorly_described(Bad)] == ["Bad.beta", "Bad.loss_type", "Bad.top_k"]


def test_no_section_takes_a_key_that_it_does_not_know():
    for name, target in TARGETS.items():
        for model in models_below(target.open()):
            assert model.model_config.get("extra") == "forbid", f"{name}: {model.__name__} takes any key"


def test_every_setting_is_read_somewhere():
    """By its name as an attribute: a coarse sieve, which names that several classes share pass together."""
    read = {"target_text", "target_image"}  # by getattr, with the modality's name
    for file in Path(thinkdraw.__file__).parent.rglob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        read |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    models = dict.fromkeys(model for target in TARGETS.values() for model in models_below(target.open()))
    unread = [f"{model.__name__}.{name}" for model in models for name in model.model_fields if name not in read]
    assert not unread, f"nothing reads {unread}: remove them, or read them"
