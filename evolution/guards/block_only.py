"""Only the block may change: the rest of the file keeps every byte and every statement."""

from __future__ import annotations

import ast

from evolution.guards.places import approval, refusal, unparsable
from evolution.guards.report import GuardReport
from frameworks.program import ProgramError, parse_block, splice_block, split_source
from frameworks.registry import Framework

NAME = "block_only"


def check(block: str, framework: Framework) -> GuardReport:
    """Splice the block into the pristine file and compare what lies outside, as text and as syntax."""
    pristine = framework.pristine
    head, shipped, tail = split_source(pristine)
    try:
        tree = parse_block(block)
        source = splice_block(pristine, block)
    except ProgramError as error:
        return unparsable(NAME, error)
    if not (source.startswith(head) and source.endswith(tail)):
        return refusal(NAME, None, "the file outside the markers changes", "only text between the markers may change")
    if _outside(source, len(tree.body)) != _outside(pristine, len(parse_block(shipped).body)):
        return refusal(NAME, None, "the block changes how the rest of the file reads", "a block is whole statements")
    return approval(NAME)


def _outside(source: str, in_block: int) -> list[str]:
    """Dumps of the file's statements without the `in_block` ones between the markers."""
    head = split_source(source)[0].count("\n")
    body = ast.parse(source).body
    before = [node for node in body if node.lineno <= head]
    return [ast.dump(node) for node in before + body[len(before) + in_block :]]
