from bench.side_by_side import report


def rollouts(seconds: float) -> dict:
    phase = {"seconds": {"thinkdraw, bf16": seconds, "transformers, bf16": 6.0}, "ratio": 6.0 / seconds}
    return {"think and draw": phase, "draw only": phase}


def test_throughput_is_compared_within_a_turn_and_memory_the_other_way_round(capsys):
    # seconds before / after of three turns on a machine that grows slower: 1/1, 2/2.5, 4/4 -> 1, 0.8, 1
    report("rollouts", [{"before": rollouts(b), "after": rollouts(a)} for b, a in ((1.0, 1.0), (2.0, 2.5), (4.0, 4.0))])
    told = capsys.readouterr().out
    assert "1.000  [0.800, 1.000]   2.000 and 2.500 s" in told
    assert "after  think and draw: transformers / thinkdraw   2.400  [1.500, 6.000]" in " ".join(told.split("\n"))
    sizes = {side: {"rows": {"thinkdraw": {"bytes": count}}} for side, count in (("before", 1e9), ("after", 1.1e9))}
    report("update_memory", [sizes])
    assert "1.100  [1.100, 1.100]   1.000 and 1.100 GB" in capsys.readouterr().out
