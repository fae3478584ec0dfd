import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms, features
from pydantic import ValidationError

from thinkdraw.errors import UserError
from thinkdraw.picture_reader import (
    PictureReaderConfig,
    UnreadableError,
    format_counts,
    picture_size,
    read_picture,
    read_with_notes,
)

GREYS = np.array([[0, 100, 200, 255]], dtype=np.uint8)
SCENE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8))


def file_of(image: Image.Image, form: str = "PNG", **how) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **how)
    return buffer.getvalue()


def png_of(colour_type: int, depth: int, row: bytes, width: int, **chunks: bytes) -> bytes:
    """A PNG of one row, whose samples Pillow itself does not write."""
    header = struct.pack(">IIBBBBB", width, 1, depth, colour_type, 0, 0, 0)
    parts = [("IHDR", header), *chunks.items(), ("IDAT", zlib.compress(b"\0" + row)), ("IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed(name.encode(), data) for name, data in parts)


def framed(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def pixels_of(data: bytes, **reading) -> list[list[int]]:
    return read_picture(data, PictureReaderConfig(**reading)).reshape(-1, 3).tolist()


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("form", ["PNG", "TIFF", "JPEG"])
def test_a_picture_is_upright_however_its_exif_data_store_it(turn, form):
    # where the first row and the first column of the stored picture belong, by the EXIF standard
    upright = np.zeros((16, 24, 3), dtype=np.uint8)
    upright[:8, :8], upright[:8, 16:], upright[8:, :8] = (250, 0, 0), (0, 250, 0), (0, 0, 250)
    flips = {1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1]}
    stored = flips[turn] if turn < 5 else np.transpose(flips[{5: 1, 6: 2, 7: 3, 8: 4}[turn]], (1, 0, 2))
    exif = Image.Exif()
    exif[0x0112] = turn
    how = {"quality": 100, "subsampling": 0} if form == "JPEG" else {}
    read = read_picture(file_of(Image.fromarray(np.ascontiguousarray(stored)), form, exif=exif, **how))
    assert read.shape == upright.shape and np.abs(read.astype(int) - upright).max() <= 4


def test_exif_data_that_are_damaged_leave_a_picture_as_it_is_stored():
    assert read_picture(file_of(SCENE, exif=b"Exif\0\0II*\0" + b"\xff" * 40)).shape == (40, 30, 3)


def test_what_is_hidden_under_transparency_is_not_seen():
    def cut_out(hidden):
        array = np.zeros((4, 4, 4), dtype=np.uint8)
        array[..., :3] = hidden
        array[1:3, 1:3] = (200, 60, 30, 255)
        return file_of(Image.fromarray(array))

    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([0, 255, 0, 200, 60, 30])
    palette.paste(1, (1, 1, 3, 3))
    files = [
        cut_out((0, 0, 0)),
        cut_out((240, 250, 10)),
        file_of(palette, transparency=0),
        file_of(palette, "GIF", transparency=0),
    ]
    assert len({read_picture(data).tobytes() for data in files}) == 1
    assert pixels_of(files[0])[0] == [255, 255, 255] and pixels_of(files[0], ground="#102030")[0] == [16, 32, 48]
    assert read_with_notes(files[2]).notes == ("transparency composed on white",)


def test_transparency_is_mixed_with_the_ground_in_its_share():
    half = file_of(Image.new("RGBA", (1, 1), (255, 0, 0, 128)))
    assert pixels_of(half) == [[255, 127, 127]] and pixels_of(half, ground="black") == [[128, 0, 0]]
    assert pixels_of(file_of(Image.new("LA", (1, 1), (0, 0)))) == [[255, 255, 255]]
    assert read_with_notes(file_of(Image.new("RGBA", (1, 1), (9, 8, 7, 255)))) == (
        pytest.approx(np.array([[[9, 8, 7]]])),
        (),
    )


@pytest.mark.parametrize(
    "data",
    [
        png_of(0, 1, b"\x80", 2, tRNS=b"\0\0"),
        png_of(0, 4, b"\xf5", 2, tRNS=b"\0\x05"),
        png_of(0, 16, b"\xff\xff\x01\x00", 2, tRNS=b"\x01\x00"),
        png_of(2, 16, b"\xff" * 6 + b"\x80\0" * 3, 2, tRNS=b"\x80\0" * 3),
        png_of(4, 16, b"\xff" * 4 + b"\x80\0\0\0", 2),
    ],
)
def test_one_transparent_colour_is_transparent_at_every_depth(data):
    assert pixels_of(data, ground="red") == [[255, 255, 255], [255, 0, 0]]


@pytest.mark.parametrize(
    ("image", "form"),
    [
        (Image.fromarray(GREYS), "PNG"),
        (Image.fromarray(GREYS.astype(np.uint16) * 257), "PNG"),
        (Image.fromarray(GREYS.astype(np.uint16) * 257), "TIFF"),
        (Image.fromarray(GREYS.astype(">u2") * 257), "TIFF"),
        (Image.fromarray(GREYS.astype(np.int32) * 257), "TIFF"),
        (Image.fromarray(GREYS.astype(np.int32)), "TIFF"),
        (Image.fromarray(GREYS.astype(np.float32)), "TIFF"),
        (Image.fromarray(GREYS.astype(np.float32) / 255), "TIFF"),
        (Image.fromarray(GREYS).convert("P"), "PNG"),
        (Image.fromarray(GREYS).convert("P"), "GIF"),
        (Image.fromarray(GREYS).convert("RGB").convert("CMYK"), "TIFF"),
        (Image.fromarray(GREYS).convert("RGB").convert("LAB"), "TIFF"),
        (Image.fromarray(GREYS).convert("LA").convert("La"), "TIFF"),
    ],
)  # fmt: skip
def test_every_mode_and_depth_is_read_by_value(image, form):
    if image.mode == "La":  # no plugin writes premultiplied grey
        image = image.convert("LA")
    assert np.abs(read_picture(file_of(image, form)).astype(int) - GREYS[..., None]).max() <= 1


def test_values_of_no_known_scale_are_refused():
    for values in (GREYS.astype(np.float32) * 1e6, GREYS - np.float32(300), np.full((2, 2), np.nan, dtype=np.float32)):
        with pytest.raises(UnreadableError, match="are of no known scale; store it with 8 or 16 bits"):
            read_picture(file_of(Image.fromarray(values), "TIFF"))


def test_grey_whose_white_is_zero_is_turned_round():
    data = bytearray(file_of(Image.fromarray(GREYS.astype(np.uint16) * 257), "TIFF"))
    at = data.index(struct.pack("<HHI", 262, 3, 1)) + 8  # PhotometricInterpretation, a short: 1 is black is zero
    data[at] = 0
    assert read_picture(bytes(data))[0, :, 0].tolist() == [255, 155, 55, 0]


def profile_with_red_and_blue_exchanged() -> bytes:
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, blue = data.index(b"rXYZ"), data.index(b"bXYZ")
    data[red : red + 4], data[blue : blue + 4] = b"bXYZ", b"rXYZ"
    return bytes(data)


def test_a_colour_profile_is_followed_and_one_that_means_srgb_changes_nothing():
    image = Image.new("RGB", (1, 1), (10, 200, 30))
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert read_with_notes(file_of(image, icc_profile=srgb)) == (pytest.approx(np.array([[[10, 200, 30]]])), ())
    read = read_with_notes(file_of(image, icc_profile=profile_with_red_and_blue_exchanged()))
    assert np.abs(read.pixels.astype(int) - [30, 200, 10]).max() <= 2 and read.notes == ("colours by their profile",)


def test_a_profile_that_cannot_be_followed_is_noted():
    image = Image.new("RGB", (1, 1), (10, 200, 30))
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    for profile, note in ((b"no profile" * 20, "a damaged"), (lab, "of another colour space")):
        read = read_with_notes(file_of(image, icc_profile=profile))
        assert read.pixels.tolist() == [[[10, 200, 30]]] and note in read.notes[0] and "not followed" in read.notes[0]


@pytest.mark.parametrize("form", ["GIF", "PNG", "TIFF"])
def test_the_first_of_several_frames_is_read_and_noted(form):
    red, blue = (Image.new("RGB", (4, 4), colour) for colour in ("red", "blue"))
    read = read_with_notes(file_of(red, form, save_all=True, append_images=[blue]))
    assert read.pixels[0, 0].tolist() == [255, 0, 0] and read.notes == ("the first of several frames",)


def test_a_picture_of_too_many_pixels_is_refused_before_it_is_unpacked(monkeypatch):
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("unpacked"))
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", lambda self: pytest.fail("unpacked"))
    for data in (png_of(2, 8, b"", 3000), png_of(2, 8, b"", 400_000_000)):  # Pillow refuses the second itself
        with pytest.raises(
            UnreadableError, match=r"^row 3 cannot be read as a picture: .*max_megapixels=0\.002 allows"
        ):
            read_picture(data, PictureReaderConfig(max_megapixels=0.002), "row 3")


def test_a_larger_limit_is_kept_to_by_pillow_too(monkeypatch):
    data = file_of(Image.new("1", (100, 100)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    assert read_picture(data, PictureReaderConfig(max_megapixels=400)).shape == (100, 100, 3)
    assert Image.MAX_IMAGE_PIXELS == 400_000_000


def test_formats_are_told_by_content_and_those_outside_the_list_start_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("subprocess.Popen", lambda *a, **k: pytest.fail("a program was started"))
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\nshowpage\n%%EOF\n"
    for data in (eps, file_of(SCENE, "TGA"), file_of(SCENE, "PCX"), file_of(SCENE, "ICO")):
        (tmp_path / "a.png").write_bytes(data)
        with pytest.raises(UnreadableError, match="damaged, or none of AVIF, BMP, GIF"):
            read_picture(tmp_path / "a.png")
    (tmp_path / "jpeg.png").write_bytes(file_of(SCENE, "JPEG"))
    assert read_picture(tmp_path / "jpeg.png").shape == (40, 30, 3)


def test_what_is_no_file_is_named_and_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "empty.png").touch()
    for name, why in (
        ("pipe.png", "not a file"),
        ("none.png", "no such file"),
        (".", "not a file"),
        ("empty.png", "empty"),
    ):
        with pytest.raises(UserError, match=f"{tmp_path / name} cannot be read as a picture: .*{why}"):
            read_picture(tmp_path / name)


FORMS = ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", *(["AVIF"] if features.check("avif") else [])]


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("form", FORMS)
def test_whatever_a_damaged_file_makes_of_its_decoder_is_one_error_of_one_line(form):
    rng, good = np.random.default_rng(1), file_of(SCENE, form)
    for trial in range(40):
        bad = bytearray(good)
        for _ in range(rng.integers(1, 6)):
            bad[rng.integers(0, min(len(bad), 400))] = rng.integers(0, 256)
        try:
            assert read_picture(bytes(bad[: rng.integers(1, len(bad))] if trial % 3 == 0 else bad)).dtype == np.uint8
        except UnreadableError as error:
            assert "\n" not in str(error) and str(error)


def test_any_exception_of_a_decoder_is_that_error(monkeypatch):
    for kind in (RuntimeError, SyntaxError, struct.error, MemoryError, KeyError, OverflowError, AttributeError):
        monkeypatch.setattr(
            "PIL.PngImagePlugin.PngImageFile.load", lambda self, kind=kind: (_ for _ in ()).throw(kind("odd"))
        )
        with pytest.raises(UnreadableError, match="odd"):
            read_picture(file_of(SCENE))


def test_only_the_header_is_read_for_a_size():
    assert picture_size(file_of(SCENE)[:60]) == (30, 40)


def test_a_ground_that_is_no_colour_is_refused():
    with pytest.raises(ValidationError, match="'transparent-ish' is no colour: give a name or #rrggbb"):
        PictureReaderConfig(ground="transparent-ish")


def test_notes_are_said_with_their_counts_the_most_frequent_first():
    assert (
        format_counts({"more than 8 bits": 1, "turned as EXIF says": 3}) == "3 turned as EXIF says, 1 more than 8 bits"
    )
