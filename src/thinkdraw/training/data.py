"""Prompts to draw and SFT examples, from the lab or from files."""

import logging
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from thinkdraw.config import StrictModel
from thinkdraw.data.corpus_rows import CorpusReaderConfig, is_corpus
from thinkdraw.data.corpus_tokens import CROP
from thinkdraw.data.leak_guard import find_leaks, refuse_leaks
from thinkdraw.data.over_long import OverLong, fit_prompts
from thinkdraw.data.picture_bytes import centre_crop, file_of
from thinkdraw.data.prompt_files import (
    PICTURE_COLUMNS,
    prompt_of,
    read_prompts,
    read_training_prompts,
    row_of,
    text_of,
)
from thinkdraw.data.tables import TableRow, print_counts, table_rows
from thinkdraw.data.test_sets.hashes import published_tests_among
from thinkdraw.data.text_files import column_names, shorten
from thinkdraw.errors import UserError
from thinkdraw.lab.prompts import Family, prompt_set
from thinkdraw.lab.rationales import write_thought
from thinkdraw.lab.scenes import draw
from thinkdraw.lab.wording import Example
from thinkdraw.picture_reader import (
    DEFAULT_CONFIG,
    RULES,
    PictureReaderConfig,
    UnreadableError,
    format_counts,
    read_with_notes,
)
from thinkdraw.runtime.inputs.hashing import SOURCES_HASH, Digests, content_digest
from thinkdraw.runtime.inputs.run_inputs import Input
from thinkdraw.runtime.inputs.tensor_files import read_tensors, write_tensors
from thinkdraw.runtime.json_types import JsonObject
from thinkdraw.training.corpus_examples import corpus_examples
from thinkdraw.training.known_tests import (
    is_published_training,
    known_test_sets,
    refuse_names,
    refuse_published_tests,
    refuse_tests_among,
)
from thinkdraw.training.prompt_mix import WeightedSource, mix_prompts
from thinkdraw.training.prompt_structure import StructureBy, with_structure
from thinkdraw.types import Policy, Prompt, Sampling

logger = logging.getLogger(__name__)


class DataSettings(StrictModel):
    """Where prompts, or SFT examples, come from.

    Test splits are refused: they are for `thinkdraw eval` only. Published test prompts are known by their hashes.
    """

    source: str | list[WeightedSource] = Field(
        default="lab",
        description="`lab`; or prompts as .txt, .jsonl, .json, .csv, .parquet or a public prompt set; or SFT "
        "rows or a corpus. A list mixes prompts: [{source: …, weight: 2}, …].",
    )
    families: dict[Family, Annotated[float, Field(ge=0)]] = Field(
        default={"geneval": 1.0},
        min_length=1,
        description="Share of each family of the lab's prompts, in any unit; for source=lab.",
    )
    split: Literal["train", "validation"] = Field(
        default="train",
        description="Split of the lab's prompts. Its test splits cannot be named here: they are for `thinkdraw eval`.",
    )
    count: int = Field(
        default=4096,
        ge=1,
        description="source=lab: how many different prompts or examples. A validation file: use at most so many, "
        "spread evenly over it.",
    )
    seed: int = Field(
        default=0,
        ge=0,
        description="Seed by which the lab's prompts are drawn; it does not change with the run's seed.",
    )
    over_long: OverLong | None = Field(
        default=None,
        description="Rows that do not fit: refuse names the first; cut shortens; drop leaves them out. null "
        "refuses prompts and cuts thoughts. A corpus: see corpus.over_long.",
    )
    against: list[Path] = Field(
        default=[],
        description="Test sets whose prompts must not be trained on, besides the published ones and those below "
        "$THINKDRAW_BENCHMARKS.",
    )
    leaks: Literal["refuse", "drop"] = Field(
        default="refuse",
        description="What happens to a prompt that is in such a test set: refuse stops before training, drop "
        "leaves the prompt out.",
    )
    structure: StructureBy = Field(
        default="off",
        description="Who finds nouns, counts and relations in prompts that bring none, for rewards that read "
        "them: rules (templates only), spacy, or a model that writes.",
    )
    structure_settings: JsonObject = Field(
        default={},
        description="spacy: {model: …}. writer: {name: a judge that writes, and that judge's settings}. off and "
        "rules take none.",
    )
    structure_cache: Path | None = Field(
        default=None,
        description="File that keeps what was found, so that it is looked for once; null is structure.jsonl in "
        "the run's folder.",
    )
    corpus: CorpusReaderConfig | None = Field(
        default=None,
        description="How SFT reads a corpus of rationales; null reads each row once, with its dense rationale "
        "and any style of prompt but the brief one.",
    )
    picture_folder: Path | None = Field(
        default=None,
        description="Folder that the picture files named by SFT rows lie in; null is the folder of the rows' own file.",
    )
    pictures: PictureReaderConfig = Field(
        default=PictureReaderConfig(),
        description="How SFT reads picture files: ground behind transparency, and the largest size.",
    )

    @property
    def named(self) -> str:
        """The source, or all sources with their weights, in words."""
        return self.source if isinstance(self.source, str) else ", ".join(map(str, self.source))

    def only_source(self) -> str:
        """Return the source of SFT examples. Raises UserError where there are several."""
        if isinstance(self.source, str):
            return self.source
        raise UserError(f"data.source={self.named}: SFT learns from one source. Only prompts are mixed; give one.")


