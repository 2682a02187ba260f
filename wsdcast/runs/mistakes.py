"""Mistakes in recipes and options, in words."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from wsdcast.runs.names import SAME_SOLVER
from wsdcast.runs.old_names import NEW_NAMES


def types_in(annotation: Any) -> set[Any]:
    """The plain types that an annotation names, at any depth."""
    return {annotation} if isinstance(annotation, type) else set[Any]().union(*map(types_in, get_args(annotation)))


def first_of_each(error: ValidationError) -> list[Any]:
    """The first error of each key. Pydantic may report several for one key, for example for a wrong item of a list."""
    first: dict[Any, Any] = {}
    for item in error.errors():
        first.setdefault(item["loc"][:2], item)
    return list(first.values())


def _option(item: Any) -> str:
    """The command-line option of the key of an error; ``recipe`` if the error concerns several keys together.

    A wrong number of ``days`` can come from Python alone: the option is ``--lead``, a length, and it is read before.
    """
    if item["loc"][-1:] == ("days",):
        return "days"
    return "recipe" if not item["loc"] else f"--{item['loc'][:2][-1].replace('_', '-')}"


def of_key(item: Any, kind: type[BaseModel]) -> str:
    """An error of a key of a recipe of this kind."""
    return f"{'.'.join(map(str, item['loc'])) or 'recipe'}: {reason(item, kind)}"


def of_option(item: Any, kind: type[BaseModel]) -> str:
    """An error of an option, or of a key of a recipe of this kind that does not exist, and so is no option.

    One that begins with the value follows the option as in a command.
    """
    words = reason(item, kind)
    if item["type"] == "extra_forbidden":
        return of_key(item, kind)
    return f"{_option(item)} {words}" if words.startswith("'") else f"{_option(item)}: {words}"


def reason(item: Any, kind: type[BaseModel] | None = None) -> str:
    """What is wrong with a key, in words; of an unknown key of a recipe of this kind also which key was meant."""
    if item["type"] == "extra_forbidden":
        new = NEW_NAMES.get(".".join(map(str, item["loc"]))) or NEW_NAMES.get(str(item["loc"][-1]))
        return f"is called {new} now" if new else f"unknown key{_similar(item['loc'], kind)}"
    if item["type"] == "tuple_type":
        return f"expected a list, not {shown(str(item['input']), item['input'])}"
    if item["loc"][-1:] == ("days",) and item["type"] in ("float_type", "float_parsing"):
        return f"expected a number, such as 1.5, not {shown(repr(item['input']), item['input'])}"
    if item["type"] == "too_short":
        return "expected at least one value"
    if same := SAME_SOLVER.get(str(item["input"])):
        return f"the solver {item['input']} is gone; use {same}"
    words = str(item["msg"]).removeprefix("Value error, ")
    return f"{words[0].lower()}{words[1:]}, not {shown(repr(item['input']), item['input'])}" if item["type"] != "value_error" else words


def shown(text: str, value: Any) -> str:
    """The text of a value; of one that is long, such as a data set, the name of its type."""
    return text if len(text) < 100 and "\n" not in text else type(value).__name__


def _similar(place: tuple[Any, ...], kind: type[BaseModel] | None) -> str:
    """A question for the key that was meant instead of an unknown one; empty if none is known.

    It is the key with the most similar name in the same section, or else one with this very name in other sections.
    """
    *sections, name = place
    section = kind
    for part in sections:
        section = _section(section, part)
    found = [(*sections, similar) for similar in get_close_matches(str(name), section.model_fields, n=1)] if section else []
    if kind and not found:
        found = [(part, name) for part in kind.model_fields if (other := _section(kind, part)) and name in other.model_fields]
    return f"; did you mean {' or '.join('.'.join(map(str, one)) for one in found)}?" if found else ""


def _section(kind: type[BaseModel] | None, name: Any) -> type[BaseModel] | None:
    """The class of a section of a recipe of this kind; None if the name is not that of a section."""
    field = kind.model_fields.get(name) if kind else None
    return next((one for one in types_in(field.annotation) if issubclass(one, BaseModel)), None) if field else None
