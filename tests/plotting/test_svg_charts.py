import xml.etree.ElementTree as ElementTree

from kfpn.plotting.svg_charts import ChartBar, ChartLine, bar_chart, line_chart


def test_a_chart_of_lines_is_svg_and_its_names_are_escaped():
    chart = line_chart(
        "<curves>", "recall", "precision", [ChartLine("<b>cat</b>", [(0.0, 1.0), (1.0, 0.0)], "#123456")]
    )
    root = ElementTree.fromstring(chart)
    (line,) = root.findall("polyline")
    (first, last) = [tuple(map(float, point.split(","))) for point in line.attrib["points"].split()]
    assert first[0] < last[0]
    assert first[1] < last[1]  # y of SVG goes down
    assert line.find("title").text == "<b>cat</b>"
    assert root.attrib["aria-label"] == "<curves>"


def test_a_chart_without_lines_and_one_without_bars_is_empty():
    assert ElementTree.fromstring(line_chart("none", "x", "y", [])).findall("polyline") == []
    assert ElementTree.fromstring(bar_chart("none", [], 1.0)).findall("rect") == []


def test_a_bar_is_as_long_as_its_share_of_the_most_and_none_has_no_length():
    values = (0.5, 2.0, -1.0, None)
    chart = ElementTree.fromstring(bar_chart("bars", [ChartBar(str(value), value, "") for value in values], 1.0))
    whole, *_ = lengths = [float(bar.attrib["width"]) for bar in chart.findall("rect")]
    assert lengths[1::2] == [whole / 2, whole, 0, 0]
