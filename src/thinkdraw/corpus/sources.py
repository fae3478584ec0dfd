"""Where a corpus begins: pictures, prompts or the lab, as items in a fixed order whose pictures are read one at a time."""

import json
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import numpy as np
from pydantic import Field

from thinkdraw.config import StrictModel
from thinkdraw.data.prompt_files import read_prompts
from thinkdraw.errors import UserError
from thinkdraw.images import to_png
from thinkdraw.lab.prompts import Example, Family, prompt_set
from thinkdraw.lab.scenes import draw
from thinkdraw.picture_reader import SUFFIXES
from thinkdraw.types import Prompt


@dataclass(frozen=True)
class Item:
    """One row to be. prompt: the text to draw, or the picture's caption, "" where it has none. ref: where its picture is."""

    index: int
    id: str
    prompt: Prompt
    has_picture: bool
    ref: Any = field(default=None)


class Source(Protocol):
    def items(self) -> Iterator[Item]:
        """In a fixed order, without pictures. Raises UserError."""
        ...

    def picture(self, item: Item) -> bytes:
        """The picture's file. Raises OSError where it is gone."""
        ...


class FolderSource(StrictModel):
    """Pictures in a folder and below it; a caption is the text file or JSON (`caption` or `text`) of the same name."""

    kind: Literal["folder"] = "folder"
    path: Path

    def items(self) -> Iterator[Item]:
        if not self.path.is_dir():
            raise UserError(f"source.path={self.path} is not a folder. Give a folder of pictures.")
        files = sorted(f for f in self.path.rglob("*") if f.suffix.lower() in SUFFIXES and f.is_file())
        for index, file in enumerate(files):
            name = file.relative_to(self.path).as_posix()
            yield Item(index, name, Prompt(_caption_beside(file)), True, name)

    def picture(self, item: Item) -> bytes:
        return (self.path / item.ref).read_bytes()


class WebdatasetSource(StrictModel):
    """Tar files of samples: members of one name up to the first dot, such as 0001.jpg, 0001.txt and 0001.json."""

    kind: Literal["webdataset"] = "webdataset"
    path: Path = Field(description="A .tar, or a folder of them.")

    def items(self) -> Iterator[Item]:
        files = sorted(self.path.glob("*.tar")) if self.path.is_dir() else [self.path]
        if not files or not all(file.is_file() for file in files):
            raise UserError(f"source.path={self.path} is neither a .tar file nor a folder of them. Correct the path.")
        index = 0
        for file in files:
            for key, members, texts in _samples(file):
                for suffix in sorted(members.keys() & SUFFIXES):
                    ref = [str(file), *members[suffix]]
                    yield Item(index, f"{file.name}/{key}", Prompt(_caption_in(texts)), True, ref)
                    index += 1

    def picture(self, item: Item) -> bytes:
        name, offset, size = item.ref
        with open(name, "rb") as file:
            file.seek(offset)
            return file.read(size)


class DatasetSource(StrictModel):
    """A Hugging Face data set: by name, or a folder that `load_dataset` or `save_to_disk` knows."""

    kind: Literal["dataset"] = "dataset"
    path: str = Field(description="Name on the hub, or a folder.")
    subset: str | None = Field(default=None, description="The configuration, where there are several.")
    split: str = "train"
    image: str = Field(default="image", description="The column of pictures.")
    caption: str | None = Field(default=None, description="The column of captions, if there is one.")

    def items(self) -> Iterator[Item]:
        table = _open_dataset(self.path, self.subset, self.split, self.image)
        if self.caption and self.caption not in table.column_names:
            raise UserError(f"source.caption={self.caption}: {self.path} has {', '.join(table.column_names)}.")
        captions = table[self.caption] if self.caption else [""] * len(table)
        for index, caption in enumerate(captions):
            yield Item(index, f"{self.split}-{index:07d}", Prompt(str(caption or "").strip()), True, index)

    def picture(self, item: Item) -> bytes:
        cell = _open_dataset(self.path, self.subset, self.split, self.image)[item.ref][self.image]
        return cell["bytes"] if cell and cell["bytes"] else Path(cell["path"]).read_bytes() if cell else b""


