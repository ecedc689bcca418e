"""Simulates TF-TRT's segmenter without TensorRT: finds the parts of a graph that would run in TensorRT engines.

The steps are those of TensorFlow's `tf2tensorrt/segment/segment.cc` with an explicit batch. Nodes that can be converted are
merged along data edges, outputs first, wherever that makes no cycle. Constants that are read outside leave their segment.
Then segments of too few nodes are dropped.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

# These ops count neither as nodes of a segment (segment.cc) nor as work.
NOOPS = ("Identity", "Snapshot", "StopGradient")

NOT_MODELLED = (
    "limits of TensorRT itself that show when an engine is built",
    "the layout pass, which makes NCHW of NHWC on a GPU before segments are looked for",
    "devices: all nodes count as on the GPU",
    "constants that an engine copies, and QuantizeAndDequantize nodes",
)


@dataclass(frozen=True)
class Node:
    """A node of a graph.

    Attributes:
        name, op: of TensorFlow.
        inputs: names of the nodes whose outputs it reads.
        controls: names of the nodes it waits for.
        reason: the reason why TF-TRT cannot convert it; empty if it can.
        flops: floating-point operations of a product; 0 for all other nodes.
    """

    name: str
    op: str
    inputs: tuple[str, ...] = ()
    controls: tuple[str, ...] = ()
    reason: str = ""
    flops: int = 0


class _Merged:
    # The graph while nodes are merged. Each merged set has the name of one of its members.

    def __init__(self, nodes: Sequence[Node]):
        known = {node.name for node in nodes}
        self.before: dict[str, set[str]] = {node.name: set() for node in nodes}
        self.after: dict[str, set[str]] = {node.name: set() for node in nodes}
        self.data: dict[str, set[str]] = {node.name: set() for node in nodes}
        for node in nodes:
            for name in (*node.inputs, *node.controls):
                if name in known and name != node.name:
                    self.before[node.name].add(name)
                    self.after[name].add(node.name)
            for name in node.inputs:
                if name in known and name != node.name:
                    self.data[name].add(node.name)

    def outputs_first(self) -> list[str]:
        """Returns the nodes in an order in which readers of a node come before it, except around a loop."""
        order, seen = [], set()
        sources = sorted(name for name, before in self.before.items() if not before)
        stack = [(name, False) for name in (*sorted(self.before), *sources)]
        while stack:
            name, leave = stack.pop()
            if leave:
                order.append(name)
            elif name not in seen:
                seen.add(name)
                stack.append((name, True))
                stack.extend((after, False) for after in sorted(self.after[name]) if after not in seen)
        return order

    def mergeable(self, name: str, follower: str) -> bool:
        """Returns whether the direct edge is the only path from `name` to `follower`."""
        stack = [before for before in self.before[follower] if before != name]
        seen = set(stack)
        while stack:
            at = stack.pop()
            if at == name:
                return False
            for before in self.before[at]:
                if before not in seen:
                    seen.add(before)
                    stack.append(before)
        return True

    def merge(self, name: str, follower: str) -> None:
        for other in self.before[follower]:
            if follower in self.data[other]:
                self.data[other].discard(follower)
                self.data[other].add(name)
        for edges, back in ((self.before, self.after), (self.after, self.before)):
            for other in edges.pop(follower):
                back[other].discard(follower)
                if other != name:
                    back[other].add(name)
                    edges[name].add(other)
        self.data[name] |= self.data.pop(follower)
        self.data[name] -= {name, follower}


def _merge_all(nodes: Sequence[Node]) -> dict[str, set[str]]:
    # Returns {name of one member: the merged set of convertible nodes}.
    graph = _Merged(nodes)
    members = {node.name: {node.name} for node in nodes if not node.reason}
    for name in graph.outputs_first():
        if name not in members:
            continue
        while True:
            followers = [f for f in sorted(graph.data[name]) if f in members and graph.mergeable(name, f)]
            if not followers:
                break
            for follower in followers:
                graph.merge(name, follower)
                members[name] |= members.pop(follower)
    return members


def find_segments(nodes: Iterable[Node], minimum_size: int = 3) -> list[set[str]]:
    """Finds the segments that TF-TRT would convert, those of most nodes first.

    Args:
        nodes: of the graph. Inputs that are not among them are ignored.
        minimum_size: int, TF-TRT's `minimum_segment_size`: nodes that a segment must have, no-ops not counted.

    Returns:
        Sets of node names.
    """
    nodes = list(nodes)
    ops = {node.name: node.op for node in nodes}
    readers = defaultdict(set)
    for node in nodes:
        for name in node.inputs:
            readers[name].add(node.name)
    segments = []
    for members in _merge_all(nodes).values():
        kept = {name for name in members if ops[name] != "Const" or readers[name] <= members}
        if sum(ops[name] not in NOOPS for name in kept) >= minimum_size:
            segments.append(kept)
    return sorted(segments, key=lambda names: (-len(names), min(names)))


@dataclass(frozen=True)
class ConversionReport:
    """The share of a graph that TF-TRT would convert, and what keeps it from the rest.

    Attributes:
        nodes: their number, without constants, no-ops and inputs.
        converted: the number of these nodes that lie inside a segment.
        flops: of all products.
        converted_flops: of the products inside a segment.
        segments: (nodes, flops) of each, most FLOPs first; nodes counted as above.
        outside: "op: reason" -> number of nodes that cannot be converted.
        dropped: op -> number of convertible nodes in parts that are too small for a segment.
        splits: op -> number of nodes that cannot be converted and lie between two segments or behind one.
        uncounted: names of products without a static shape.
    """

    nodes: int
    converted: int
    flops: int
    converted_flops: int
    segments: list[tuple[int, int]]
    outside: Counter = field(default_factory=Counter)
    dropped: Counter = field(default_factory=Counter)
    splits: Counter = field(default_factory=Counter)
    uncounted: tuple[str, ...] = ()

    @property
    def node_share(self) -> float:
        """Share of the nodes that convert, 0..1."""
        return self.converted / self.nodes if self.nodes else 0.0

    @property
    def flop_share(self) -> float:
        """Share of the FLOPs that convert, 0..1."""
        return self.converted_flops / self.flops if self.flops else 0.0


def _splitting(nodes: Sequence[Node], inside: set[str]) -> Counter:
    # An engine ends at a node that reads a segment's results and cannot be converted.
    return Counter(
        node.op for node in nodes if node.reason and node.name not in inside and any(i in inside for i in node.inputs)
    )


def count_conversion(nodes: Iterable[Node], minimum_size: int, uncounted: Iterable[str] = ()) -> ConversionReport:
    """Counts the nodes and FLOPs that convert.

    Args:
        nodes: of the graph.
        minimum_size: see `find_segments`.
        uncounted: names of products without a static shape, for the report.
    """
    nodes = list(nodes)
    segments = find_segments(nodes, minimum_size)
    inside = set().union(*segments)
    not_work = ("Const", "Placeholder", "NoOp", *NOOPS)
    work = {node.name: node for node in nodes if node.op not in not_work}
    sizes = [
        (sum(name in work for name in names), sum(work[name].flops for name in names if name in work))
        for names in segments
    ]
    left = [node for node in work.values() if node.name not in inside]
    return ConversionReport(
        nodes=len(work),
        converted=sum(name in inside for name in work),
        flops=sum(node.flops for node in work.values()),
        converted_flops=sum(node.flops for node in work.values() if node.name in inside),
        segments=sorted(sizes, key=lambda size: (-size[1], -size[0])),
        outside=Counter(f"{node.op}: {node.reason}" for node in left if node.reason),
        dropped=Counter(node.op for node in left if not node.reason),
        splits=_splitting(list(work.values()), inside),
        uncounted=tuple(uncounted),
    )


def report_lines(report: ConversionReport) -> str:
    """Returns a report as lines for people."""
    lines = [
        f"{report.node_share:.1%} of {report.nodes} nodes and {report.flop_share:.2%} of {report.flops / 1e9:.1f} GFLOPs "
        f"convert, in {len(report.segments)} segment{'s' * (len(report.segments) != 1)}",
    ]
    for number, (nodes, flops) in enumerate(report.segments, start=1):
        lines.append(f"  segment {number}: {nodes} nodes, {flops / 1e9:.1f} GFLOPs")
    for title, counter in (
        ("what ends a segment", report.splits),
        ("what can't be converted", report.outside),
        ("what is left in TensorFlow because its part is too small", report.dropped),
    ):
        kinds = ", ".join(f"{name} ({count})" for name, count in counter.most_common()) or "nothing"
        lines.append(f"{title}: {kinds}")
    if report.uncounted:
        lines.append(f"products without a static shape, not counted: {', '.join(report.uncounted)}")
    lines.append(f"not modelled: {'; '.join(NOT_MODELLED)}")
    return "\n".join(lines)