def lab_examples(settings: DataSettings) -> list[Example]:
    """Make `count` lab examples, of each family as many as its share."""
    total = sum(settings.families.values())
    sizes: dict[Family, int] = {
        name: round(settings.count * share / total) for name, share in settings.families.items()
    }
    return [e for name, size in sizes.items() for e in prompt_set(name, settings.split, size, settings.seed) if size]


def load_prompts(settings: DataSettings, folder: Path | None = None) -> list[Prompt]:
    """Read the prompts to train on.

    With `settings.structure` they get nouns, counts and a relation, which some rewards read. Several sources are mixed by
    their weights (`mix_prompts`).
    folder: of the run, where the structure that was found is cached.
    Raises UserError for a file that is missing, empty or not of the form, for a test prompt (see `rows_without_leaks`), and
    if no structure is found.
    """
    if isinstance(settings.source, str):
        return _load_source(settings.source, settings, folder)
    loaded = {entry.source: _load_source(entry.source, settings, folder) for entry in settings.source}
    return mix_prompts(settings.source, loaded)


def _load_source(source: str, settings: DataSettings, folder: Path | None) -> list[Prompt]:
    """Read one source's prompts, without test prompts, with structure."""
    refuse_names(source)
    read = [e.prompt for e in lab_examples(settings)] if source == "lab" else read_training_prompts(source)
    if source != "lab":
        refuse_published_tests(Path(source), read)
        print_counts(f"prompts of {source}", {"read": len(read)})
    kept = rows_without_leaks(read, settings, "prompts.leaks", source)
    cache = settings.structure_cache or (folder and folder / "structure.jsonl")
    prompts = [read[row] for row in kept]
    return with_structure(prompts, settings.structure, settings.structure_settings, cache, source)


