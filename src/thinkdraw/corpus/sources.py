"""Sources of a corpus: pictures, prompts or the lab, as items in a fixed order.

Pictures are read one at a time.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import numpy as np
from pydantic import Field

from thinkdraw.config import StrictModel
from thinkdraw.corpus.captions import BARE, BESIDE, METADATA, READ, caption_beside, caption_of, metadata_captions
from thinkdraw.corpus.files import count_unread, files_below, read_captions, tar_samples
from thinkdraw.data.prompt_files import read_training_prompts
from thinkdraw.data.tables import resolve_inside
from thinkdraw.data.test_sets.hashes import published_tests_among
from thinkdraw.data.text_files import file_bytes, shorten
from thinkdraw.errors import UserError
from thinkdraw.images import to_png
from thinkdraw.lab.prompts import Family, prompt_set
from thinkdraw.lab.scenes import draw
from thinkdraw.lab.wording import Example
from thinkdraw.picture_reader import SUFFIXES
from thinkdraw.runtime.formats import one_line
from thinkdraw.types import Prompt


@dataclass(frozen=True)
class Item:
    """One row to be written.

    prompt: the text to draw, or the picture's caption, "" where it has none. ref: where the source finds its picture.
    """

    index: int
    id: str
    prompt: Prompt
    has_picture: bool
    ref: Any = field(default=None)


class Source(Protocol):
    """Items in a fixed order, and their pictures."""

    def items(self, counts: Counter[str] | None = None) -> Iterator[Item]:
        """Yield the items without pictures. Raises UserError.

        counts: counts what was read, and the rest by the reason why it was not.
        """
        ...

    def picture(self, item: Item) -> bytes:
        """Return the bytes of the item's picture file. Raises OSError where it is gone."""
        ...


class FolderSource(StrictModel):
    """Pictures in a folder and below it.

    Captions are in .txt, .caption or .json files of the same name, or in a metadata file.
    """

    kind: Literal["folder"] = Field(
        default="folder",
        description="Reads pictures of a folder and the folders below it; captions lie beside them or in a "
        "metadata file.",
    )
    path: Path = Field(description="Folder with the pictures and their captions.")

    def items(self, counts: Counter[str] | None = None) -> Iterator[Item]:
        counts = _start_counts(counts)
        if not self.path.is_dir():
            raise UserError(f"source.path={self.path} is not a folder. Give a folder of pictures.")
        pictures, metadata, beside = [], [], dict[str, dict[str, Path]]()
        for file in files_below(self.path, counts):
            suffix = file.suffix.lower()
            if suffix in SUFFIXES:
                pictures.append(file)
            elif file.name in METADATA:
                metadata.append(file)
            elif suffix in BESIDE:
                beside.setdefault(file.with_suffix("").as_posix(), {})[suffix] = self.path / file
            else:
                count_unread(suffix, counts)
        named = metadata_captions(self.path, metadata, {file.as_posix() for file in pictures}, counts)
        for index, file in enumerate(pictures):
            own = beside.get(file.with_suffix("").as_posix(), {})
            texts = {suffix: (str(path), file_bytes(path)) for suffix, path in own.items()}
            caption = caption_beside(texts, counts) or named.get(file.as_posix(), "")
            yield _count_item(Item(index, file.as_posix(), Prompt(caption), True, file.as_posix()), counts)
        stems = {file.with_suffix("").as_posix() for file in pictures}
        counts["texts of no picture"] += sum(len(texts) for stem, texts in beside.items() if stem not in stems)

    def picture(self, item: Item) -> bytes:
        return resolve_inside(self.path, item.ref, item.id).read_bytes()


