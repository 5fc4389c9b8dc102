"""flows.json, read tolerantly."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from failpath_otel.errors import ConfigError
from failpath_otel.flows import Edge, Flow, Node, find_flows_file, load_flows, parse_flows

DIAMOND = Flow(
    "checkout",
    "Checkout",
    tuple(Node(key, key) for key in "abcd"),
    (Edge("a", "b"), Edge("a", "c"), Edge("b", "d"), Edge("c", "d")),
)
LINE = Flow("line", "Line", tuple(Node(key, key) for key in "abc"))


def one(entry: dict[str, Any]) -> Flow:
    return next(iter(parse_flows({"flows": [entry]})))


def test_the_file_of_this_repository_reads_whole(repository: Path) -> None:
    flows = load_flows(repository / ".failpath" / "flows.json")
    assert list(flows.by_slug) == ["checkout", "payment-webhook"]
    checkout = flows.by_slug["checkout"]
    assert (checkout.name, len(checkout.nodes), len(checkout.edges)) == ("Checkout", 5, 5)
    assert checkout.nodes[0] == Node("validate-cart", "Validate Cart")
    assert checkout.ancestors("create-order") == {"validate-cart", "charge-card", "reserve-stock"}


def test_only_slug_and_key_are_needed_and_the_rest_falls_back_on_them() -> None:
    assert one({"slug": "s", "nodes": [{"sdkStepKey": "k"}]}) == Flow("s", "s", (Node("k", "k"),))


def test_what_is_unknown_is_passed_over() -> None:
    entry = {
        "slug": "s",
        "version": 3,
        "nodes": [{"sdkStepKey": "k", "x": {"y": 1}}, "no node", {"label": "no key"}],
        "edges": "?",
    }
    assert one(entry).nodes == (Node("k", "k"),)


@pytest.mark.parametrize("entry", [{}, {"slug": ""}, {"slug": 3}, "text", None])
def test_a_flow_without_a_slug_is_passed_over_and_its_neighbour_is_read(entry: Any) -> None:
    assert [flow.slug for flow in parse_flows({"flows": [entry, {"slug": "s"}]})] == ["s"]


def test_of_two_flows_or_nodes_with_one_name_the_first_counts() -> None:
    nodes = [{"sdkStepKey": "k", "label": "one"}, {"sdkStepKey": "k", "label": "two"}]
    flows = parse_flows({"flows": [{"slug": "s", "nodes": nodes}, {"slug": "s", "nodes": []}]})
    assert flows.by_slug["s"].nodes == (Node("k", "one"),)


def test_edges_name_nodes_by_key_or_by_id_and_others_are_passed_over() -> None:
    nodes = [{"sdkStepKey": "a", "id": "n1"}, {"sdkStepKey": "b", "id": 2}, {"sdkStepKey": "c"}]
    edges = [
        {"source": "n1", "target": 2},
        {"from": "b", "to": "c"},
        {"source": "n1", "target": "gone"},
        {"source": "c", "target": "c"},
        {"source": "b", "target": "c"},
        {},
    ]
    assert one({"slug": "s", "nodes": nodes, "edges": edges}).edges == (Edge("a", "b"), Edge("b", "c"))


def test_a_key_counts_more_than_another_nodes_id() -> None:
    nodes = [{"sdkStepKey": "a", "id": "b"}, {"sdkStepKey": "b", "id": "x"}, {"sdkStepKey": "c"}]
    assert one({"slug": "s", "nodes": nodes, "edges": [{"source": "b", "target": "c"}]}).edges == (Edge("b", "c"),)


def test_ancestors_and_descendants_follow_the_edges() -> None:
    assert DIAMOND.ancestors("d") == {"a", "b", "c"}
    assert DIAMOND.descendants("a") == {"b", "c", "d"}
    assert DIAMOND.ancestors("b") == {"a"}
    assert DIAMOND.ancestors("a") == DIAMOND.descendants("d") == DIAMOND.ancestors("unknown") == frozenset()


def test_without_edges_the_order_of_the_nodes_stands_in() -> None:
    assert LINE.ancestors("c") == {"a", "b"}
    assert LINE.descendants("a") == {"b", "c"}


def test_a_cycle_neither_hangs_nor_loses_a_step() -> None:
    ring = Flow("ring", "Ring", LINE.nodes, (Edge("a", "b"), Edge("b", "c"), Edge("c", "a")))
    assert sorted(ring.ordered_keys) == ["a", "b", "c"]
    assert ring.descendants("a") == {"a", "b", "c"}


@given(st.permutations("abcd"))
def test_steps_come_after_their_ancestors_in_whatever_order_the_file_has_them(order: list[str]) -> None:
    flow = Flow("f", "F", tuple(Node(key, key) for key in order), DIAMOND.edges)
    for earlier, later in itertools.combinations(flow.ordered_keys, 2):
        assert later not in flow.ancestors(earlier)


@given(st.integers(1, 8), st.data())
def test_any_graph_is_ordered_whole(count: int, data: st.DataObject) -> None:
    keys = [str(number) for number in range(count)]
    ends = st.sampled_from(keys)
    edges = data.draw(st.lists(st.builds(Edge, ends, ends), max_size=20))
    flow = Flow("f", "F", tuple(Node(key, key) for key in keys), tuple(edges))
    assert sorted(flow.ordered_keys) == sorted(keys)


def test_the_nearest_file_above_is_found(tmp_path: Path) -> None:
    deep = tmp_path / "service" / "src"
    deep.mkdir(parents=True)
    for folder in (tmp_path, tmp_path / "service"):
        (folder / ".failpath").mkdir()
        (folder / ".failpath" / "flows.json").write_text('{"flows": []}')
    assert find_flows_file(deep) == tmp_path / "service" / ".failpath" / "flows.json"


def test_a_byte_order_mark_is_no_obstacle(tmp_path: Path) -> None:
    path = tmp_path / "flows.json"
    path.write_text(json.dumps({"flows": [{"slug": "s"}]}), encoding="utf-8-sig")
    assert [flow.slug for flow in load_flows(path)] == ["s"]


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff", b'{"a": "\xff"}', b"[" * 100_000, b"[]", b"{}", b'{"flows": {}}', b"null"]
)
def test_a_file_that_cannot_be_used_is_an_error_that_names_it(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "flows.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"flows\.json"):
        load_flows(path)


def test_a_file_that_cannot_be_read_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.json cannot be read: No such file"):
        load_flows(tmp_path / "gone.json")


def test_flows_are_counted_and_found_by_slug() -> None:
    flows = parse_flows({"flows": [{"slug": "a"}, {"slug": "b"}]})
    assert len(flows) == 2
    assert flows.get("a") is flows.by_slug["a"]
    assert flows.get("c") is None
