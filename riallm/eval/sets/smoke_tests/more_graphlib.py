"""More behaviour of graphlib."""

import importlib

import pytest

graphlib = importlib.import_module("library.graphlib")


def test_added_piece_by_piece() -> None:
    sorter = graphlib.TopologicalSorter()
    sorter.add(3, 1, 2)
    sorter.add(3, 2)
    sorter.add(4, 3)
    assert list(sorter.static_order())[2:] == [3, 4]


def test_done_once_only() -> None:
    sorter = graphlib.TopologicalSorter({2: {1}})
    sorter.prepare()
    assert sorter.get_ready() == (1,)
    assert sorter.get_ready() == ()
    sorter.done(1)
    with pytest.raises(ValueError, match="already marked done"):
        sorter.done(1)
    with pytest.raises(ValueError, match="not added"):
        sorter.done(99)
    assert sorter.is_active()
    assert sorter.get_ready() == (2,)
    assert bool(sorter)
    sorter.done(2)
    assert not sorter


def test_no_adding_after_prepare() -> None:
    sorter = graphlib.TopologicalSorter({1: set()})
    sorter.prepare()
    with pytest.raises(ValueError, match="cannot be added"):
        sorter.add(5)


def test_wide_and_self() -> None:
    wide = {n: {0} for n in range(1, 50)}
    assert set(graphlib.TopologicalSorter(wide).static_order()) == set(range(50))
    with pytest.raises(graphlib.CycleError):
        list(graphlib.TopologicalSorter({1: {1}}).static_order())