class WebdatasetSource(StrictModel):
    """Tar files of samples, whose members share a name up to the first dot.

    For example 0001.jpg, 0001.txt and 0001.json.
    """

    kind: Literal["webdataset"] = Field(
        default="webdataset",
        description="Reads samples of tar files: members of one name, such as 0001.jpg, 0001.txt and 0001.json.",
    )
    path: Path = Field(description="A .tar file, or a folder of them.")

    def items(self, counts: Counter[str] | None = None) -> Iterator[Item]:
        counts = _start_counts(counts)
        files = sorted(self.path.glob("*.tar")) if self.path.is_dir() else [self.path]
        if not files or not all(file.is_file() for file in files):
            raise UserError(f"source.path={self.path} is neither a .tar file nor a folder of them. Correct the path.")
        for file in set(self.path.iterdir()) - set(files) if self.path.is_dir() else ():
            count_unread(file.suffix.lower(), counts)
        index = 0
        for file in files:
            for sample in tar_samples(file, counts):
                pictures = sorted(sample.extents.keys() & SUFFIXES)
                for suffix in sample.extents.keys() - set(pictures) - set(BESIDE):
                    count_unread(suffix, counts)
                if not pictures:
                    counts["texts of no picture"] += len(sample.extents.keys() & set(BESIDE))
                    continue
                caption = caption_beside(read_captions(file, sample), counts)
                for number, suffix in enumerate(pictures):
                    # The suffix tells a sample's second picture from its first.
                    name = f"{file.name}/{sample.key}{suffix if number else ''}"
                    item = Item(index, name, Prompt(caption), True, [str(file), *sample.extents[suffix]])
                    yield _count_item(item, counts)
                    index += 1

    def picture(self, item: Item) -> bytes:
        name, offset, size = item.ref
        with open(name, "rb") as file:
            file.seek(offset)
            return file.read(size)


class DatasetSource(StrictModel):
    """A Hugging Face data set: a name on the hub, or a folder.

    The folder is one that `load_dataset` or `save_to_disk` knows.
    """

    kind: Literal["dataset"] = Field(
        default="dataset",
        description="Reads a Hugging Face data set, from the hub or from a folder; needs `pip install thinkdraw[hub]`.",
    )
    path: str = Field(description="Name of the data set on the hub, or a folder that holds one.")
    subset: str | None = Field(
        default=None, description="Configuration of the data set, where it has several; null takes its only one."
    )
    split: str = Field(default="train", description="Split of the data set that is read, such as train.")
    image: str = Field(default="image", description="Name of the column that holds the pictures.")
    caption: str | None = Field(
        default=None, description="Name of the column that holds the captions; null reads none."
    )

    def items(self, counts: Counter[str] | None = None) -> Iterator[Item]:
        counts = _start_counts(counts)
        table = self._table()
        if self.caption and self.caption not in table.column_names:
            raise UserError(f"source.caption={self.caption}: {self.path} has {', '.join(table.column_names)}.")
        captions = table[self.caption] if self.caption else [None] * len(table)
        for index, cell in enumerate(captions):
            caption = caption_of(cell, f"{self.path} row {index + 1}, {self.caption}", counts)
            yield _count_item(Item(index, f"{self.split}-{index:07d}", Prompt(caption), True, index), counts)

    def picture(self, item: Item) -> bytes:
        cell = self._table()[item.ref][self.image]
        if not cell or cell["bytes"]:
            return cell["bytes"] if cell else b""
        # A path in a data set was written by a stranger. Only files in the data set's own folder or its downloads are read.
        for folder in (Path(self.path), *_downloads()):
            with suppress(UserError, FileNotFoundError):
                return resolve_inside(folder, cell["path"], item.id).read_bytes()
        raise OSError(f"{shorten(cell['path'])} is not a file of the data set {self.path}")

    def fingerprint(self) -> str:
        """Return the library's name for this content; it changes with the files."""
        return str(self._table()._fingerprint)

    def _table(self) -> Any:
        return _open_dataset(self.path, self.subset, self.split, self.image)


