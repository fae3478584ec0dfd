"""What holds on GPUs that are emulated, and that it would not with a fault put back: each is a patch in `faults/`.

`device.py` has the rules of such a GPU, `scenarios.py` what must hold, `host.py` the process in which it is tried.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from tests.emulated.host import DOES_NOT_APPLY, ROOT, patched_files, read_patch

HERE = Path(__file__).parent
FAULTS = HERE / "faults"
MOST_LINES = 10  # of a patch that are its own
Ask = Callable[..., str]


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """Run a scenario, with a fault by name or without; returns what went wrong, "" if nothing did."""
    compiler, library = shutil.which("c++") or shutil.which("g++"), tmp_path_factory.mktemp("emulated") / "hooks.so"
    if compiler is None or sys.platform != "linux":
        pytest.skip("emulated GPUs need a C++ compiler, c++ or g++, and Linux")
    if torch.version.cuda is not None:
        pytest.skip("this build of torch has CUDA of its own, whose place an emulated GPU would have to take")
    inside = Path(torch.__file__).parent
    made = subprocess.run(
        [compiler, "-O0", "-shared", "-fPIC", "-std=c++20", str(HERE / "hooks.cpp"), "-o", str(library),
         f"-I{inside / 'include'}", f"-I{inside / 'include/torch/csrc/api/include'}", f"-L{inside / 'lib'}",
         f"-Wl,-rpath,{inside / 'lib'}", "-ltorch_cpu", "-lc10"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr[-2000:]
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}
    said = (library.parent / "stderr.txt").open("w+")
    host = subprocess.Popen(
        [sys.executable, "-m", "tests.emulated.host", str(library)], cwd=ROOT, env=environment, text=True, stdin=-1,
        stdout=-1, stderr=said,
    )  # fmt: skip
    assert host.stdin and host.stdout
    answers, asks = host.stdout, host.stdin

    def run(scenario: str, fault: str | None = None) -> str:
        asks.write(json.dumps({"scenario": scenario, "patch": fault and str(FAULTS / f"{fault}.patch")}) + "\n")
        asks.flush()
        answer = answers.readline()
        assert answer, f"the host ended:\n{Path(said.name).read_text()[-2000:]}"
        return json.loads(answer)["error"]

    yield run
    asks.close()
    host.wait()
    said.close()


# Scenario → the faults that break it, and by what one sees that it was they who did.
BROKEN_BY: dict[str, dict[str, str]] = {
    "every_phase_is_recorded": {"graph_pool_outlives_its_graphs": "use_count > 0 INTERNAL ASSERT"},
    "steps_of_the_second_gpu_are_recorded_there": {"the_first_gpu_is_waited_for": "where no work of this GPU is"},
    "a_run_computes_on_the_gpu_that_is_named": {"the_number_of_a_gpu_is_ignored": "on cuda"},
    "a_judge_never_works_on_the_stream_that_records": {"a_stream_for_each_phase": "which is capturing"},
    "memory_that_runs_out_beside_a_recording_is_freed_after_it": {"cache_emptied_at_any_time": "captures_underway"},
    "adapters_are_merged_one_by_one": {"all_sums_on_the_gpu": "bytes taken"},
    "pictures_are_decoded_in_the_memory_that_is_planned": {"autocast_of_bf16_pictures": "bytes taken"},
    "the_plans_seconds_count_what_moves_beside_products": {"seconds_of_products_alone": "s planned"},
    "the_bench_takes_a_step": {"advantages_stay_on_the_cpu": "Expected all tensors to be on the same device"},
    "the_bench_draws": {"graph_pool_outlives_its_graphs": "a decoding step cannot be recorded"},
}


@pytest.mark.parametrize("scenario", BROKEN_BY)
def test_it_holds(ask: Ask, scenario: str):
    error = ask(scenario)
    assert not error, error


@pytest.mark.parametrize(
    ("scenario", "fault", "seen"),
    [(s, fault, seen) for s, faults in BROKEN_BY.items() for fault, seen in faults.items()],
)
def test_with_the_fault_it_does_not(ask: Ask, scenario: str, fault: str, seen: str):
    error = ask(scenario, fault)
    assert DOES_NOT_APPLY not in error, error
    assert re.search(seen, error), error or "it holds all the same"


@pytest.mark.slow
def test_the_whole_bench_runs_on_a_gpu(ask: Ask):
    error = ask("the_bench_runs")
    assert not error, error


@pytest.mark.parametrize("patch", sorted(FAULTS.glob("*.patch")), ids=lambda patch: patch.stem)
def test_a_fault_is_at_most_ten_lines_and_applies(patch: Path):
    lines = [line for line in patch.read_text().splitlines() if re.match(r"[+-](?![+-]{2} )", line)]
    assert 0 < len(lines) <= MOST_LINES
    for name, source in patched_files(patch).items():
        compile(source, name, "exec")
    assert any(patch.stem in faults for faults in BROKEN_BY.values()), "no test puts it back"


def test_a_patch_of_code_that_has_moved_is_refused(tmp_path: Path):
    patch = tmp_path / "old.patch"
    patch.write_text("--- a/Makefile\n+++ b/Makefile\n@@ -1 +1 @@\n-what stood here once\n+\n")
    assert list(read_patch(patch.read_text())) == [ROOT / "Makefile"]
    with pytest.raises(ValueError, match=DOES_NOT_APPLY):
        patched_files(patch)
