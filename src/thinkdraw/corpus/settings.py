"""What a corpus is made of and from: the configuration of `thinkdraw corpus write`."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from thinkdraw.config import StrictModel
from thinkdraw.corpus.filters.filters import Language, ShapeSettings
from thinkdraw.corpus.sources import LabSource, SourceSettings
from thinkdraw.corpus.teachers.endpoint import EndpointSettings
from thinkdraw.corpus.teachers.limits import LimitSettings
from thinkdraw.corpus.teachers.teachers import GrammarSettings, WriterSettings
from thinkdraw.picture_reader import PictureReading
from thinkdraw.runtime.json_types import JsonObject

TeacherSettings = Annotated[EndpointSettings | WriterSettings | GrammarSettings, Field(discriminator="kind")]


class ContradictionSettings(StrictModel):
    """A questioner is asked about each claim of a rationale; a row that it denies too often is left out."""

    questioner: str = Field(default="policy", description="A name of `thinkdraw list judges`, or pkg.mod:Class.")
    settings: JsonObject = Field(default={}, description="What it is made with.")
    claims: Literal["objects", "sentences"] = Field(default="sentences", description="What it is asked about.")
    question: str = Field(default='Does this picture show the following? "{claim}"', pattern=r"\{claim\}")
    max_claims: int = Field(default=6, ge=1, description="Of one row, the first ones.")
    min_p_yes: float = Field(default=0.5, ge=0, le=1, description="A claim below it is denied.")
    max_frac: float = Field(default=0.34, ge=0, lt=1, description="Of the claims that may be denied.")


class AestheticSettings(StrictModel):
    scorer: str = Field(description="A name of `thinkdraw list judges`, or pkg.mod:Class.")
    settings: JsonObject = Field(default={}, description="What it is made with.")
    min_score: float


class FilterSettings(StrictModel):
    """Each filter's count is in the card. null switches one off."""

    shape: ShapeSettings = Field(default=ShapeSettings(), description="Of the picture, before the teacher is asked.")
    language: Language | None = Field(default="English", description="Told by function words; a list of nouns passes.")
    min_words: int = Field(default=8, ge=0, description="Of the dense rationale.")
    max_words: int = Field(default=400, ge=1)
    boilerplate: bool = Field(default=True, description="Refusals, and words to the person who asks.")
    min_jaccard: float | None = Field(
        default=0.8,
        gt=0,
        le=1,
        description="Two dense rationales that share so many word triples are one; the first stays.",
    )
    against: list[Path] = Field(default=[], description="Test sets; a row with one of their prompts is left out.")
    contradiction: ContradictionSettings | None = None
    aesthetic: AestheticSettings | None = None


class CorpusSettings(StrictModel):
    out: Path = Field(default=Path("runs/corpus"), description="The folder; a stopped run goes on.")
    source: SourceSettings = LabSource()
    teacher: TeacherSettings = GrammarSettings()
    limits: LimitSettings = LimitSettings()
    pictures: PictureReading = Field(default=PictureReading(), description="How picture files are read.")
    filters: FilterSettings = FilterSettings()
    licence: str = Field(default="unknown", description="Of the card: an identifier such as cc-by-4.0.")
    rows_per_shard: int = Field(default=2000, ge=1)