class PromptSource(StrictModel):
    """Prompts without pictures, of a file or folder; test prompts are left out."""

    kind: Literal["prompts"] = Field(
        default="prompts", description="Reads prompts without pictures; the teacher then plans a picture for each."
    )
    path: Path = Field(
        description="File or folder of prompts: .txt, .jsonl, .json, .csv, .parquet, or a public prompt set."
    )

    def items(self, counts: Counter[str] | None = None) -> Iterator[Item]:
        counts = _start_counts(counts)
        prompts = read_training_prompts(self.path)
        tested = published_tests_among(prompts)
        counts["test prompts left out"] += len(tested)
        kept = (prompt for place, prompt in enumerate(prompts) if place not in tested)
        for index, prompt in enumerate(kept):
            yield _count_item(Item(index, prompt.id or f"prompt-{index:07d}", prompt, False), counts)

    def picture(self, item: Item) -> bytes:
        raise OSError(f"{item.id} has no picture")


class LabSource(StrictModel):
    """Prompts of the lab's training split and, unless switched off, a scene of each."""

    kind: Literal["lab"] = Field(default="lab", description="Makes prompts and pictures of the lab's training split.")
    families: dict[Family, Annotated[float, Field(ge=0)]] = Field(
        default={"geneval": 0.6, "compbench": 0.25, "dense": 0.15},
        min_length=1,
        description="Share of each family of the lab's prompts, in any unit.",
    )
    count: int = Field(default=2000, ge=1, description="Rows to make, over all families.")
    seed: int = Field(default=0, ge=0, description="Seed by which prompts and scenes are drawn.")
    pictures: bool = Field(default=True, description="Draw a picture for each prompt; false gives prompts alone.")

    def items(self, counts: Counter[str] | None = None) -> Iterator[Item]:
        counts = _start_counts(counts)
        for index, example in enumerate(_lab_examples(tuple(self.families.items()), self.count, self.seed)):
            yield _count_item(Item(index, example.prompt.id, example.prompt, self.pictures), counts)

    def picture(self, item: Item) -> bytes:
        example = _lab_examples(tuple(self.families.items()), self.count, self.seed)[item.index]
        return to_png(draw(example.scene(np.random.default_rng([self.seed, 1, item.index]))))


SourceSettings = Annotated[
    FolderSource | WebdatasetSource | DatasetSource | PromptSource | LabSource, Field(discriminator="kind")
]


@cache
def _lab_examples(families: tuple[tuple[Family, float], ...], count: int, seed: int) -> list[Example]:
    total = sum(share for _, share in families)
    sizes: dict[Family, int] = {name: round(count * share / total) for name, share in families}
    return [example for name, size in sizes.items() if size for example in prompt_set(name, "train", size, seed)]


def _start_counts(counts: Counter[str] | None) -> Counter[str]:
    """Return `counts`, or a new counter that nobody reads, with 0 items read."""
    counts = Counter() if counts is None else counts
    counts[READ] += 0
    return counts


def _count_item(item: Item, counts: Counter[str]) -> Item:
    counts[READ] += 1
    counts[BARE] += not item.prompt.text
    return item


def _downloads() -> list[Path]:
    """List where `datasets` stores what it downloads and unpacks."""
    from datasets import config
    from huggingface_hub import constants

    return [Path(config.HF_DATASETS_CACHE), Path(constants.HF_HUB_CACHE)]


@cache
def _open_dataset(path: str, subset: str | None, split: str, image: str) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise UserError("a Hugging Face data set needs `pip install thinkdraw[hub]`.") from error
    load: Callable[[], Any] = lambda: datasets.load_dataset(path, subset, split=split)  # noqa: E731
    if (Path(path) / "state.json").is_file():
        load = lambda: datasets.load_from_disk(path)  # noqa: E731
    elif (Path(path) / "dataset_dict.json").is_file():
        load = lambda: datasets.load_from_disk(path)[split]  # noqa: E731
    try:
        table = load()
        names = table.column_names
        table = table.cast_column(image, datasets.Image(decode=False)) if image in names else None
    except Exception as error:  # the library raises different errors for files, formats and the hub
        raise UserError(
            f"data set {path} ({split}) cannot be read: {one_line(error)}. Check path, subset and split."
        ) from error
    if table is None:
        raise UserError(f"source.image={image}: {path} has the columns {', '.join(names)}.")
    return table
