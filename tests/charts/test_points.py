from xml.etree import ElementTree

from thinkdraw.charts.points import Level, Point, Points, points_plot, sheet

GROUPS = [
    Points("a < b", [Point(0.2, 0.5, 0.25, 0.75), Point(1.0, 1.0, is_hollow=True)], 0),
    Points("seventh", [Point(0.5, 0.0, note="12")], 6, is_joined=True),
]


def chart(**settings) -> str:
    return points_plot("p", "Gain", GROUPS, [Level("idle", 0.8, 2)], x_label="cost", y_label="points", **settings)


def test_a_point_stands_where_its_values_are_and_says_them():
    # x: 0..1 on 58..402, so 0.2 is at 58 + 68.8. y: 0..1 on 254..12, so 0.5 is at 133 and its interval at 193.5..72.5
    drawn = chart()
    assert '<circle class="mark" cx="126.8" cy="133.0" r="4"/>' in drawn
    assert '<line x1="126.8" x2="126.8" y1="193.5" y2="72.5"/>' in drawn
    assert "<title>a &lt; b: 0.5 [0.25, 0.75]</title>" in drawn


def test_the_seventh_of_six_colours_is_square():
    drawn = chart()
    assert drawn.count('class="dot c1"') == 2 and drawn.count("<rect") == 1 and 'class="dot c1 hollow"' in drawn


def test_the_diagonal_runs_from_corner_to_corner():
    assert 'x1="58.0" x2="402.0" y1="254.0" y2="12.0"' in chart(diagonal=True)
    assert 'x1="58.0" x2="402.0" y1="254.0" y2="12.0"' not in chart()


def test_a_sheet_is_xml_with_its_own_colours_and_a_legend():
    text = sheet("Two & one", [points_plot("p", "Gain", GROUPS, x_label="x", y_label="y")] * 2, GROUPS)
    root = ElementTree.fromstring(text)
    words = [node.text for node in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "Two & one" in words and "a < b" in words and "12" in words
    assert "--c1:" in text and root.attrib["width"] == str(2 * 420 + 250)
