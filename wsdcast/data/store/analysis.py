"""The prepared store, as training, forecasting and scoring read it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal

import numpy as np
import zarr
from numpy.typing import NDArray

from wsdcast.data.grid import Grid
from wsdcast.data.steps import STEP, time_text
from wsdcast.data.store.states import PackedStates, StoredStates, read_packed
from wsdcast.data.store.zarr_store import arrays_of, channels_of, open_store, packing_of
from wsdcast.data.variables import DEFAULT, STATIC_FIELDS
from wsdcast.runs.errors import UserError, first_line
from wsdcast.runs.locks import one_at_a_time
from wsdcast.runs.positions import evenly_spread
from wsdcast.runs.resources import free_memory, require_space

Part = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class Analysis:
    """The analyses of a prepared store.

    Attributes:
        states: (time, channel, latitude, longitude), packed, in memory or on disk. Indexing it gives float32 in the units of each channel.
        times: (time,), increasing, 6 h apart except at gaps.
        grid: grid of the states.
        mean, std: mean and standard deviation of each channel over the training split, (channel,), area-weighted.
        difference_std: root mean square difference of states 6 h apart in the training split, (channel,), area-weighted; NaN if not known.
        validation_from, test_from: first times of the validation and of the test split. Everything before is for training.
        static: the static fields that the source had, (latitude, longitude), in the units of
            :data:`wsdcast.data.variables.STATIC_FIELDS`.
        variables: names of the channels that are forecast, in order.
        forcing_variables: names of the further channels, which are read and not forecast. They come after the others.
        statistics_are_stale: whether the store was appended to later, so that dividing it anew would give other splits and statistics.
        past_states: number of states before the state now, 6 h apart, that a forecast from this record needs.
    """

    states: PackedStates | StoredStates
    times: NDArray[np.datetime64]
    grid: Grid
    mean: NDArray[np.float32]
    std: NDArray[np.float32]
    difference_std: NDArray[np.float32]
    validation_from: np.datetime64
    test_from: np.datetime64
    static: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    variables: tuple[str, ...] = DEFAULT
    forcing_variables: tuple[str, ...] = ()
    statistics_are_stale: bool = False
    past_states: int = 1

    def normalise(self, states: NDArray[np.float32]) -> NDArray[np.float32]:
        """Normalise states (..., channel, latitude, longitude) by the mean and standard deviation of each channel."""
        return (states - self.mean[:, None, None]) / self.std[:, None, None]

    def denormalise(self, states: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the inverse of :meth:`normalise`, in the units of each channel."""
        return states * self.std[:, None, None] + self.mean[:, None, None]

    def part(self, part: Part) -> NDArray[np.bool_]:
        """Return which times belong to a split, (time,)."""
        after_validation, after_test = self.times >= self.validation_from, self.times >= self.test_from
        return {"train": ~after_validation & ~after_test, "validation": after_validation & ~after_test, "test": after_test}[part]

    def now(self, part: Part, steps: int = 1) -> NDArray[np.intp]:
        """Return the indices i for which i - ``past_states``, ..., i, ..., i + ``steps`` are all in the split, 6 h apart."""
        inside = self.part(part)
        length = self.past_states + 1 + steps
        if inside.size < length:
            return np.empty(0, dtype=np.intp)
        windows = np.lib.stride_tricks.sliding_window_view
        whole = windows(inside, length).all(axis=1) & (windows(np.diff(self.times), length - 1) == STEP).all(axis=1)
        return np.flatnonzero(whole) + self.past_states

    def starts(self, count: int, steps: int, part: Part = "test") -> NDArray[np.intp]:
        """Return the indices of at most ``count`` initial times, evenly spread over those of a split that have ``steps`` steps of truth.

        Raises:
            UserError: if the split has no such initial time.
        """
        possible = self.now(part, steps)
        if not possible.size:
            raise UserError(f"no initial time in the {part} split has {steps * 6} h of gap-free truth after it; shorten the forecast")
        return possible[evenly_spread(possible.size, count)]