class PromptSource(StrictModel):
    """Prompts without pictures: a file or folder that `read_prompts` knows."""

    kind: Literal["prompts"] = "prompts"
    path: Path

    def items(self) -> Iterator[Item]:
        for index, prompt in enumerate(read_prompts(self.path)):
            yield Item(index, prompt.id or f"prompt-{index:07d}", prompt, False)

    def picture(self, item: Item) -> bytes:
        raise OSError(f"{item.id} has no picture")


class LabSource(StrictModel):
    """Prompts of the lab's training split and, unless told otherwise, a scene of each."""

    kind: Literal["lab"] = "lab"
    families: dict[Family, float] = Field(default={"geneval": 0.6, "compbench": 0.25, "dense": 0.15}, min_length=1)
    count: int = Field(default=2000, ge=1)
    seed: int = Field(default=0, ge=0)
    pictures: bool = True

    def items(self) -> Iterator[Item]:
        for index, example in enumerate(_lab_examples(tuple(self.families.items()), self.count, self.seed)):
            yield Item(index, example.prompt.id, example.prompt, self.pictures)

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


def _caption_beside(file: Path) -> str:
    texts = {s: f.read_bytes() for s in (".txt", ".json") if (f := file.with_suffix(s)).is_file()}
    return _caption_in(texts)


def _caption_in(texts: dict[str, bytes]) -> str:
    if ".txt" in texts:
        return texts[".txt"].decode("utf-8", "replace").strip()
    try:
        found = json.loads(texts.get(".json", b"{}"))
    except ValueError:
        return ""
    caption = (found.get("caption") or found.get("text")) if isinstance(found, dict) else None
    return caption.strip() if isinstance(caption, str) else ""


def _samples(path: Path) -> Iterator[tuple[str, dict[str, tuple[int, int]], dict[str, bytes]]]:
    """Key, place of each member by suffix, and the small texts. Nothing is written to disk."""
    try:
        with tarfile.open(path, "r:") as tar:
            key, members, texts = "", {}, {}
            for member in tar:
                if not member.isfile():
                    continue
                folder, _, name = member.name.rpartition("/")
                stem, _, extension = name.partition(".")
                own = f"{folder}/{stem}" if folder else stem
                if own != key:
                    if members:
                        yield key, members, texts
                    key, members, texts = own, {}, {}
                suffix = "." + extension.lower()
                members[suffix] = (member.offset_data, member.size)
                if suffix in (".txt", ".json") and member.size < 1 << 20 and (text := tar.extractfile(member)):
                    texts[suffix] = text.read()
            if members:
                yield key, members, texts
    except (tarfile.TarError, OSError) as error:
        raise UserError(f"{path} cannot be read as a tar file: {error}. Give an uncompressed, whole .tar.") from error


@cache
def _open_dataset(path: str, subset: str | None, split: str, image: str) -> Any:
    try:
        import datasets
        from datasets.exceptions import DatasetsError
    except ImportError as error:
        raise UserError("a Hugging Face data set needs `pip install thinkdraw[hub]`.") from error
    load: Callable[[], Any] = lambda: datasets.load_dataset(path, subset, split=split)  # noqa: E731
    if (Path(path) / "state.json").is_file():
        load = lambda: datasets.load_from_disk(path)  # noqa: E731
    elif (Path(path) / "dataset_dict.json").is_file():
        load = lambda: datasets.load_from_disk(path)[split]  # noqa: E731
    try:
        table = load()
    except (OSError, ValueError, KeyError, DatasetsError) as error:
        raise UserError(f"data set {path} ({split}) cannot be read: {' '.join(str(error).split())[:200]}.") from error
    if image not in table.column_names:
        raise UserError(f"source.image={image}: {path} has the columns {', '.join(table.column_names)}.")
    return table.cast_column(image, datasets.Image(decode=False))
