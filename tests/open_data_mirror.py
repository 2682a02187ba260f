"""Mirrors of NOAA's and ECMWF's open data in a directory: real GRIB messages on a tiny grid, with indices as the two centres write them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import wind_of
from grib_messages import COLUMNS, ROWS, message, sharing
from servers import Files, serve

from wsdcast.data.sources import open_data
from wsdcast.data.sources.layout import values_of
from wsdcast.data.sources.open_data_layouts import SYSTEMS, paths_of
from wsdcast.data.sources.opening import REMOTE, open_dataset
from wsdcast.data.sources.space import order_of

TIME = np.datetime64("2026-06-02T06", "ns")
OTHER = 280 + np.arange(ROWS * COLUMNS, dtype=float).reshape(ROWS, COLUMNS) / 10
"""The field beside the wind, the same at all times."""
STEP = np.timedelta64(6, "h")


@dataclass
class Mirror:
    """A local server in the place of the public mirrors."""

    root: Path
    url: str
    handler: type[Files]
    cache: Path
    patch: pytest.MonkeyPatch

    def requests(self, path: Path) -> int:
        return self.handler.requests[str(path.relative_to(self.root))]

    def name(self, path: Path) -> str:
        return str(path.relative_to(self.root))

    def roots(self, *urls: str) -> None:
        for system in SYSTEMS:
            self.patch.setenv(f"WSDCAST_{system.upper()}_ROOTS", ",".join(urls))

    def clock(self, text: str) -> None:
        self.patch.setattr(open_data, "_now", lambda: datetime.fromisoformat(text))

    def cached(self) -> list[str]:
        return sorted(path.name for path in self.cache.rglob("*") if path.is_file())


@pytest.fixture(name="mirror")
def mirror_fixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    monkeypatch.setenv("WSDCAST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(
        REMOTE,
        "retry_config",
        {"max_retries": 3, "backoff": {"init_backoff": timedelta(seconds=0.01), "max_backoff": timedelta(seconds=0.02)}},
    )
    (tmp_path / "mirror").mkdir()
    with serve(tmp_path / "mirror") as (url, handler):
        result = Mirror(tmp_path / "mirror", url, handler, tmp_path / "cache", monkeypatch)
        result.roots(url)
        result.clock("2026-06-03T00:40")
        yield result


def read(path: Path) -> np.ndarray:
    with open_dataset(str(path)) as dataset:
        wind = wind_of(dataset)
        rows = order_of(wind["u"].array)[0]
        assert rows.size == wind["u"].array.sizes["latitude"]
        return np.concatenate([values_of(wind[name], np.array([0])) for name in "uv"])


def assert_is_wind(path: Path, time: np.datetime64) -> None:
    np.testing.assert_allclose(read(path), wind_at(time), atol=1e-4)


def wind_at(time: np.datetime64) -> np.ndarray:
    """A wind that is another one at every time and point, (channel, latitude, longitude)."""
    hours = time.astype("datetime64[h]").astype(int)
    return np.random.default_rng(hours).normal(0, 6, (2, ROWS, COLUMNS))


def publish(root: Path, system: str, time: np.datetime64, *, shared: bool = False, valid: np.datetime64 | None = None) -> Path:
    """Write the analysis of a time, with other fields around the wind, and its index. Return the path of the GRIB file.

    In IFS the 2 m temperature lies between u and v. With ``shared``, the two are fields of one message, as in GFS. ``valid`` is the time in
    the messages, where it is not that of the file.
    """
    day, clock = str(valid or time).replace("-", "").split("T")
    when: dict[str, Any] = {"packingType": "grid_ccsds"} if system == "ifs" else {}
    when |= {"dataDate": int(day[:8]), "dataTime": int(clock[:2]) * 100}
    u, v = (message(field, shortName=name, **when) for name, field in zip(("10u", "10v"), wind_at(valid or time), strict=True))
    other = message(OTHER, shortName="2t", **when)
    if system == "ifs":
        parts = {"2d": other, "10u": u, "2t": other, "10v": v, "sp": other}
    elif shared:
        parts = {"TMP:2 m above ground": other, "UGRD:10 m above ground,VGRD:10 m above ground": sharing(u, v), "PRES:surface": other}
    else:
        parts = {"UGRD:planetary boundary layer": other, "UGRD:10 m above ground": u, "VGRD:10 m above ground": v}
    path, index = (root / each for each in paths_of(system, time))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(parts.values()))
    lines, offset = list[str](), 0
    for number, (names, content) in enumerate(parts.items(), start=1):
        for part, name in enumerate(names.split(","), start=1):
            if system == "ifs":
                keys = {"domain": "g", "date": day[:8], "time": clock[:2] + "00", "class": "od", "type": "fc", "stream": "oper"}
                keys |= {"step": "0", "levtype": "sfc", "param": name}
                lines.append(json.dumps(keys | {"_offset": offset, "_length": len(content)}))
            else:
                count = f"{number}.{part}" if "," in names else str(number)
                lines.append(f"{count}:{offset}:d={day[:8]}{clock[:2]}:{name}:anl:")
        offset += len(content)
    index.write_text("\n".join(lines) + "\n")
    return path
