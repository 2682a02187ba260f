"""What a stage did, in values that the command line and a notebook show."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from typing import Any


@dataclass
class Summary:
    """What a stage did. The command line prints it as a table or as JSON, a notebook as tables.

    Attributes:
        stage: name of the stage.
        written: path of each artefact and what it holds; empty if all artefacts were current.
        facts: other information for the user.
        scores: rows of the table of scores, for stages that score or compare.
        problems: problems of a source, only for ``prepare --check``.
    """

    stage: str
    written: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    scores: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def _repr_html_(self) -> str:
        """The tables that a notebook shows."""
        import pandas as pd

        written = [("written", f"{path}: {content}") for path, content in self.written.items()]
        rows = [*self.facts.items(), *written, *(("problem", problem) for problem in self.problems)]
        cells = (f"<tr><th>{escape(str(name))}</th><td style='text-align: left'>{escape(str(value))}</td></tr>" for name, value in rows)
        scores = pd.DataFrame(self.scores).to_html(index=False, float_format="{:.4g}".format) if self.scores else ""
        return f"<table><caption>wsdcast {escape(self.stage)}</caption>{''.join(cells)}</table>{scores}"
