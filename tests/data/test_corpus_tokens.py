import io
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from thinkdraw.data.corpus_tokens import Encoder, read_tokens, tokenise, tokens_folder
from thinkdraw.data.picture_bytes import centre_crop
from thinkdraw.errors import UserError
from thinkdraw.picture_reader import PictureReaderConfig


def png(picture: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG")
    return buffer.getvalue()


class Means:
    """The mean of each quarter of a picture, as four codes; counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, pictures: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        quarters = pictures.float().reshape(-1, 2, 4, 2, 4, 3).mean((2, 4, 5))
        return quarters.reshape(-1, 4).round().long() * 200  # above 255: needs 16 bits


@pytest.fixture
def corpus(tmp_path):
    wide = np.zeros((8, 20, 3), dtype=np.uint8)
    wide[:, 6:14] = 50  # the centre
    cells = [png(wide), None, b"broken", png(np.full((8, 8, 3), 9, dtype=np.uint8))]
    (tmp_path / "data").mkdir()
    for number, part in enumerate((cells[:3], cells[3:])):
        rows = [{"image": {"bytes": c, "path": None}, "detailed_caption": "x", "brief_caption": "y"} for c in part]
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "data" / f"{number}.parquet")
    return tmp_path


def test_tokens_are_of_the_centre_square_and_the_crop_is_recorded(corpus):
    encoder = Encoder(Means(), 8, 8, 4, "digest")
    folder = tokens_folder(corpus, encoder)
    first, second = (tokens for _, tokens in tokenise(corpus, folder, encoder))
    assert first.image_tokens.dtype == torch.uint16
    assert first.image_tokens.long().tolist() == [[10_000] * 4, [0] * 4, [0] * 4]
    assert first.crop.tolist() == [[6, 0, 8], [0, 0, 0], [0, 0, 0]]  # left, top, side; none and broken have no side
    assert second.image_tokens.long().tolist() == [[1800] * 4] and second.crop.tolist() == [[0, 0, 8]]


def test_pictures_are_encoded_once_until_the_shard_or_the_encoder_changes(corpus):
    encoder = Encoder(encode := Means(), 8, 8, 4, "digest")
    folder = tokens_folder(corpus, encoder)
    assert read_tokens(corpus, folder, encoder) is None
    list(tokenise(corpus, folder, encoder))
    calls = encode.calls
    found = read_tokens(corpus, folder, encoder)
    assert found is not None and [len(t.crop) for t in found] == [3, 1]
    list(tokenise(corpus, folder, encoder))
    assert encode.calls == calls
    assert read_tokens(corpus, folder, Encoder(encode, 8, 8, 4, "another")) is None
    shard = corpus / "data" / "1.parquet"
    rows = pq.read_table(shard).to_pylist()
    rows[0]["image"]["bytes"] = png(np.full((8, 8, 3), 10, dtype=np.uint8))
    pq.write_table(pa.Table.from_pylist(rows), shard)
    assert read_tokens(corpus, folder, encoder) is None
    assert [t.image_tokens.long()[0, 0].item() for _, t in tokenise(corpus, folder, encoder)] == [10_000, 2000]
    assert encode.calls == calls + 1  # only the shard that changed


def test_what_was_done_to_pictures_is_kept_with_their_tokens_and_another_reading_makes_them_again(corpus):
    clear = io.BytesIO()
    Image.new("RGBA", (8, 8), (9, 9, 9, 0)).save(clear, "PNG")
    rows = [{"image": {"bytes": clear.getvalue(), "path": None}, "detailed_caption": "x", "brief_caption": "y"}]
    pq.write_table(pa.Table.from_pylist(rows), corpus / "data" / "1.parquet")
    encoder = Encoder(Means(), 8, 8, 4, "digest")
    folder = tokens_folder(corpus, encoder)
    made = [tokens for _, tokens in tokenise(corpus, folder, encoder)][1]
    kept = read_tokens(corpus, folder, encoder)
    assert kept is not None and made.notes == kept[1].notes == {"transparency composed on white": 1}
    black = replace(encoder, reading=PictureReaderConfig(ground="black"))
    assert read_tokens(corpus, folder, black) is None
    assert [int(t.image_tokens.long()[0, 0]) for _, t in tokenise(corpus, folder, black)][1] == 0
    assert int(kept[1].image_tokens.long()[0, 0]) == 255 * 200


def test_a_truncated_token_file_is_made_again(corpus):
    encoder = Encoder(Means(), 8, 8, 4, "digest")
    folder = tokens_folder(corpus, encoder)
    list(tokenise(corpus, folder, encoder))
    file = folder / "0.safetensors"
    file.write_bytes(file.read_bytes()[:50])
    assert read_tokens(corpus, folder, encoder) is None
    assert len(list(tokenise(corpus, folder, encoder))) == 2


def test_a_folder_without_shards_is_one_line(tmp_path):
    with pytest.raises(UserError, match="no parquet"):
        list(tokenise(tmp_path, tmp_path / "t", Encoder(Means(), 8, 8, 4, "d")))


def test_the_centre_square_of_a_tall_picture_is_resized():
    square, place = centre_crop(np.full((30, 10, 3), 77, dtype=np.uint8), 4, 4)
    assert square.shape == (4, 4, 3) and place == (0, 10, 10) and int(square.mean()) == 77


def test_a_picture_that_changed_in_place_makes_the_tokens_again(tmp_path, caplog):
    """As many bytes in the same place: nothing but the content tells, not the footer with sizes and places."""
    buffers = [io.BytesIO(), io.BytesIO()]
    for buffer, value in zip(buffers, (0, 9), strict=True):
        Image.fromarray(np.full((8, 8, 3), value, dtype=np.uint8)).save(buffer, format="BMP")
    old, new = (buffer.getvalue() for buffer in buffers)
    shard, encoder = tmp_path / "a.parquet", Encoder(Means(), 8, 8, 4, "digest")
    rows = [{"image": {"bytes": old, "path": None}, "detailed_caption": "x", "brief_caption": "y"}]
    pq.write_table(pa.Table.from_pylist(rows), shard, compression="none", use_dictionary=False, write_statistics=False)
    first, second = (next(tokenise(shard, tmp_path / "tokens", encoder))[1].image_tokens for _ in range(2))
    assert torch.equal(first, second) and not caplog.text
    footer = shard.read_bytes()[-200:]
    shard.write_bytes(shard.read_bytes().replace(old, new))
    assert shard.read_bytes()[-200:] == footer
    assert next(tokenise(shard, tmp_path / "tokens", encoder))[1].image_tokens.long().tolist() == [[1800] * 4]
    assert "tokenised again" in caplog.text
