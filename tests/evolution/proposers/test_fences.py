"""Fenced code in Markdown."""

from __future__ import annotations

import pytest

from evolution.proposers.fences import fenced, find_fences


@pytest.mark.parametrize(
    ("text", "codes", "closed"),
    [
        ("", [], []),
        ("plain `code` text", [], []),
        ("```python\na\n```", ["a\n"], [True]),
        ("```\na\n```\ntext\n~~~py\nb\n~~~", ["a\n", "b\n"], [True, True]),
        ("```python\na\n", ["a\n"], [False]),
        ("````\n```\na\n```\n````", ["```\na\n```\n"], [True]),
        ("```python\na\n````", ["a\n"], [True]),
        ("```python\n    ```\na\n```", ["    ```\na\n"], [True]),
        ("   ```python\n   a\n   ```", ["   a\n"], [True]),
        ("```python\n```", [""], [True]),
        ("use ```python a``` inline", [], []),
        ("```python\na\n``` and more\n```", ["a\n``` and more\n"], [True]),
    ],
)
def test_fences(text: str, codes: list[str], closed: list[bool]) -> None:
    found = find_fences(text)
    assert [fence.code for fence in found] == codes
    assert [fence.closed for fence in found] == closed


def test_headings_and_lines_are_kept() -> None:
    found = find_fences("# Parent program\ntext\n```python\n# not a heading\n```\n## Other ##\n```\nx\n```\n")
    assert [(fence.heading, fence.language, fence.line, fence.is_python) for fence in found] == [
        ("Parent program", "python", 3, True),
        ("Other ##", "", 7, True),
    ]
    assert not find_fences("```diff\n-a\n```")[0].is_python


@pytest.mark.parametrize("code", ["a = 1", 'text = """\n```\n"""', "x = '`````'"])
def test_what_is_fenced_is_found_again(code: str) -> None:
    assert [fence.code for fence in find_fences(fenced(code))] == [code + "\n"]
