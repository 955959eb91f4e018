"""The path through ChatGPT's tree (specification 2)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.exports.examples import node, texts


def _tree(current: Any = None, **nodes: Any) -> dict[str, Any]:
    return {"mapping": nodes, "current_node": current}


def test_the_conversation_is_the_path_from_current_node_up_to_the_root() -> None:
    tree = _tree(
        "c",
        c=node("c", "b"),
        a=node("a", None, ["b", "edited"]),
        b=node("b", "a", ["c", "again"]),
        edited=node("edited", "a"),
        again=node("again", "b"),
    )
    assert texts(tree) == ["a", "b", "c"]


def test_what_was_said_below_current_node_is_not_in_the_conversation() -> None:
    assert texts(_tree("a", a=node("a", None, ["b"]), b=node("b", "a"))) == ["a"]


def test_times_of_messages_dont_matter() -> None:
    assert texts(_tree("b", a=node("a", None, ["b"], create_time=9), b=node("b", "a", create_time=1))) == ["a", "b"]


@pytest.mark.parametrize("current", [None, "gone", "", 7, ["a"], {"a": 1}, True])
def test_without_a_valid_current_node_the_way_leads_to_the_last_child(current: Any) -> None:
    tree = _tree(
        current,
        root=node(None, None, ["a", "b"]),
        a=node("a", "root"),
        b=node("b", "root", ["c", "d"]),
        c=node("c", "b"),
        d=node("d", "b"),
    )
    assert texts(tree) == ["b", "d"]


def test_the_root_is_the_first_node_with_a_child_and_no_existing_parent() -> None:
    tree = _tree(
        lonely=node("lonely"),
        listed=node("listed", None, ["x"]),
        x=node("x", "listed"),
        top=node("top", "gone", ["listed"]),
        other=node("other", None, ["y"]),
        y=node("y", "other"),
    )
    assert texts(tree) == ["top", "listed", "x"]


def test_a_root_may_have_a_child_by_the_childs_own_word_alone() -> None:
    assert texts(_tree(b=node("b", "a"), lonely=node("l"), a=node("a"))) == ["a", "b"]


def test_without_any_root_the_way_begins_at_the_first_node() -> None:
    assert texts(_tree(a=node("a", "b", ["b"]), b=node("b", "a", ["a"]))) == ["a", "b"]


def test_children_that_are_listed_win_over_nodes_that_name_their_parent() -> None:
    assert texts(_tree(a=node("a", None, ["b"]), b=node("b"), c=node("c", "a"))) == ["a", "b"]


def test_listed_children_that_dont_exist_are_no_children() -> None:
    assert texts(_tree(a=node("a", None, ["b", "gone"]), b=node("b", "a"))) == ["a", "b"]
    assert texts(_tree(a=node("a", None, ["gone"]), b=node("b", "a"), c=node("c", "a"))) == ["a", "c"]


def test_a_mapping_without_any_link_is_read_in_file_order() -> None:
    assert texts(_tree(b=node("b"), a=node("a", "gone"), c=node("c", None, ["gone"]))) == ["b", "a", "c"]


def test_a_cycle_ends_the_walk() -> None:
    assert texts(_tree("c", a=node("a", "c"), b=node("b", "a"), c=node("c", "b"))) == ["a", "b", "c"]
    assert texts(_tree("a", a=node("a", "a"))) == ["a"]
    assert texts(_tree(r=node("r", None, ["a"]), a=node("a", "r", ["b"]), b=node("b", "a", ["r"]))) == ["r", "a", "b"]


def test_a_missing_parent_ends_the_walk() -> None:
    assert texts(_tree("b", x=node("x", None, ["b"]), b=node("b", "gone"))) == ["b"]


@pytest.mark.parametrize("broken", [None, 7, "text", ["list"]])
def test_a_node_that_is_no_object_costs_its_own_message_alone(broken: Any) -> None:
    assert texts(_tree("c", a=node("a", None, ["b"]), b=broken, c=node("c", "b"))) == ["a", "c"]
    assert texts(_tree(None, a=node("a", None, ["b"]), b=broken, c=node("c", "b"))) == ["a", "c"]


@pytest.mark.parametrize("message", [7, "text", ["list"], {}, {"author": "user"}, {"author": {"role": "user"}, "content": 5}])
def test_a_malformed_message_costs_itself_alone(message: Any) -> None:
    tree = _tree("c", a=node("a", None, ["b"]), b={"message": message, "parent": "a", "children": ["c"]}, c=node("c", "b"))
    assert texts(tree) == ["a", "c"]


@pytest.mark.parametrize("wrong", [7, True, {"a": 1}, [["a"]]])
def test_links_of_the_wrong_type_count_as_absent(wrong: Any) -> None:
    assert texts(_tree("b", a=node("a"), b={**node("b"), "parent": wrong})) == ["b"]
    assert texts(_tree(None, a={**node("a"), "children": wrong}, b=node("b", "a"))) == ["a", "b"]
    assert texts(_tree(None, a={**node("a"), "children": [wrong, "b"]}, b=node("b", "a"))) == ["a", "b"]


def test_a_long_conversation_is_walked_without_recursion() -> None:
    nodes = {str(n): node(str(n), str(n - 1) if n else None, [str(n + 1)]) for n in range(5_000)}
    assert texts({"mapping": nodes, "current_node": "4999"}) == texts({"mapping": nodes}) == [str(n) for n in range(5_000)]


def test_children_that_are_many_are_children() -> None:
    """A node of more than 1 MiB is reduced before it is decoded."""
    ids = [f"{number:036d}" for number in range(30_000)]
    nodes = {"root": node("root", None, ids), **{each: node(None) for each in ids}}
    nodes |= {ids[0]: node("other"), ids[-1]: node("last")}
    assert texts(_tree(**nodes)) == ["root", "last"]
