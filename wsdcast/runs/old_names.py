"""Keys of recipes that were renamed or are gone, so that artefacts of older versions stay readable."""

from __future__ import annotations

from typing import Any

from wsdcast.runs.names import SAME_SOLVER

NEW_NAMES = {
    "rate": "learning_rate",
    "warm_up": "warmup_steps",
    "clip": "gradient_clip",
    "average": "ema_decay",
    "recompute": "activation_checkpointing",
    "training.every": "training.validate_every",
    "training.keep": "training.keep_checkpoints",
    "context": "forcings",
}
"""New name of each key of version 0.1.0 that was renamed. The old key is written as ``key`` or as ``section.key``."""

GONE: dict[str, Any] = {"moments.rank": 0}
"""Keys of version 0.1.0 that are gone, with the value that changes nothing. Artefacts with that value stay readable."""


def with_new_names(content: dict[str, Any], section: str = "") -> dict[str, Any]:
    """The same keys and values, with the keys and solvers of version 0.1.0 replaced. Artefacts of that version stay readable."""
    renamed = {}
    for key, value in content.items():
        if GONE.get(f"{section}.{key}", object()) == value:
            continue
        if (section, key) == ("study", "variants"):  # names that users gave, and keys of this version
            renamed[key] = value
            continue
        new = NEW_NAMES.get(f"{section}.{key}") or (NEW_NAMES.get(key) if section or isinstance(value, dict) else None)
        if key == "solver":
            value = SAME_SOLVER.get(value, value)
        elif key == "solvers":
            value = list(dict.fromkeys(SAME_SOLVER.get(solver, solver) for solver in value))
        renamed[new.rpartition(".")[2] if new else key] = with_new_names(value, key) if isinstance(value, dict) else value
    return renamed
