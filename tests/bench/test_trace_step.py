from bench.trace_step import statement

LOOP = """\
while run.goes_on:
    batch = rollout(
        run.policy,
        prompts.take(config.prompts_per_phase),
    )
    for minibatch in batch.minibatches(
        config.minibatches
    ):
        run.update(minibatch)
"""


def test_statement_is_the_smallest_around_a_line_and_only_the_header_of_a_compound_one():
    # line 4 takes prompts for the call that begins on line 2 and ends on line 5; lines 6 to 8 are the header of `for`
    assert statement(LOOP, 4) == range(2, 6)
    assert statement(LOOP, 7) == range(6, 9)
    assert statement(LOOP, 9) == range(9, 10)
    assert statement(LOOP, 1) == range(1, 2)
