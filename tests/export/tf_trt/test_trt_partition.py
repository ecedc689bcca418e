from kfpn.export.tf_trt.trt_partition import Node, count_conversion, find_segments, report_lines


def chain(*ops, flops=None):
    """Returns nodes in a row, one for each letter. A node with an upper-case letter can't be converted."""
    nodes, before = [], ()
    for name in ops:
        reason = "no converter" if name.isupper() else ""
        nodes.append(Node(name, name, before, (), reason, (flops or {}).get(name, 0)))
        before = (name,)
    return nodes


def test_one_op_that_has_no_converter_splits_a_chain_in_two():
    assert find_segments(chain(*"abcXdef"), 3) == [{"a", "b", "c"}, {"d", "e", "f"}]


def test_segments_of_too_few_nodes_are_dropped():
    nodes = chain(*"abcXde")
    assert find_segments(nodes, 3) == [{"a", "b", "c"}]
    assert find_segments(nodes, 2) == [{"a", "b", "c"}, {"d", "e"}]
    assert find_segments(nodes, 4) == []


def test_noops_do_not_count_towards_the_size():
    nodes = [Node("a", "Relu"), Node("i", "Identity", ("a",)), Node("b", "Relu", ("i",))]
    assert find_segments(nodes, 3) == []
    assert find_segments(nodes, 2) == [{"a", "i", "b"}]


def test_a_segment_does_not_hold_both_ends_of_a_path_through_a_node_outside():
    # The paths are a -> X -> c and a -> b -> c. If a, b and c were one engine, X would need an output of this engine and
    # also make an input of it.
    nodes = [Node("a", "a"), Node("X", "X", ("a",), (), "no"), Node("b", "b", ("a",)), Node("c", "c", ("b", "X"))]
    assert find_segments(nodes, 2) == [{"b", "c"}]


def test_a_control_edge_makes_a_cycle_as_a_data_edge_does():
    nodes = [Node("a", "a"), Node("X", "X", ("a",), (), "no"), Node("b", "b", ("a",), ("X",))]
    assert find_segments(nodes, 2) == []


def test_nodes_joined_only_by_a_control_edge_are_not_merged():
    assert find_segments([Node("a", "a"), Node("b", "b", (), ("a",))], 2) == []


def test_branches_that_meet_are_one_segment():
    nodes = [Node("a", "a"), Node("b", "b", ("a",)), Node("c", "c", ("a",)), Node("d", "d", ("b", "c"))]
    assert find_segments(nodes, 3) == [{"a", "b", "c", "d"}]


def test_nodes_inside_a_loop_of_the_graph_become_a_segment():
    nodes = [
        Node("enter", "Enter", (), (), "no"),
        Node("merge", "Merge", ("enter", "next"), (), "no"),
        Node("a", "a", ("merge",)),
        Node("b", "b", ("a",)),
        Node("next", "NextIteration", ("b",), (), "no"),
    ]
    assert find_segments(nodes, 2) == [{"a", "b"}]


def test_a_constant_that_is_read_outside_is_no_part_of_the_segment():
    nodes = [
        Node("k", "Const"),
        Node("a", "a", ("k",)),
        Node("b", "b", ("a",)),
        Node("X", "X", ("k",), (), "no"),
    ]
    assert find_segments(nodes, 2) == [{"a", "b"}]


def test_the_report_counts_nodes_flops_and_the_nodes_that_split_segments():
    report = count_conversion(chain(*"abXcdYe", flops={"b": 60, "d": 30, "e": 10}), 2)
    assert (report.nodes, report.converted, report.flops, report.converted_flops) == (7, 4, 100, 90)
    assert report.segments == [(2, 60), (2, 30)]
    assert dict(report.splits) == {"X": 1, "Y": 1}
    assert dict(report.outside) == {"X: no converter": 1, "Y: no converter": 1}
    assert dict(report.dropped) == {"e": 1}
    assert "57.1% of 7 nodes and 90.00% of 0.0 GFLOPs convert, in 2 segments" in report_lines(report)


def test_the_shares_of_an_empty_graph_are_zero():
    report = count_conversion([], 3)
    assert (report.node_share, report.flop_share, report.segments) == (0.0, 0.0, [])


def test_products_without_a_static_shape_are_named():
    assert "not counted: conv" in report_lines(count_conversion(chain("a"), 1, ["conv"]))
