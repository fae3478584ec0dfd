"""Sampling settings of a policy, and overrides of those that a checkpoint records."""

from typing import Annotated, Literal

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from thinkdraw.config import StrictModel
from thinkdraw.runtime.json_types import JsonObject

# inline: prompt, thought and picture in one context (ReasonGen-R1). rewrite: the picture is drawn in a fresh context, the
# prompt with the thought behind it (T2I-R1). off: a picture without a thought.
ThoughtFormat = Literal["inline", "rewrite", "off"]
PLACE = "{}"  # where the prompt stands in a form
_FORMS = ("prompt_form", "thought_instruction", "thought_system_prompt")


class Sampling(StrictModel):
    """Sampling settings.

    Guidance applies to image tokens only; temperature, top-k and top-p apply to text and image tokens. A form changes
    what the policy reads; judges, hashes and ids see the bare prompt.
    """

    thought: ThoughtFormat = Field(
        default="inline",
        description="inline: thought and picture follow the prompt in one context; rewrite: the picture has a "
        "fresh context of prompt and thought; off: no thought.",
    )
    max_thought_tokens: int = Field(
        default=64, ge=1, description="Longest thought in tokens; a longer one is cut, and the picture begins."
    )
    temperature: float = Field(
        default=1.0,
        gt=0,
        description="Logits of thoughts and pictures are divided by it. Above 1 samples are more varied, below 1 "
        "more alike.",
    )
    top_k: int | None = Field(
        default=None, ge=1, description="Sample from the k likeliest tokens only; null sets no limit."
    )
    top_p: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Sample from the likeliest tokens that together have this probability; null sets no limit.",
    )
    guidance_scale: float = Field(
        default=1.0,
        ge=0,
        description="Classifier-free guidance of image tokens: logits u + s·(c − u), with and without prompt. "
        "Larger follows the prompt more; 1 is none and saves half the work.",
    )
    greedy: bool = Field(
        default=False, description="Take the likeliest token each time; log-probs are still those of the distribution."
    )
    prompt_form: str | None = Field(
        default=None,
        description="What the policy reads in place of the bare prompt, with {} where the prompt stands, such as "
        "'A photo of {}.'. Judges see the bare prompt. null is the prompt itself.",
    )
    thought_instruction: str | None = Field(
        default=None,
        description="For thought=rewrite: what the policy reads before it writes the thought, with {} where the "
        "prompt stands (T2I-R1, arXiv 2505.00703). null is the prompt in its form.",
    )
    thought_system_prompt: str | None = Field(
        default=None,
        description="For thought=rewrite: a system prompt in front of thought_instruction; null is none.",
    )

    @field_validator("prompt_form", "thought_instruction")
    @classmethod
    def _has_one_place(cls, form: str | None) -> str | None:
        if form is not None and form.count(PLACE) != 1:
            raise ValueError(
                f"{form!r} has {form.count(PLACE)} places for the prompt. Write {PLACE} once, where the prompt stands."
            )
        return form

    @model_validator(mode="after")
    def _instruction_has_a_context(self) -> "Sampling":
        if self.thought != "rewrite" and (self.thought_instruction or self.thought_system_prompt):
            raise ValueError(
                f"thought_instruction is read by thought=rewrite only, where a thought has a context of its own, and thought is "
                f"{self.thought}. Put it into prompt_form, or write null."
            )
        return self

    @model_serializer(mode="wrap")
    def _as_before_there_were_forms(self, write: SerializerFunctionWrapHandler) -> JsonObject:
        # A form that is null is left out, so that stores and evaluations of versions without forms still compare equal.
        return {key: value for key, value in write(self).items() if key not in _FORMS or value is not None}

    def in_form(self, text: str) -> str:
        """Write a prompt as the policy reads it before it draws.

        Words with which both the form and the prompt begin ("a photo of") are said once, as published scripts do.
        """
        if self.prompt_form is None:
            return text
        text, before = text.strip(), self.prompt_form.partition(PLACE)[0].strip()
        if before and text.lower().startswith(f"{before.lower()} "):
            text = text[len(before) :].lstrip()
        return self.prompt_form.replace(PLACE, text)

    def as_thought_request(self, text: str) -> str:
        """Write a prompt as the policy reads it before its first token."""
        if self.thought != "rewrite" or self.thought_instruction is None:
            return self.in_form(text)
        return self.thought_instruction.replace(PLACE, text.strip())


class SamplingOverrides(StrictModel):
    """What to change of the sampling that a checkpoint records; null changes nothing."""

    thought: ThoughtFormat | None = Field(
        default=None, description="Thought format: inline, rewrite or off. null draws as the checkpoint was trained to."
    )
    max_thought_tokens: int | None = Field(
        default=None, ge=1, description="Longest thought in tokens. null is as recorded."
    )
    temperature: float | None = Field(default=None, gt=0, description="Temperature. null is as recorded.")
    top_k: Annotated[int, Field(ge=1)] | Literal["none"] | None = Field(
        default=None, description="Sample from the k likeliest tokens; none sets no limit. null is as recorded."
    )
    top_p: Annotated[float, Field(gt=0, le=1)] | Literal["none"] | None = Field(
        default=None,
        description="Sample from the likeliest tokens of this probability; none sets no limit. null is as recorded.",
    )
    guidance_scale: float | None = Field(
        default=None, ge=0, description="Classifier-free guidance of image tokens; 1 is none. null is as recorded."
    )
    greedy: bool | None = Field(default=None, description="Take the likeliest token each time. null is false.")
    prompt_form: str | None = Field(
        default=None,
        description="What the policy reads in place of the bare prompt, with {} where it stands; '{}' is the bare "
        "prompt. null is as recorded.",
    )
    thought_instruction: str | None = Field(
        default=None, description="For thought=rewrite: what is read before the thought. null is as recorded."
    )
    thought_system_prompt: str | None = Field(
        default=None, description="For thought=rewrite: a system prompt. null is as recorded."
    )