def rows_without_leaks(
    prompts: Sequence[Prompt], settings: DataSettings, key: str, source: str, *, is_corpus: bool = False
) -> list[int]:
    """Find the rows that may be trained on, which are no test prompts.

    Test prompts are the published ones, those of `settings.against`, and of the benchmarks below THINKDRAW_BENCHMARKS.
    key: of `leaks` in the configuration, for errors. source: where the prompts were read. Of one that was published for
    training, test prompts are always left out; so are published ones of a corpus, whose many captions cannot all be known.
    Raises UserError for test prompts if `settings.leaks` refuses them, or if there are no others.
    """
    test = [prompt for path in [*settings.against, *known_test_sets()] for prompt in read_prompts(path)]
    for_training, refuses = is_published_training(Path(source)), settings.leaks == "refuse"
    published = published_tests_among(prompts)
    if refuses and not (for_training or is_corpus):
        refuse_tests_among(prompts, published, key)
    rows = [row for row in range(len(prompts)) if row not in published]
    others = [prompts[row] for row in rows]
    if refuses and not for_training:
        refuse_leaks(others, test, key)
    else:
        leaking = {leak.train for leak in find_leaks(others, test)}
        rows = [row for place, row in enumerate(rows) if place not in leaking]
    if prompts and not rows:
        raise UserError(f"all {len(prompts)} prompts of {source} are test prompts. Give others.")
    if num_left_out := len(prompts) - len(rows):
        logger.warning("%d of %d prompts of %s are test prompts: left out", num_left_out, len(prompts), source)
    return rows


def prompts_that_fit(
    policy: Policy, prompts: Sequence[Prompt], settings: DataSettings, sampling: Sampling, key: str = "prompts"
) -> list[Prompt]:
    """Check that the policy can take the prompts, before a run starts.

    key: of the settings, for errors. Returns the prompts, without those that were dropped.
    Raises UserError for a prompt that is empty or too long, unless `settings.over_long` cuts or drops it.
    """
    how, where = settings.over_long or "refuse", f"{key}.source={settings.named}"
    return list(fit_prompts(policy, prompts, sampling, how, where, f"{key}.over_long").values())


def prompts_input(prompts: Sequence[Prompt], source: object) -> Input:
    """Describe prompts as an input of a run: texts in order, and what judges read."""
    return Input.of(source, map(row_of, prompts), len(prompts))


