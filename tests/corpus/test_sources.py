import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image
from tests.corpus.helpers import picture_folder

from thinkdraw.corpus.sources import DatasetSource, FolderSource, LabSource, PromptSource, WebdatasetSource
from thinkdraw.errors import UserError
from thinkdraw.picture_reader import read_picture


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), value, dtype=np.uint8)).save(buffer, format="PNG")
    return buffer.getvalue()


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def test_a_folder_gives_its_pictures_in_order_with_the_captions_beside_them(tmp_path):
    folder = picture_folder(tmp_path / "p", 3)
    (folder / "sub").mkdir()
    (folder / "000.png").rename(folder / "sub" / "z.png")
    (folder / "001.txt").write_text(" a cat \n")
    (folder / "002.json").write_text('{"caption": "a dog"}')
    source = FolderSource(path=folder)
    items = list(source.items())
    assert [(i.index, i.id, i.prompt.text) for i in items] == [
        (0, "001.png", "a cat"), (1, "002.png", "a dog"), (2, "sub/z.png", ""),
    ]  # fmt: skip
    assert read_picture(source.picture(items[2])).shape == (16, 20, 3)


def test_a_tar_is_read_in_place_sample_by_sample(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        add(tar, "./0001.jpg", png(10))
        add(tar, "./0001.txt", b"a caf\xc3\xa9")
        add(tar, "../../0002.png", png(20))  # a name that would leave the folder, were it unpacked
        add(tar, "../../0002.json", json.dumps({"text": "two"}).encode())
        add(tar, "0003.cls", b"7")
        add(tar, "0004.seg.png", png(30))
        add(tar, "0004.png", png(40))
    source = WebdatasetSource(path=tmp_path)
    items = list(source.items())
    assert [i.prompt.text for i in items] == ["a café", "two", ""]
    assert [int(read_picture(source.picture(i))[0, 0, 0]) for i in items] == [10, 20, 40]
    assert not list(tmp_path.parent.glob("0002*"))


@pytest.mark.parametrize("cut", [700, 1500])
def test_a_truncated_tar_is_named(tmp_path, cut):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for n in range(4):
            add(tar, f"{n}.png", png(n))
    whole = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(whole[: cut + 100])
    with pytest.raises(UserError, match=r"a\.tar"):
        list(WebdatasetSource(path=tmp_path / "a.tar").items())


def test_a_data_set_on_disk_gives_pictures_and_captions(tmp_path):
    import datasets

    rows = {"picture": [Image.fromarray(np.full((8, 8, 3), v, dtype=np.uint8)) for v in (1, 2)], "text": ["one", None]}
    table = datasets.Dataset.from_dict(rows).cast_column("picture", datasets.Image())
    table.save_to_disk(str(tmp_path / "disk"))
    source = DatasetSource(path=str(tmp_path / "disk"), image="picture", caption="text")
    items = list(source.items())
    assert [i.prompt.text for i in items] == ["one", ""]
    assert [int(read_picture(source.picture(i))[0, 0, 0]) for i in items] == [1, 2]
    with pytest.raises(UserError, match="picture, text"):
        list(DatasetSource(path=str(tmp_path / "disk")).items())


def test_a_data_set_is_opened_by_name_and_what_is_unknown_is_one_line(tmp_path, monkeypatch):
    import datasets
    from datasets.exceptions import DatasetNotFoundError

    table = datasets.Dataset.from_dict({"image": [{"bytes": png(7), "path": None}], "text": ["one"]})
    table = table.cast_column("image", datasets.Image())
    table.to_parquet(str(tmp_path / "set" / "train.parquet"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    source = DatasetSource(path=str(tmp_path / "set"), caption="text")
    (item,) = source.items()
    assert item.prompt.text == "one" and read_picture(source.picture(item))[0, 0, 0] == 7
    asked = []
    monkeypatch.setattr(datasets, "load_dataset", lambda *a, **k: asked.append((a, k)) or table)
    (item,) = DatasetSource(path="me/pictures", subset="small", split="test").items()
    assert asked == [(("me/pictures", "small"), {"split": "test"})] and item.id == "test-0000000"

    def missing(*args, **kwargs):
        raise DatasetNotFoundError("no such data set")

    monkeypatch.setattr(datasets, "load_dataset", missing)
    with pytest.raises(UserError, match=r"me/nothing .* cannot be read"):
        list(DatasetSource(path="me/nothing").items())


def test_prompts_have_no_picture_and_keep_their_structure(tmp_path):
    row = {"prompt": "a ring", "id": "p1", "include": [{"class": "ring", "count": 1}]}
    (tmp_path / "p.jsonl").write_text(json.dumps(row) + "\n")
    (item,) = PromptSource(path=tmp_path / "p.jsonl").items()
    assert not item.has_picture and item.prompt.include == ({"class": "ring", "count": 1},)


def test_a_lab_picture_follows_from_its_index_alone():
    few, many = LabSource(count=4, families={"geneval": 1}), LabSource(count=12, families={"geneval": 1})
    assert few.picture(list(few.items())[2]) == few.picture(list(few.items())[2])
    assert len(list(many.items())) == 12 and not next(iter(LabSource(count=4, pictures=False).items())).has_picture


@pytest.mark.parametrize("source", [FolderSource(path="nowhere"), WebdatasetSource(path="nowhere.tar")])
def test_what_is_not_there_is_one_line(source):
    with pytest.raises(UserError, match="nowhere"):
        list(source.items())
