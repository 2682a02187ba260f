"""Recipe keys changed on the command line: ``-o section.key=value``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

from wsdcast.runs.errors import UserError, first_line
from wsdcast.runs.mistakes import of_option
from wsdcast.runs.recipes import Kind, checked, set_key, with_keys
from wsdcast.runs.yaml_text import yaml_of


@dataclass(frozen=True)
class Overridden:
    """A recipe with changed keys. Stages accept it in place of a recipe's path or name.

    Attributes:
        recipe: path or name of the recipe. None means the recipe of the newest artefact in the run directory, else the default recipe.
        values: the new value of each key. Keys have dots, such as ``generator.times.mean``.
    """

    recipe: str | Path | None
    values: Mapping[str, Any]


def parsed(overrides: Sequence[str]) -> dict[str, Any]:
    """Parse overrides of the form ``key=value``, whose values are YAML. If a key is given twice, the last value counts.

    Raises:
        UserError: if an override has no key or no ``=``, or its value is not YAML.
    """
    values: dict[str, Any] = {}
    for override in overrides:
        key, equals, text = override.partition("=")
        if not key or not equals:
            raise UserError(f"-o {override}: expected KEY=VALUE, such as rollout.nfe=4")
        try:
            values[key] = yaml_of(text)
        except ValueError as error:
            raise UserError(f"-o {key}: the value cannot be read ({first_line(error)})") from None
    return values


def overridden(recipe: Kind, values: Mapping[str, Any], changes: Mapping[str, Any], where: str = "-o") -> Kind:
    """A copy of a recipe with new values.

    Args:
        recipe: the recipe.
        values: new value of each key, as in :class:`Overridden`.
        changes: what other options of the command change, as for :meth:`Experiment.changed`.
        where: says where the values come from; it begins the message of an error.

    Raises:
        UserError: if a key is unknown, is a whole section or has another value in ``changes``, or if a value is not allowed.
    """
    content = recipe.model_dump()
    for key, value in values.items():
        set_key(content, recipe, key, ".", value, f"{where} ")
    new = checked(content, where.removesuffix(":"), type(recipe)) if values else recipe
    changed = with_keys(new, changes, of_option)
    given = {name.replace("__", ".") for name, value in changes.items() if value is not None}
    for key in values:
        # Compared as the recipe reads them: an option gives a list of words where YAML gives one of numbers.
        if key in given and attrgetter(key)(changed) != attrgetter(key)(new):
            raise UserError(f"-o {key}: another option of this command, or the command itself, sets this key too; leave out one of them")
    return changed
