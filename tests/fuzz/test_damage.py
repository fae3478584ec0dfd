"""Damaged and odd files are refused in a line or read as they are: no traceback, no hang, no other numbers."""

import os

import pytest
from tests.fuzz.attack import attack
from tests.fuzz.targets import TARGETS

INPUTS = int(os.environ.get("FUZZ_INPUTS", "1000"))  # over all targets; another FUZZ_SEED tries others
SEED = int(os.environ.get("FUZZ_SEED", "0"))
TOTAL = sum(target.weight for target in TARGETS)


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name.replace(" ", "-"))
def test_damage_is_named_or_does_not_matter(target, tmp_path):
    outcomes = list(attack(target, round(INPUTS * target.weight / TOTAL), tmp_path, SEED))
    wrong = [outcome for outcome in outcomes if outcome.kind in ("traceback", "hang", "silent")]
    assert not wrong, "\n".join(f"{o.kind} {o.what}: {o.said}" for o in wrong)
