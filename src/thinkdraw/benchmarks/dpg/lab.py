"""DPG-Bench's categories for the questions of the lab's own prompts.

The fact that a question asks about tells its category.
"""

from dataclasses import replace

from thinkdraw.runtime.json_types import JsonObject
from thinkdraw.types import Prompt, Question

CATEGORIES = {"background": "global", "relation": "relation - spatial", "count": "other - count"}


def with_categories(prompt: Prompt) -> Prompt:
    """Add a category to each question: entity - whole, attribute - color, …"""
    return replace(prompt, questions=tuple(replace(q, category=_category(q)) for q in prompt.questions))


def _category(question: Question) -> str:
    fact: JsonObject = question.fact or {}
    attributes = [name for name in fact.get("thing", {}) if name != "shape"]
    if fact.get("kind") == "exists" and attributes:
        return f"attribute - {attributes[0]}"
    return CATEGORIES.get(fact.get("kind", ""), "entity - whole")
