"""The one reader of picture files: every picture becomes 8-bit sRGB, or one error.

Everything that others made goes through here: SFT, corpora, benchmarks, questions, `serve`, labels, reports. The rules:

* a format is accepted by list, and recognised by content, not by name; no format starts another program;
* the size in the header is checked before anything is unpacked, because a small file may unpack to gigabytes;
* orientation as EXIF says; where that cannot be read the picture is upright;
* the first picture of an animation or of several pages;
* transparency (an alpha channel, a palette's, one transparent colour) is composed on the ground;
* 16 bits are scaled by their full range. 32-bit integers and floats do not name their range: it is the first of 1 (floats), 255 and
  65,535 that no value exceeds;
* a colour profile is followed unless it means sRGB, is damaged or belongs to another colour space; PNG's gAMA is not followed.
"""

import io
import stat
import warnings
from collections.abc import Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageCms, ImageColor
from pydantic import Field, field_validator

from thinkdraw.config import StrictModel
from thinkdraw.errors import UserError

RULES = 1
"""Number of these rules; a cache of what was read under others is made again."""
SUFFIXES = frozenset({
    ".avif", ".bmp", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff",
    ".webp",
})  # fmt: skip
"""Of files that are taken for pictures where a folder is looked through."""
_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
_ORIENTATION, _BITS, _PHOTOMETRIC = 0x0112, 258, 262
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip
_SCALES = {"L;2": 85, "L;4": 17}
"""Stored grey of few bits → what a step of it is of 255."""
_SPACES = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}
_SAME_COLOUR = 2  # of 255, by which a profile may differ from sRGB and still mean it
# Sizes are checked here and damaged files are errors here; Pillow's own warnings of both name no file.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.TiffImagePlugin")


class PictureReaderConfig(StrictModel):
    """How picture files are read."""

    ground: str = Field(default="white", description="Colour behind what is transparent: a CSS name or #rrggbb.")
    max_megapixels: float = Field(
        default=89.0,
        gt=0,
        description="Largest picture in millions of pixels; a larger one is refused before it is unpacked.",
    )

    @field_validator("ground")
    @classmethod
    def _known_colour(cls, value: str) -> str:
        try:
            ImageColor.getrgb(value)
        except ValueError as error:
            raise ValueError(f"{value!r} is no colour: give a name or #rrggbb, as in CSS") from error
        return value


DEFAULT_CONFIG = PictureReaderConfig()


class UnreadableError(UserError, ValueError):
    """A file that is no picture, has another format, or is too large.

    The message is one line with the file's name.
    """


class ReadPicture(NamedTuple):
    """A picture as read.

    pixels: (H, W, 3) uint8. notes: what was done to the picture, for counting.
    """

    pixels: np.ndarray
    notes: tuple[str, ...]


def read_picture(file: Path | str | bytes, reading: PictureReaderConfig = DEFAULT_CONFIG, name: str = "") -> np.ndarray:
    """Read a picture as (H, W, 3) uint8, sRGB; see `read_with_notes`."""
    return read_with_notes(file, reading, name).pixels


def read_with_notes(
    file: Path | str | bytes, reading: PictureReaderConfig = DEFAULT_CONFIG, name: str = ""
) -> ReadPicture:
    """Read a picture and list what was done to it.

    file: a path, or the bytes of a file. name: of the bytes, for the error. Raises UnreadableError, and nothing else, whatever the file
    holds.
    """
    try:
        with _open(file, reading) as image:
            return _read(image, reading)
    except Exception as error:  # what a decoder raises for a damaged file depends on format and library
        raise UnreadableError(_line(error, file, name)) from error


def picture_size(
    file: Path | str | bytes, reading: PictureReaderConfig = DEFAULT_CONFIG, name: str = ""
) -> tuple[int, int]:
    """Return (width, height) in pixels as stored, reading only the header.

    Raises UnreadableError.
    """
    try:
        with _open(file, reading) as image:
            return image.size
    except Exception as error:
        raise UnreadableError(_line(error, file, name)) from error


