import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.corpus.helpers import picture_folder
from tests.corpus.teacher_stub import GOOD

from thinkdraw.corpus.show import write_page
from thinkdraw.corpus.stats import corpus_stats
from thinkdraw.errors import UserError

HOSTILE = "<script>alert(1)</script> <img src=x onerror=alert(2)>"


@pytest.fixture
def corpus(tmp_path):
    picture = (picture_folder(tmp_path / "p", 1) / "000.png").read_bytes()
    row = {
        "image": {"bytes": picture, "path": None}, "brief_caption": HOSTILE, "detailed_caption": "a red circle. it is small.",
        "augmented_prompts": {"short_caption": HOSTILE, "paraphrases": f"['{HOSTILE}']", "tags": ["a", "b"]},
        "augmented_cots": {"step_by_step": GOOD["step_by_step"], "object_centric": ["one", "two"]}, "id": '"><b>',
    }  # fmt: skip
    rows = [row, row | {"image": None}, row | {"image": {"bytes": b"broken", "path": None}}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    return tmp_path


def test_every_text_on_the_page_is_escaped_and_nothing_is_fetched(corpus):
    page = write_page(corpus, corpus / "page.html", count=10, seed=0).read_text()
    assert "<script" not in page and "<img src=x" not in page and "<b>" not in page
    assert "&lt;script&gt;alert(1)" in page and page.count("<article>") == 3
    assert page.count('src="data:image/png;base64,') == 1 and "no picture" in page and "unreadable picture" in page
    assert not re.search(r"(?:src|href)=\"(?!data:)", page) and "default-src 'none'" in page


def test_a_sample_has_as_many_rows_as_asked_for(corpus):
    assert write_page(corpus, corpus / "page.html", count=2, seed=1).read_text().count("<article>") == 2


def test_stats_count_words_values_and_pictures(corpus):
    found = corpus_stats(corpus)
    assert (found["rows"], found["pictures"], found["shards"]) == (3, 2, 1)
    assert found["fields"]["detailed_caption"]["words"]["median"] == 6.0
    assert found["fields"]["augmented_prompts.tags"]["values"] == 2.0


def test_a_folder_without_a_corpus_is_one_line(tmp_path):
    for call in (corpus_stats, lambda folder: write_page(folder, tmp_path / "x.html", 1, 0)):
        with pytest.raises(UserError, match="holds no parquet"):
            call(tmp_path)
