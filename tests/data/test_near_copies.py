import numpy as np
import pytest

from thinkdraw.data.near_copies import NearCopy, find_near_copies, jaccard, signatures_of


def random_texts(rng: np.random.Generator, count: int, length: int = 40) -> list[str]:
    return [" ".join(f"w{i}" for i in rng.integers(500, size=length)) for _ in range(count)]


def test_jaccard_of_word_triples():
    # abc bcd | bcd cde -> 1 of 3
    assert jaccard("a b c d", "b c d e") == pytest.approx(1 / 3)
    assert jaccard("a b", "a b") == 0  # no triple


def test_every_pair_above_the_limit_is_found_and_none_below():
    rng = np.random.default_rng(0)
    right = random_texts(rng, 120)
    left = []
    for text in right:
        words = text.split()
        for place in rng.integers(len(words), size=int(rng.integers(0, 5))):
            words[place] = "other"
        left.append(" ".join(words))
    wanted = [(i, j) for i in range(120) for j in range(120) if jaccard(left[i], right[j]) >= 0.8]
    assert 20 < len(wanted) < 110
    found = find_near_copies(left, right, 0.8)
    assert sorted((c.left, c.right) for c in found) == wanted
    assert all(c.jaccard == jaccard(left[c.left], right[c.right]) for c in found)


def test_equal_entries_of_signatures_estimate_jaccard():
    rng = np.random.default_rng(1)
    base = random_texts(rng, 200)
    changed = [" ".join(["x", *text.split()[1:20], "y", *text.split()[21:]]) for text in base]
    exact = np.array([jaccard(a, b) for a, b in zip(base, changed)])
    estimate = (signatures_of(base) == signatures_of(changed)).mean(1)
    # 160 hashes: standard deviation √(J(1 − J) / 160) = 0.03 each, 0.002 of the mean of 200
    assert abs(float((estimate - exact).mean())) < 0.01
    assert float((estimate - exact).std()) < 0.05


def test_the_first_of_several_copies_is_reported_and_short_texts_have_none():
    (text,) = random_texts(np.random.default_rng(2), 1)
    assert find_near_copies(["a b", text, ""], ["", "a b", text, text], 0.8) == [NearCopy(1, 2, 1.0)]
    assert find_near_copies([], ["a b c"], 0.8) == find_near_copies(["a b c"], [], 0.8) == []


def test_parts_of_a_long_list_give_what_the_whole_gives(monkeypatch):
    rng = np.random.default_rng(3)
    left = random_texts(rng, 30)
    right = [left[29], left[3], left[11]]
    whole = find_near_copies(left, right, 0.8)
    monkeypatch.setattr("thinkdraw.data.near_copies.CHUNK", 7)
    assert (
        find_near_copies(left, right, 0.8) == whole == [NearCopy(3, 1, 1.0), NearCopy(11, 2, 1.0), NearCopy(29, 0, 1.0)]
    )
