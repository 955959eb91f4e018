"""Each guarantee has tests that name it, and the page about them is up to date."""

from __future__ import annotations

from tests.guarantees import PAGE, marked, page


def test_each_guarantee_is_named_by_a_test() -> None:
    assert [guarantee for guarantee, tests in marked().items() if not tests] == []


def test_the_page_about_guarantees_lists_the_tests_that_name_them() -> None:
    """`python -m tests.guarantees` writes the list."""
    assert PAGE.read_text(encoding="utf-8") == page()
