"""Behaviour of graphlib."""

import importlib

import pytest

graphlib = importlib.import_module("library.graphlib")


def levels(graph: dict[int, set[int]]) -> list[set[int]]:
    sorter = graphlib.TopologicalSorter(graph)
    sorter.prepare()
    found = []
    while sorter.is_active():
        ready = sorter.get_ready()
        found.append(set(ready))
        sorter.done(*ready)
    return found


def test_levels() -> None:
    assert levels({2: {11}, 9: {11, 8}, 10: {11, 3}, 11: {7, 5}, 8: {7, 3}}) == [{3, 5, 7}, {8, 11}, {2, 9, 10}]
    assert levels({1: set()}) == [{1}]
    assert levels({}) == []


def test_static_order() -> None:
    assert list(graphlib.TopologicalSorter({3: {2}, 2: {1}}).static_order()) == [1, 2, 3]


def test_cycles_are_told() -> None:
    sorter = graphlib.TopologicalSorter({1: {2}, 2: {3}, 3: {1}, 4: {1}})
    with pytest.raises(graphlib.CycleError) as error:
        sorter.prepare()
    cycle = error.value.args[1]
    assert cycle[0] == cycle[-1]
    assert set(cycle) == {1, 2, 3}


def test_misuse() -> None:
    sorter = graphlib.TopologicalSorter({1: {2}})
    with pytest.raises(ValueError, match="prepare"):
        sorter.get_ready()
    sorter.prepare()
    with pytest.raises(ValueError, match="not passed out"):
        sorter.done(1)
