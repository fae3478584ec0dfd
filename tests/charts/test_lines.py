import math

import numpy as np

from thinkdraw.charts.axes import short
from thinkdraw.charts.lines import Series, line_plot, smooth, stacked_plot

NAN = math.nan


def test_smoothing_keeps_a_constant_and_leaves_gaps_where_they_are():
    values = np.full(100, 3.0)
    values[10:20] = NAN
    smoothed = smooth(values)
    np.testing.assert_allclose(smoothed[~np.isnan(values)], 3.0)
    assert np.isnan(smoothed[10:20]).all() and len(smoothed) == 100


def test_few_values_are_shown_as_dots_and_many_as_a_line_over_raw_values():
    x = np.arange(200.0)
    sparse = np.where(x % 20 == 0, x, NAN)
    assert line_plot("a", "A", x, [Series("s", sparse, 1)]).svg.count("<circle") == 10
    dense = line_plot("a", "A", x, [Series("s", x, 1)]).svg
    assert "<circle" not in dense and 'class="raw c1"' in dense and 'class="line c1"' in dense


def test_a_line_is_broken_where_a_value_is_missing():
    values = np.arange(200.0)
    values[100] = NAN
    path = (
        line_plot("a", "A", np.arange(200.0), [Series("s", values, 1)]).svg.split('class="raw c1" d="')[1].split('"')[0]
    )
    assert path.count("M") == 2


def test_an_exact_zero_has_a_place_on_a_logarithmic_axis():
    plot = line_plot("a", "A", np.arange(3.0), [Series("s", np.array([0.0, 1e-6, NAN]), 1)], log=True)
    assert "10⁻⁹" in plot.svg and "nan" not in plot.svg and "inf" not in plot.svg


def test_stacked_areas_start_at_zero_and_end_at_the_sum():
    plot = stacked_plot(
        "a", "A", np.arange(2.0), [Series("one", np.array([2.0, 2.0]), 1), Series("two", np.array([3.0, NAN]), 2)]
    )
    # Axis 0..5 on 182..10: the upper area's top is 2 + 3 = 5 at y = 10, and 2 + nothing at y = 182 − 2/5 · 172 = 113.2
    assert 'points="46.0,10.0 410.0,113.2 410.0,113.2 46.0,113.2"' in plot.svg


def test_a_chart_says_in_words_what_it_shows():
    svg = line_plot("a", "GRPO: <reward>", np.arange(2.0), [Series("mean", np.array([0.25, 0.5]), 1)]).svg
    assert '<title id="a-t">GRPO: &lt;reward&gt;</title>' in svg and "mean from 0.25 to 0.5." in svg


def test_numbers_are_shortened_to_about_three_digits():
    assert [short(v) for v in (0.0, 0.12345, -2.5, 25600.0, 1e-4, NAN)] == [
        "0",
        "0.123",
        "−2.5",
        "25,600",
        "1·10⁻⁴",
        "–",
    ]
