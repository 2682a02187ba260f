"""``wsdcast bench``: the form of what it prints, and that the generated source is read as any other."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from wsdcast.bench import prepare
from wsdcast.cli import app
from wsdcast.data.blocks import read_block
from wsdcast.data.record import open_record

FORM = {"name", "limit", "ratio_to_limit", "peers", "figures", "machine"}


@pytest.fixture
def small(monkeypatch):
    """A tenth of the real size, so that the benchmark takes a second."""
    monkeypatch.setattr(prepare, "SOURCE", "144x73")
    monkeypatch.setattr(prepare, "TARGET", "24x13")


@pytest.mark.filterwarnings("ignore")  # of xarray-regrid, about itself
def test_bench_prepare(small):
    printed = CliRunner().invoke(app, ["bench", "prepare", "--years", "0.5", "--json"], catch_exceptions=False)
    found = json.loads(printed.stdout)
    assert set(found) == FORM
    assert found["name"] == "prepare"
    assert "two bare sparse products" in found["limit"]
    assert found["ratio_to_limit"] > 0
    assert set(found["peers"]) == ({"xarray-regrid"} if find_spec("xarray_regrid") else set())
    assert found["figures"]["record"].startswith("730 steps of 144x73")
    assert "to 2 shards" in found["figures"]["record"]
    assert (
        found["figures"]["peak memory, GiB"]
        >= max(float(entry.split(" @ ")[0]) for entry in found["figures"]["memory, GiB after s"].split(", ")) - 0.005
    )
    table = CliRunner().invoke(app, ["bench", "prepare", "--years", "0.05"], catch_exceptions=False).stdout
    assert "time / limit's time" in table


def test_the_generated_source_is_read_as_any_other(small, tmp_path):
    record = open_record(prepare._generated(40), Path(tmp_path))
    assert record.problems == []
    assert record.times.size == 40
    values = {name: field for block in record.blocks() for name, field in read_block(block)}
    assert values["u"].shape == (40, 73, 144)
    np.testing.assert_array_equal(values["u"][0], values["u"][prepare.KINDS])
    assert not np.array_equal(values["u"][0], values["u"][1])
