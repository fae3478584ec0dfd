"""Finished pictures of the user's own, with their captions or prompts.

Captions lie where a corpus finds them: in files beside the pictures, in a metadata file, in tar files of webdataset,
or in a table (parquet, `save_to_disk`) that holds the pictures too.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from thinkdraw.benchmarks.base import Layout, PictureFile
from thinkdraw.benchmarks.own.benchmark import EXPECTED, OwnPrompts
from thinkdraw.corpus.captions import BARE, READ, caption_of
from thinkdraw.corpus.sources import FolderSource, WebdatasetSource
from thinkdraw.data.picture_bytes import file_of
from thinkdraw.data.prompt_files import prompt_of, read_prompts
from thinkdraw.data.tables import TABLE_SUFFIXES, is_table, print_counts, resolve_inside, table_rows
from thinkdraw.errors import UserError
from thinkdraw.picture_reader import SUFFIXES, UnreadableError
from thinkdraw.runtime.files import atomic_write_bytes
from thinkdraw.types import Prompt

CAPTION_COLUMNS = ("prompt", "caption", "text", "brief_caption")
NAME_COLUMNS = ("file_name", "image")


@dataclass(frozen=True)
class OwnPictures:
    """Pictures to judge.

    prompts: of each picture, or of several pictures of one prompt. layout: (place of the prompt, sample) → its file.
    samples: the most pictures of a prompt. folder: that they lie in.
    """

    prompts: list[Prompt]
    layout: Layout
    samples: int
    folder: Path


def own_pictures(folder: Path, prompts: Path | None, extracted: Path) -> OwnPictures:
    """Find the pictures of a folder, and what each was to show.

    prompts: a file whose rows name pictures (`file_name` or `image`), or whose ids or places do; None takes captions.
    extracted: where pictures of tar files and tables are written, to be judged as files.
    Raises UserError where no picture has a caption or a prompt.
    """
    if prompts is not None:
        pictures = _named_in_rows(folder, prompts) or _named_by_prompt(folder, prompts)
    else:
        pictures = _captioned(folder, extracted)
    if not pictures.layout.files:
        how = f"that {prompts} names ({EXPECTED})" if prompts else "with a caption beside it (NAME.png + NAME.txt)"
        raise UserError(f"{folder} holds no picture {how}. Check the folder, or name the prompts: prompts=FILE.")
    return pictures


def _captioned(folder: Path, extracted: Path) -> OwnPictures:
    """Take every picture with a caption as a prompt of its own.

    Pictures without a caption are left out and named.
    """
    counts: Counter[str] = Counter()
    pairs: list[tuple[Prompt, Path]] = []
    bare: dict[Path, str] = {}
    for prompt, path in _pictures(folder, extracted, counts):
        if prompt.text:
            pairs.append((prompt, path))
        else:
            bare[path] = BARE
    print_counts(f"pictures of {folder}", counts)
    files = {(place, 0): PictureFile(path) for place, (_, path) in enumerate(pairs)}
    root = folder if all(path.is_relative_to(folder) for _, path in pairs) else extracted
    return OwnPictures([prompt for prompt, _ in pairs], Layout(files, "NAME.png + NAME.txt", bare), 1, root)


def _pictures(folder: Path, extracted: Path, counts: Counter[str]) -> Iterator[tuple[Prompt, Path]]:
    """Yield each picture with its caption, in the folder's order."""
    if any(path.suffix.lower() in SUFFIXES for path in folder.rglob("*")):
        for item in FolderSource(path=folder).items(counts):
            yield Prompt(item.prompt.text, item.id), folder / item.ref
    elif any(folder.glob("*.tar")):
        source = WebdatasetSource(path=folder)
        for item in source.items(counts):
            yield Prompt(item.prompt.text, item.id), _extract(extracted, item.index, source.picture(item))
    elif is_table(folder):
        yield from _pictures_of_table(folder, extracted, counts)
    else:
        raise UserError(
            f"images={folder} holds no picture, no .tar file and no table with pictures. Give a folder with "
            f"NAME.png and NAME.txt, with metadata.jsonl, or with parquet files."
        )


def _pictures_of_table(folder: Path, extracted: Path, counts: Counter[str]) -> Iterator[tuple[Prompt, Path]]:
    for row in table_rows(folder):
        named = next((name for name in CAPTION_COLUMNS if row.cells.get(name)), None)
        caption = caption_of(row.cells.get(named), row.where, counts) if named else ""
        counts[READ] += 1
        counts[BARE] += not caption
        try:
            picture = file_of(row.cells.get("image"), folder, row.where)
        except UnreadableError as error:
            raise UserError(f"{row.where}, image: {error}. Correct it.") from error
        if picture is None:
            counts["rows without picture"] += 1
            continue
        facts = (
            {**row.cells, "prompt": caption} if named == "prompt" else {"prompt": caption, "id": row.cells.get("id")}
        )
        prompt = prompt_of(facts, row.where, row.number) if caption else Prompt("")
        yield prompt, _extract(extracted, row.number, picture) if isinstance(picture, bytes) else picture


def _extract(folder: Path, number: int, data: bytes) -> Path:
    """Write a picture's bytes as a file, unless it is there; readers go by content."""
    path = folder / f"{number:07d}.png"
    if not path.is_file() or path.read_bytes() != data:
        atomic_write_bytes(path, data)
    return path


def _named_in_rows(folder: Path, prompts: Path) -> OwnPictures | None:
    """Read rows that name each picture's file; None where the rows name none."""
    if prompts.is_dir() or prompts.suffix.lower() not in TABLE_SUFFIXES:
        return None
    read: list[Prompt] = []
    files: dict[tuple[int, int], PictureFile] = {}
    for row in table_rows(prompts):
        name = next((cell for column in NAME_COLUMNS if isinstance(cell := row.cells.get(column), str)), None)
        if name is None:
            return None
        text = next((row.cells[column] for column in CAPTION_COLUMNS if row.cells.get(column)), "")
        read.append(prompt_of({**row.cells, "prompt": text}, row.where, row.number))
        if (path := resolve_inside(folder, name, row.where)).is_file():
            files[len(read) - 1, 0] = PictureFile(path)
    return OwnPictures(read, Layout(files, f"as {prompts.name} names them"), 1, folder)


def _named_by_prompt(folder: Path, prompts: Path) -> OwnPictures:
    """Find pictures whose names hold a prompt's id or place."""
    read = read_prompts(prompts)
    layout = OwnPrompts().official_pictures(folder, read, 1)
    samples = 1 + max((sample for _, sample in layout.files), default=0)
    return OwnPictures(read, layout, samples, folder)