def format_counts(counts: Mapping[str, int]) -> str:
    """List counts of notes in words: "3 turned as EXIF says, 1 more than 8 bits"."""
    return ", ".join(f"{count} {note}" for note, count in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


def _open(file: Path | str | bytes, reading: PictureReaderConfig) -> Image.Image:
    """Open the picture and check its size, without unpacking anything.

    Raises whatever Pillow raises, and ValueError.
    """
    if not isinstance(file, bytes) and not stat.S_ISREG(Path(file).stat().st_mode):
        raise ValueError("it is not a file")  # a pipe would wait for ever
    limit = int(reading.max_megapixels * 1e6)
    if Image.MAX_IMAGE_PIXELS is not None and limit > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = limit
    source = io.BytesIO(file) if isinstance(file, bytes) else file
    too_large = f"it has more pixels than max_megapixels={reading.max_megapixels:g} allows"
    try:
        image = Image.open(source, formats=_formats())
    except Image.DecompressionBombError as error:
        raise ValueError(too_large) from error
    width, height = image.size
    if not 0 < width * height <= limit:
        image.close()
        raise ValueError(f"{width}×{height}: {too_large}")
    return image


@cache
def _formats() -> tuple[str, ...]:
    """List the accepted formats that this Pillow was built with."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _read(image: Image.Image, reading: PictureReaderConfig) -> ReadPicture:
    notes = []
    if image.format != "MPO" and getattr(image, "is_animated", False):  # an MPO's others are views of the same
        notes.append("the first of several frames")
    stored = _stored_mode(image)
    image.load()
    turn = _turn(image)  # only now: TIFF's plugin turns its pictures itself while it loads
    if _is_deep(stored):
        notes.append("more than 8 bits")
    colour, alpha = _colour_and_alpha(image, stored)
    profile = image.info.get("icc_profile") if image.mode != "LAB" else None  # which Pillow has turned into sRGB
    colour, note = _to_srgb(colour, profile if isinstance(profile, bytes) else b"")
    notes += [note] if note else []
    if alpha is not None and np.asarray(alpha).min() < 255:
        ground = Image.new("RGB", colour.size, ImageColor.getrgb(reading.ground)[:3])
        colour = Image.composite(colour, ground, alpha)
        notes.append(f"transparency composed on {reading.ground}")
    if turn is not None:
        colour = colour.transpose(turn)
        notes.append("turned as EXIF says")
    return ReadPicture(np.array(colour), tuple(notes))


def _stored_mode(image: Image.Image) -> str:
    """Return the file's samples and bits in the decoder's words: "RGB;16B", "L;4"."""
    if image.mode[0] in "IF":
        return image.mode
    told = [tile[3] for tile in getattr(image, "tile", ())][:1]
    told = told[0][:1] if told and isinstance(told[0], tuple) else told
    return told[0] if told and isinstance(told[0], str) else image.mode


def _is_deep(stored: str) -> bool:
    return stored[0] in "IF" or ";16" in stored


def _turn(image: Image.Image) -> Image.Transpose | None:
    try:
        return _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged EXIF data are no reason to lose a picture that every program shows
        return None


def _colour_and_alpha(image: Image.Image, stored: str) -> tuple[Image.Image, Image.Image | None]:
    """Return the picture in mode L, RGB or CMYK with 8 bits a sample, and its alpha."""
    if image.mode[0] in "IF":
        return _eight_bits(image)
    told = image.info.get("transparency")
    if isinstance(told, tuple) and _is_deep(stored):
        image.info["transparency"] = tuple(value >> 8 for value in told)  # of 16 bits the upper ones are kept
    elif isinstance(told, int) and stored in _SCALES:
        image.info["transparency"] = told * _SCALES[stored]
    if image.mode in ("La", "LA"):
        image = image.convert("LA")
        return image.getchannel("L"), image.getchannel("A")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return image.convert("L" if stored.startswith("LA") else "RGB"), image.getchannel("A")
    if image.mode == "1":
        return image.convert("L"), None
    return (image if image.mode in _SPACES else image.convert("RGB")), None


def _eight_bits(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Scale grey of 16 or 32 bits to 8 bits, and return it with its alpha.

    Raises ValueError for values of no known scale.
    """
    values = np.asarray(image)
    tags = getattr(image, "tag_v2", {})
    low, high = float(values.min()), float(values.max())
    if image.mode.startswith("I;16"):
        white = float((1 << tags.get(_BITS, (16,))[0]) - 1)
    elif image.format in ("PNG", "PPM") and image.mode == "I":
        white = 65535.0
    else:
        white = next(
            (scale for scale in ((1.0,) if image.mode == "F" else ()) + (255.0, 65535.0) if high <= scale), 0.0
        )
    if not (low >= 0 and high <= white):
        raise ValueError(f"its values, {low:g} to {high:g}, are of no known scale; store it with 8 or 16 bits")
    scaled = np.rint(values.astype(np.float32) * (255 / white)).astype(np.uint8)
    if tags.get(_PHOTOMETRIC) == 0:  # white is zero
        scaled = 255 - scaled
    told = image.info.get("transparency")
    alpha = Image.fromarray(np.where(values == told, 0, 255).astype(np.uint8)) if isinstance(told, int) else None
    return Image.fromarray(scaled), alpha


def _to_srgb(colour: Image.Image, profile: bytes) -> tuple[Image.Image, str]:
    """Return the picture in mode RGB, and what was done to its colours ("": nothing)."""
    transform = _transform(profile, colour.mode) if profile else None
    if isinstance(transform, str):
        return colour.convert("RGB"), transform
    if transform is not None:
        return ImageCms.applyTransform(colour, transform) or colour, "colours by their profile"
    return colour.convert("RGB"), "CMYK without a profile" if colour.mode == "CMYK" else ""


@lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | str | None:
    """Make the transform of a profile to sRGB.

    None for a profile that means sRGB, which changes no value; a note for a profile that cannot be followed.
    """
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if str(getattr(source.profile, "xcolor_space", "")).strip() != _SPACES[mode]:
            return "a profile of another colour space, not followed"
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
        if mode == "CMYK":
            return transform
        steps = np.arange(0, 256, 17, dtype=np.uint8)
        lattice = steps if mode == "L" else np.stack(np.meshgrid(steps, steps, steps), -1).reshape(1, -1, 3)
        sample = Image.fromarray(lattice.reshape(1, -1) if mode == "L" else lattice)
        seen = np.asarray(ImageCms.applyTransform(sample, transform), dtype=int)
        differ = np.abs(seen - np.asarray(sample.convert("RGB"), dtype=int)).max()
        return transform if differ > _SAME_COLOUR else None
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return "a damaged profile, not followed"


def _line(error: Exception, file: Path | str | bytes, name: str) -> str:
    """Describe what is wrong in one line that begins with the file's name."""
    name = name if isinstance(file, bytes) else str(file)
    if isinstance(error, FileNotFoundError):
        reason = "there is no such file"
    elif isinstance(error, Image.UnidentifiedImageError):
        head = _first_bytes(file)
        reason = f"damaged, or none of {', '.join(_formats())}; it begins with {head!r}" if head else "it is empty"
    else:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
    return f"{name} cannot be read as a picture: {reason}" if name else reason


def _first_bytes(file: Path | str | bytes) -> bytes:
    if isinstance(file, bytes):
        return file[:16]
    try:
        with open(file, "rb") as opened:
            return opened.read(16)
    except OSError:
        return b""
