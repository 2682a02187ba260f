"""The options of the command line: one that several commands have is stated once."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import wsdcast.cli


def test_an_option_of_several_commands_is_stated_once():
    stated: Counter[str] = Counter()
    for path in Path(wsdcast.cli.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "Annotated":
                stated[ast.unparse(node.slice)] += 1
    assert len(stated) > 40
    assert not (twice := [option for option, count in stated.items() if count > 1]), twice
