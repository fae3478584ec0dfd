"""The configuration of `thinkdraw corpus write`."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from thinkdraw.config import StrictModel
from thinkdraw.corpus.filters.filters import Language, ShapeSettings
from thinkdraw.corpus.sources import LabSource, SourceSettings
from thinkdraw.corpus.teachers.endpoint import EndpointSettings
from thinkdraw.corpus.teachers.limits import LimitSettings
from thinkdraw.corpus.teachers.teachers import GrammarSettings, WriterSettings
from thinkdraw.picture_reader import PictureReaderConfig
from thinkdraw.runtime.json_types import JsonObject

TeacherSettings = Annotated[EndpointSettings | WriterSettings | GrammarSettings, Field(discriminator="kind")]


class ContradictionSettings(StrictModel):
    """A filter that leaves out rows of whose claims a questioner denies too many."""

    questioner: str = Field(
        default="policy",
        description="Judge that answers whether a claim holds: a name of `thinkdraw list judges`, or "
        "pkg.mod:Class of your own.",
    )
    settings: JsonObject = Field(
        default={}, description="What the questioner is made with: its constructor's parameters."
    )
    claims: Literal["objects", "sentences"] = Field(
        default="sentences",
        description="What is asked about: each object of the answer with its attributes, or each sentence of the "
        "dense rationale.",
    )
    question: str = Field(
        default='Does this picture show the following? "{claim}"',
        pattern=r"\{claim\}",
        description="Yes/no question that is asked about each claim; {claim} stands for the claim.",
    )
    max_claims: int = Field(
        default=6,
        ge=1,
        description="Claims of a row that are asked about, the first ones. More find more faults and cost more "
        "questions.",
    )
    min_p_yes: float = Field(
        default=0.5, ge=0, le=1, description="A claim counts as denied if the questioner's P(yes) is below this."
    )
    max_frac: float = Field(
        default=0.34, ge=0, lt=1, description="Share of a row's claims that may be denied; a row with more is left out."
    )


class AestheticSettings(StrictModel):
    scorer: str = Field(
        description="Judge that scores the pictures: a name of `thinkdraw list judges`, or pkg.mod:Class of your own."
    )
    settings: JsonObject = Field(default={}, description="What the scorer is made with: its constructor's parameters.")
    min_score: float = Field(description="Least score of a picture, in the scorer's units; rows below it are left out.")


class FilterSettings(StrictModel):
    """Each filter's count is in the card. null switches one off."""

    shape: ShapeSettings = Field(
        default=ShapeSettings(),
        description="Least size and longest shape of a picture, checked before the teacher is asked.",
    )
    language: Language | None = Field(
        default="English",
        description="Language of the texts, told by function words, so that a mere list of nouns passes; null "
        "takes any.",
    )
    min_words: int = Field(default=8, ge=0, description="Fewest words that a dense rationale may have.")
    max_words: int = Field(default=400, ge=1, description="Most words that a dense rationale may have.")
    boilerplate: bool = Field(
        default=True,
        description="Leave out answers that refuse, or that speak to the person who asks in place of describing.",
    )
    min_jaccard: float | None = Field(
        default=0.8,
        gt=0,
        le=1,
        description="Two dense rationales that share at least this part of their word triples count as one, and "
        "the first stays; null compares none.",
    )
    against: list[Path] = Field(
        default=[], description="Test sets that must stay unseen: a row with one of their prompts is left out."
    )
    contradiction: ContradictionSettings | None = Field(
        default=None, description="Ask a judge whether pictures show what their rationales claim; null asks nothing."
    )
    aesthetic: AestheticSettings | None = Field(
        default=None, description="Leave out pictures that a scorer rates low; null rates none."
    )


class CorpusSettings(StrictModel):
    out: Path = Field(default=Path("runs/corpus"), description="Folder of the corpus; a stopped run goes on there.")
    source: SourceSettings = Field(
        default=LabSource(),
        description="Where pictures or prompts come from: a folder, tar files, a Hugging Face data set, a prompt "
        "file, or the lab.",
    )
    teacher: TeacherSettings = Field(
        default=GrammarSettings(),
        description="Who writes the rationales: a model behind an endpoint, a local model, or the lab's grammar.",
    )
    limits: LimitSettings = Field(
        default=LimitSettings(), description="Pace, retries and budget of the requests to the teacher."
    )
    pictures: PictureReaderConfig = Field(
        default=PictureReaderConfig(),
        description="How picture files are read: ground behind transparency, and the largest size.",
    )
    filters: FilterSettings = Field(
        default=FilterSettings(),
        description="Rules by which finished rows are left out; the card counts what each one took.",
    )
    licence: str = Field(default="unknown", description="Licence that the card names: an identifier such as cc-by-4.0.")
    rows_per_shard: int = Field(default=2000, ge=1, description="Rows in each parquet file.")
