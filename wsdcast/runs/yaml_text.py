"""YAML, the text of recipes and of ``-o``.

PyYAML reads version 1.1, where 010 is 8, 12:30 is 750, ``no`` is false and 1e-4 is a text. Here plain values are those of version 1.2 (its
core schema, https://yaml.org/spec/1.2.2/#103-core-schema), and the merge key ``<<`` of 1.1. A time is a text.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from wsdcast.runs.errors import first_line

MOST_VALUES = 20_000
"""The most values of a text, those of aliases counted wherever they stand. A few lines of aliases of aliases would fill any memory."""


class _Loader(yaml.SafeLoader):
    """Reads a YAML document."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (the base class has no annotation)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        text = self.construct_scalar(node)
        return int(text, 0 if text[:2] in ("0o", "0x") else 10)


class _Dumper(yaml.SafeDumper):
    """Writes texts in quotes that either version would read as something else."""


for _tag, _pattern, _first in (
    ("null", r"|~|null|Null|NULL", ["", "~", "n", "N"]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", list("-+.0123456789")),
    ("merge", r"<<", ["<"]),
):
    for _kind in (_Loader, _Dumper):
        _kind.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})\Z"), _first)
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


def yaml_of(text: str) -> Any:
    """The content of a YAML document.

    Raises:
        ValueError: if it cannot be read, has a key twice, or more than ``MOST_VALUES`` values.
    """
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _check(node)
        return loader.construct_document(node)
    except (AttributeError, LookupError):
        raise ValueError("a value does not fit its tag, such as !!bool maybe") from None
    except RecursionError:
        raise ValueError("its values are nested too deeply") from None
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise ValueError(f"{line}{', '.join(filter(None, (error.context, error.problem)))}") from None
    except yaml.YAMLError as error:  # a character that YAML does not allow
        raise ValueError(first_line(error)) from None


def as_yaml(content: Any) -> str:
    """The YAML document that :func:`yaml_of` reads as this content, also by version 1.1. Keys keep their order."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False)


def _check(document: yaml.Node) -> None:
    """Check the values of a document before they are made.

    Raises:
        ValueError: if a mapping has a key twice, of which YAML would take the last, or there are too many values.
    """
    waiting, count = [document], 0
    while waiting:
        node, count = waiting.pop(), count + 1
        if count > MOST_VALUES:
            raise ValueError(f"it has more than {MOST_VALUES} values, those of aliases counted at each place")
        if isinstance(node, yaml.MappingNode):
            names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            if len(set(names)) < len(names):
                raise ValueError(f"{next(name for name in names if names.count(name) > 1)} is there twice")
            waiting += (value for _, value in node.value)
        elif isinstance(node, yaml.SequenceNode):
            waiting += node.value