def open_analysis(path: Path, whole: bool = True, copies: int = 1, past_states: int = 1) -> Analysis:
    """Open a prepared store.

    Args:
        path: path of the store.
        whole: whether all states are read now. Otherwise each state is read when it is indexed, which is better for a few states.
        copies: how many processes of this machine open the store at the same time.
        past_states: the recipe's ``forcings.past_states``, where the record is for its networks.

    Raises:
        UserError: if the store does not exist, was not written by `wsdcast prepare` or is damaged, or its mapped file does not fit on the
            disk.
    """
    if not path.is_dir():
        raise UserError(f"{path} is not there; run `wsdcast prepare` first")
    try:
        with open_store(path) as dataset:
            normalisation, stale = dataset.attrs["normalisation"], dataset.attrs["statistics_are_stale"]
            channels = channels_of(path)
            _require_files(path, channels.all)
            return Analysis(
                states=_read_states(path, copies) if whole else StoredStates(tuple(arrays_of(path)), packing_of(path)),
                times=dataset["time"].values.astype("datetime64[ns]"),
                grid=Grid(dataset["latitude"].values, dataset["longitude"].values),
                mean=np.array([normalisation[name]["mean"] for name in channels.all], dtype=np.float32),
                std=np.array([normalisation[name]["std"] for name in channels.all], dtype=np.float32),
                difference_std=np.array([normalisation[name].get("difference_std", np.nan) for name in channels.all], dtype=np.float32),
                validation_from=np.datetime64(dataset.attrs["validation_from"], "ns"),
                test_from=np.datetime64(dataset.attrs["test_from"], "ns"),
                static={name: dataset[name].values for name in STATIC_FIELDS if name in dataset},
                variables=channels.state,
                forcing_variables=channels.forcings,
                statistics_are_stale=stale,
                past_states=past_states,
            )
    except (UserError, OSError, MemoryError):
        raise
    except KeyError as error:
        raise UserError(f"{path}: not a store that `wsdcast prepare` wrote (no {error})") from None
    except Exception as error:  # damaged metadata cause errors of many types
        raise UserError(f"{path}: cannot be read ({first_line(error)}); if it is damaged, move it away and prepare again") from None


def _require_files(path: Path, names: tuple[str, ...]) -> None:
    """Raise a UserError if a file of the states is missing. zarr would read it as zeros."""
    for name in names:
        array = zarr.open_array(path / name, mode="r")
        for shard in range(-(-array.shape[0] // (array.shards or array.chunks)[0])):
            if not (path / name / f"c/{shard}/0/0").exists():
                raise UserError(f"{path / name}: the file c/{shard}/0/0 is missing; remove the store and prepare again")


def _read_states(path: Path, copies: int) -> PackedStates:
    """Read the states into memory if all copies need less than half of the free memory; otherwise map it from a file next to the store.

    If several processes need the file, one of them writes it and the others wait.

    Raises:
        UserError: if the disk has no room for the file.
    """
    size = sum(2 * array.size for array in arrays_of(path))  # bytes of int16
    if copies * size < free_memory() / 2:
        return read_packed(path)
    mapped, metadata = path.with_name(f".{path.stem}.mapped.npy"), path / "zarr.json"
    with one_at_a_time(mapped.with_suffix(".lock")):
        # Its time is that of the store it was made from. A store that is put in the place of that one may well be older.
        changed = metadata.stat().st_mtime_ns
        if not mapped.exists() or mapped.stat().st_mtime_ns != changed:
            partial = mapped.with_suffix(".partial.npy")
            require_space(path.parent, size)
            read_packed(path, mapped=partial)
            os.utime(partial, ns=(changed, changed))
            partial.replace(mapped)
    return PackedStates(np.load(mapped, mmap_mode="r"), packing_of(path))


def split(
    times: NDArray[np.datetime64], validation_from: datetime | None, test_from: datetime | None
) -> tuple[np.datetime64, np.datetime64]:
    """Return the first times of the validation and test splits.

    They are the times given (UTC). By default validation begins at the last fifth of the record and test at the last tenth, which is
    at least 3 steps.

    Raises:
        UserError: if the record has fewer than 6 steps, or the training or test split would have fewer than 3.
    """
    if times.size < 6:
        raise UserError(f"a record of {times.size} steps is too short to be divided into training and test splits")
    test = np.datetime64(test_from, "ns") if test_from else times[-max(3, times.size // 10)]
    validation = np.datetime64(validation_from, "ns") if validation_from else times[-max(3, times.size // 5)]
    validation = min(validation, test)
    for name, count in (("training", (times < validation).sum()), ("test", (times >= test).sum())):
        if count < 3:
            raise UserError(
                f"the {name} split has {count} steps of the record from {time_text(times[0])} to "
                f"{time_text(times[-1])}; set data.validation_from and data.test_from in the recipe"
            )
    return validation, test
