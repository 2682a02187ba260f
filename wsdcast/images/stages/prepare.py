"""The prepare stage: brings the images of a source into one memory-mapped file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from wsdcast.images.data.store import prepare_images
from wsdcast.images.recipe import ImageRecipe
from wsdcast.runs.artefact import is_current, make_stamp, resolve
from wsdcast.runs.complete import complete
from wsdcast.runs.inputs import require_no_input
from wsdcast.runs.locks import alone
from wsdcast.runs.names import IMAGES
from wsdcast.runs.overrides import Overridden
from wsdcast.runs.recipes import digest_of
from wsdcast.runs.summary import Summary


def prepare(
    recipe: str | Path | ImageRecipe | Overridden | None = None,
    run: str | Path | None = None,
    *,
    overwrite: bool = False,
    **changes: Any,
) -> Summary:
    """Bring images to one size, and write them to ``RUN/images``, split into training, validation and test images.

    Args:
        recipe: path or name of a recipe; default: that of the images already in the run directory, else ``made``.
        run: run directory; default ``runs/<recipe name>``.
        overwrite: replace images of another recipe or source.
        changes: keys of the recipe's section ``data``, such as ``source``.

    Raises:
        UserError: if the source cannot be used. Images that were prepared before are kept.
    """
    resolved, directory = resolve(recipe, run, ImageRecipe, IMAGES, **{f"data__{key}": value for key, value in changes.items()})
    data, summary = resolved.data, Summary("inpaint prepare")
    # The pictures in a run directory would be images of its own source.
    require_no_input([directory / IMAGES], [data.source, *filter(None, [data.test])], "", "another --run")
    fingerprint = digest_of([_state(Path(source)) for source in (data.source, data.test) if source is not None])
    if is_current(resolved, directory, IMAGES, overwrite, fingerprint):
        summary.facts["current"] = str(directory / IMAGES)
        return summary
    with alone(directory), complete(directory / IMAGES) as partial:
        summary.facts |= prepare_images(partial, data)
        (partial / "stamp.json").write_text(json.dumps(make_stamp(resolved, directory, IMAGES, fingerprint), indent=2))
    summary.written[str(directory / IMAGES)] = "images.npy, uint8, to be mapped into memory"
    return summary


def _state(source: Path) -> list[int]:
    """Return count, total size and latest modification time of a source's files; zeros if the source is made or downloaded."""
    files = [path for path in (source, *source.rglob("*")) if path.is_file()]
    states = [path.stat() for path in files]
    return [len(states), sum(state.st_size for state in states), max((state.st_mtime_ns for state in states), default=0)]