def shuffled_index(index: int, count: int, seed: int) -> int:
    """Compute the number at `index` of an endless shuffled order of 0 .. count − 1.

    Every pass is a new permutation. Seed and index alone decide the number, so that nothing has to be saved for a resume.
    """
    return int(_permutation(index // count, count, seed)[index % count])


def _permutation(epoch: int, count: int, seed: int, _cache: dict[tuple[int, int, int], np.ndarray] = {}) -> np.ndarray:  # noqa: B006
    """Compute the order of one pass.

    _cache: shared by all calls on purpose (a mutable default); it holds the latest order.
    """
    key = (epoch, count, seed)
    if key not in _cache:
        _cache.clear()
        _cache[key] = np.random.default_rng([seed, epoch]).permutation(count)
    return _cache[key]


@dataclass(frozen=True)
class Examples:
    """SFT rows. image_tokens: (E, N) uint16 codes."""

    prompts: list[Prompt]
    thoughts: list[str]
    image_tokens: Tensor

    def __len__(self) -> int:
        return len(self.prompts)

    def batches(self, size: int, num_bucketed: int, seed: int, epoch: int) -> list[np.ndarray]:
        """Split one pass into batches of `size` row indices.

        Rows that do not fill a batch are left out of this pass.
        The rows are shuffled; within every `num_bucketed` batches they are then sorted by length, so that little of a batch
        is padding.
        """
        rng = np.random.default_rng([seed, epoch])
        order = rng.permutation(len(self))[: len(self) // size * size]
        # Characters stand in for tokens: only the amount of padding depends on it.
        length = np.array([len(p.text) + len(t) for p, t in zip(self.prompts, self.thoughts)])
        blocks = [order[i : i + size * num_bucketed] for i in range(0, len(order), size * num_bucketed)]
        batches = [b for block in blocks for b in block[np.argsort(length[block], kind="stable")].reshape(-1, size)]
        return [batches[i] for i in rng.permutation(len(batches))]

    def as_input(self, source: object) -> Input:
        """Describe the examples as an input of a run."""
        return Input.of(source, [*map(row_of, self.prompts), *self.thoughts, self.image_tokens], len(self))


def load_examples(
    settings: DataSettings, policy: Policy, max_thought_tokens: int, cache: Path, is_main: bool = True, *,
    sampling: Sampling | None = None, at_least: int = 1,
) -> Examples:  # fmt: skip
    """Read SFT examples, with pictures as image tokens.

    Pictures are tokenised once; their codes are cached in the file `cache`.
    sampling: how the policy reads prompts and thoughts; by default inline, without a form.
    max_thought_tokens: the budget; a longer rationale of a corpus ends at a sentence, or is left out.
    Raises UserError before the first picture is tokenised: for fewer examples than `at_least`; for a file that is missing,
    is empty, lacks a column or names a picture that cannot be read; for what is too long, see `DataSettings.over_long`.
    """
    source = settings.only_source()
    refuse_names(source)
    if policy.picture.num_codes > 1 << 16:
        raise UserError("the policy has more than 65,536 codes, which uint16 cannot hold. Train another policy.")
    sampling = sampling or Sampling(max_thought_tokens=max_thought_tokens)
    if is_corpus(Path(source)):
        reading, tokens = settings.corpus or CorpusReaderConfig(), cache.with_name("corpus_tokens")
        prompts, thoughts, codes = corpus_examples(
            Path(source),
            reading,
            settings.seed,
            policy,
            max_thought_tokens,
            tokens,
            is_main,
            settings.pictures,
            sampling,
        )
        refuse_published_tests(Path(source), prompts)
        fitting = _fitting_rows(policy, prompts, thoughts, settings, sampling, is_corpus=True)
        print_counts(f"examples of {source}", {"read": len(prompts), "left out": len(prompts) - len(fitting)})
        _refuse_fewer(fitting, at_least)
        return Examples(list(fitting.values()), [thoughts[i] for i in fitting], codes[torch.tensor(list(fitting))])
    digests, notes = Digests(cache.with_name("picture_hashes.jsonl")), Counter[str]()
    if source == "lab":
        rng = np.random.default_rng([settings.seed, 1])
        examples = lab_examples(settings)
        examples = [
            examples[row] for row in rows_without_leaks([e.prompt for e in examples], settings, "data.leaks", source)
        ]
        scenes = [e.scene(rng) for e in examples]
        prompts, thoughts = (
            [e.prompt for e in examples],
            [write_thought(e, s, rng) for e, s in zip(examples, scenes, strict=True)],
        )
        fitting = _fitting_rows(policy, prompts, thoughts, settings, sampling)
        contents: Iterator[object] = (repr(scenes[i]) for i in fitting)
        pictures: Iterator[np.ndarray] = (draw(scenes[i]) for i in fitting)
    else:
        path = Path(source)
        folder = settings.picture_folder or (path if path.is_dir() else path.parent)
        table = list(table_rows(path, PICTURE_COLUMNS))  # without pictures, which are read later, a few at a time
        if not table:
            raise UserError(f"{path} holds no example. Write rows of prompt, thought, and image or image_tokens.")
        prompts = [prompt_of(row.cells, row.where, row.number) for row in table]
        refuse_published_tests(path, prompts)
        kept = rows_without_leaks(prompts, settings, "data.leaks", source)
        prompts, rows = [prompts[i] for i in kept], [table[i] for i in kept]
        thoughts = [text_of(row.cells, "thought", row.where) for row in rows]
        if sampling.thought != "off":
            _refuse_control_tokens(policy, rows, thoughts)
        fitting = _fitting_rows(policy, prompts, thoughts, settings, sampling)
        left_out = {"test prompts left out": len(table) - len(kept), "too long, left out": len(kept) - len(fitting)}
        print_counts(f"examples of {path}", {"read": len(table), **left_out})
        chosen = {kept[i] for i in fitting}
        contents = (_content(row.cells, row.where, folder, policy, digests) for row in _rows_at(path, chosen))
        pictures = (
            _picture(row.cells, row.where, folder, policy, settings.pictures, notes) for row in _rows_at(path, chosen)
        )
    size, read = (policy.picture.height, policy.picture.width), settings.pictures.model_dump(mode="json")
    made_of = content_digest([policy.picture_tokenizer_hash(), size, CROP, RULES, read, *contents])
    _refuse_fewer(fitting, at_least)
    codes = _cached(cache, made_of, source)
    if codes is None:
        codes = _tokenise(policy, pictures)
        if notes:
            logger.warning("pictures of %s: %s", source, format_counts(notes))
        if is_main:
            write_tensors(cache, {"image_tokens": codes}, {SOURCES_HASH: made_of})
    if is_main:
        digests.keep()
    return Examples(list(fitting.values()), [thoughts[i] for i in fitting], codes)


def _fitting_rows(
    policy: Policy, prompts: Sequence[Prompt], thoughts: Sequence[str], settings: DataSettings, sampling: Sampling,
    *, is_corpus: bool = False,
) -> dict[int, Prompt]:  # fmt: skip
    """Map each row that is trained on to its prompt.

    Leaves out a corpus's test prompts, and what the policy has no room for.
    """
    rows = (
        rows_without_leaks(prompts, settings, "data.leaks", settings.named, is_corpus=True)
        if is_corpus
        else list(range(len(prompts)))
    )
    how, where = settings.over_long or "refuse", f"data.source={settings.named}"
    fitted = fit_prompts(policy, [prompts[i] for i in rows], sampling, how, where, "data.over_long")
    fitting = {rows[index]: prompt for index, prompt in fitted.items()}
    if sampling.thought != "off" and not is_corpus:
        # `>=`, since the token that ends a thought counts too.
        long = [i for i in fitting if len(policy.text.thought(thoughts[i])) >= sampling.max_thought_tokens]
        if long and settings.over_long == "refuse":
            raise UserError(
                f"{where}, row {long[0] + 1} ({prompts[long[0]].id}): its thought does not fit into max_thought_tokens="
                f"{sampling.max_thought_tokens}, and neither do {len(long) - 1} others. Raise it, or choose data.over_long=cut "
                "or drop."
            )
        if settings.over_long == "drop":
            fitting = {i: prompt for i, prompt in fitting.items() if i not in set(long)}
        if long:
            what = "left out" if settings.over_long == "drop" else "cut"
            logger.warning("%d of %d thoughts of %s do not fit: %s", len(long), len(rows), settings.named, what)
    return fitting


def _rows_at(path: Path, chosen: Collection[int]) -> Iterator[TableRow]:
    """Read the rows of a table at these indices, with their pictures."""
    return (row for place, row in enumerate(table_rows(path)) if place in chosen)


def _refuse_control_tokens(policy: Policy, rows: Sequence[TableRow], thoughts: Sequence[str]) -> None:
    """Raise UserError for a thought that spells a control token.

    It would act as that token, which no policy can write in a thought.
    """
    for row, thought in zip(rows, thoughts):
        if policy.text.controls & set(policy.text.thought(thought)):
            raise UserError(
                f"{row.where}: `thought` spells a control token of the policy: {shorten(thought)}. Reword it."
            )


def _refuse_fewer(rows: Mapping[int, Prompt], at_least: int) -> None:
    if len(rows) < at_least:
        raise UserError(
            f"{len(rows)} examples are fewer than batch_rows={at_least}. Lower batch_rows, or give more examples."
        )


def _cached(cache: Path, made_of: str, source: str) -> Tensor | None:
    """Read the cached image tokens; None, with a warning, where they cannot be used.

    That is, where the file is damaged, or was made of other pictures.
    """
    if not cache.is_file():
        return None
    try:
        tensors, told = read_tensors(cache)
        about = told.get(SOURCES_HASH)
        if about == made_of:
            return tensors["image_tokens"]
        why = (
            "does not say which pictures it was made of"
            if about is None
            else f"was made of other pictures than {source} has now"
        )
    except ValueError as error:
        why = str(error)
    logger.warning("%s %s: the pictures are tokenised again", cache, why)
    return None


def _content(row: JsonObject, where: str, folder: Path, policy: Policy, digests: Digests) -> object:
    """Return what decides a row's image tokens: its own, or its picture's content."""
    if row.get("image_tokens") is not None:
        return _picture(row, where, folder, policy, DEFAULT_CONFIG, Counter()).tobytes()
    file = _file(row, where, folder)
    if isinstance(file, bytes):
        return file
    try:
        if not file.is_file():  # a device or a pipe has no end
            raise OSError("there is no such file")
        return digests.of(file)
    except OSError as error:
        raise UserError(
            f"{where}: picture {file} cannot be read ({error}). Correct the path, or write the picture again."
        ) from error


def _file(row: JsonObject, where: str, folder: Path) -> Path | bytes:
    """Find a row's picture: a path, or the file's content. Raises UserError."""
    try:
        file = file_of(row.get("image"), folder, where)
    except UnreadableError as error:
        raise UserError(f"{where}, image: {error}. Correct it.") from error
    if file is None:
        raise UserError(
            f"{where} has neither `image` (a path, bytes or both) nor `image_tokens`; its columns are {column_names(row)}. Add one."
        )
    return file


def _tokenise(policy: Policy, pictures: Iterator[np.ndarray], chunk: int = 64) -> Tensor:
    """Tokenise pictures, (H, W, 3) uint8, into image tokens, (E, N) uint16.

    A row of shape (N,) is image tokens already, and is kept.
    """
    parts, waiting = [], []
    size = (policy.picture.height, policy.picture.width)

    def flush() -> None:
        if waiting:
            parts.append(policy.encode_pictures(torch.from_numpy(np.stack(waiting))).cpu().to(torch.uint16))
            waiting.clear()

    for picture in pictures:
        if picture.ndim == 1:
            flush()
            parts.append(torch.from_numpy(picture)[None].to(torch.uint16))
        elif picture.shape[:2] != size:
            raise UserError(
                f"pictures have {picture.shape[0]}×{picture.shape[1]} pixels, but the policy draws {size[0]}×{size[1]}. Give "
                "pictures of its size, or a policy that draws theirs."
            )
        else:
            waiting.append(picture)
            if len(waiting) == chunk:
                flush()
    flush()
    return torch.cat(parts)


def _picture(
    row: JsonObject, where: str, folder: Path, policy: Policy, reading: PictureReaderConfig, notes: Counter[str]
) -> np.ndarray:
    """Read a row's picture, (H, W, 3) uint8 in the policy's size.

    A row that brings image tokens gives these, (N,).
    `notes` counts what was done to pictures when they were read.
    """
    if row.get("image_tokens") is not None:
        limit = policy.picture.num_codes
        try:
            codes = np.asarray(row["image_tokens"])
        except ValueError:  # lists of several lengths
            codes = np.empty(0)
        if (
            codes.dtype.kind not in "iu"
            or codes.shape != (policy.picture.num_tokens,)
            or codes.min() < 0
            or codes.max() >= limit
        ):
            raise UserError(
                f"{where}: image_tokens must be {policy.picture.num_tokens} integers from 0 to {limit - 1}. "
                "Tokenise the picture again."
            )
        return codes.astype(np.int64)
    try:
        picture, done = read_with_notes(_file(row, where, folder), reading, "its picture")
    except UnreadableError as error:
        raise UserError(
            f"{where}: {error}. Correct the path, write the picture again, or leave the row out."
        ) from error
    notes.update(done)
    return centre_crop(picture, policy.picture.height, policy.picture.width)[0]
