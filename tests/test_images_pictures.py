"""Pictures show exactly the given pixels, and the page of a study shows every setting."""

from __future__ import annotations

import html
import re
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from wsdcast.images.data import tasks
from wsdcast.images.pictures import HIDDEN, MOST_STATES, same_noise, sample_grid, sampling_process
from wsdcast.study.figures import by_evaluations, by_solver
from wsdcast.study.images_figures import by_visible_share
from wsdcast.study.images_page import write_image_study_page

SIZE = 8


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(0)


def pixels(random: np.random.Generator, *shape: int) -> np.ndarray:
    return random.integers(0, 256, (*shape, SIZE, SIZE, 3), dtype=np.uint8)


def as_data(images: np.ndarray) -> np.ndarray:
    return np.moveaxis(images, -1, -3) / 127.5 - 1


def contexts(images: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the masked images and the mask, (..., channel + 1, height, width)."""
    mask = np.broadcast_to(mask, (*images.shape[:-3], 1, *mask.shape))
    return np.concatenate([as_data(images) * mask, mask], axis=-3)


def drawn(figure: Figure) -> list[np.ndarray]:
    return [np.asarray(image.get_array()) for image in figure.axes[0].images]


def words(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.texts]


@pytest.fixture
def mask() -> np.ndarray:
    return (np.arange(SIZE * SIZE).reshape(SIZE, SIZE) % 3 == 0).astype(np.float32)


def test_a_grid_of_samples_shows_the_given_pixels(random, mask):
    truth, samples, means = pixels(random, 2), pixels(random, 2, 3), pixels(random, 2)
    std = random.uniform(0.1, 1, (2, 3, SIZE, SIZE))
    figure = sample_grid(contexts(truth, mask), truth, as_data(means), std, samples)
    panels = drawn(figure)
    assert len(panels) == 2 * 7
    for row, (context, mean, spread, *shown_samples, last) in enumerate((panels[:7], panels[7:])):
        np.testing.assert_array_equal(context[mask == 1], truth[row][mask == 1])
        assert np.unique(context[mask == 0]).tolist() == [HIDDEN]
        np.testing.assert_array_equal(mean, means[row])
        np.testing.assert_array_equal(shown_samples, samples[row])
        np.testing.assert_array_equal(last, truth[row])
        grey = 255 * np.sqrt((std[row] ** 2).mean(axis=0)) / std.max()
        np.testing.assert_allclose(spread, np.repeat(grey[:, :, None], 3, axis=2), atol=0.51)
    assert words(figure) == [
        "context",
        "mean",
        "standard\ndeviation",
        "truth",
        "sample 1",
        "sample 2",
        "sample 3",
        f"black 0,\nwhite {std.max():.2g}",
    ]


def test_each_pixel_is_drawn_as_a_square_of_whole_pixels(random, mask):
    truth, samples = pixels(random, 2), pixels(random, 2, 3)
    figure = sample_grid(contexts(truth, mask), truth, as_data(truth), np.ones((2, 3, SIZE, SIZE)), samples)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    page = np.asarray(canvas.buffer_rgba())[:, :, :3]
    for image in figure.axes[0].images:
        left, right, bottom, top = image.get_extent()
        scale = (right - left) // SIZE
        np.testing.assert_array_equal(page[top:bottom, left:right], np.kron(image.get_array(), np.ones((scale, scale, 1))))


@pytest.mark.parametrize(("size", "rows", "samples"), [(32, 6, 6), (64, 12, 8), (256, 4, 6), (16, 1, 1), (16, 24, 1), (8, 1, 24)])
def test_no_figure_is_larger_than_a_screen(size, rows, samples):
    images = np.zeros((rows, samples, size, size, 1), np.uint8)
    values = np.zeros((rows, 1, size, size))
    figure = sample_grid(np.repeat(values, 2, axis=1), images[:, 0], values, values + 1, images)
    assert (figure.get_size_inches() * figure.dpi <= 2001).all()


def test_contexts_without_known_pixels_are_drawn_unchanged(random):
    images = torch.from_numpy(as_data(pixels(random, 1))).float()
    coarse = tasks.super_resolution(images, torch.Generator(), factor=4)[0].numpy()
    truth = pixels(random)
    context, *_ = drawn(same_noise(coarse[None], truth[None], {"samples": {2: truth[None]}}))
    np.testing.assert_array_equal(context, np.round(np.moveaxis(coarse[:-1], 0, -1) * 127.5 + 127.5))
    assert np.unique(context).size > 10


def test_grey_images_are_drawn_in_grey(random):
    grey = random.integers(0, 256, (1, SIZE, SIZE, 1), dtype=np.uint8)
    panels = drawn(sample_grid(contexts(grey, np.ones((SIZE, SIZE))), grey, as_data(grey), as_data(grey) + 2, grey[:, None]))
    assert panels[0].shape == (SIZE, SIZE, 3)
    for number in (0, 1, 3, 4):
        np.testing.assert_array_equal(panels[number], np.repeat(grey[0], 3, axis=2))


def test_the_sampling_process_is_drawn_in_both_spaces(random, mask):
    truth, states = pixels(random), pixels(random, 5)
    std = np.full((3, SIZE, SIZE), 0.25)
    normalised = np.broadcast_to(np.array([-6, -3, 0, 1, 3.0])[:, None, None, None], (5, 3, SIZE, SIZE))
    beyond = as_data(states).copy()
    beyond[0] *= 3
    times = np.array([0, 0.1, 0.25, 0.7, 1])
    figure = sampling_process(contexts(truth, mask), truth, as_data(truth), std, normalised, beyond, times)
    context, mean, spread, last, *process = drawn(figure)
    assert np.unique(context[mask == 0]).tolist() == [HIDDEN]
    np.testing.assert_array_equal(mean, truth)
    np.testing.assert_array_equal(last, truth)
    assert np.unique(spread).tolist() == [255]
    assert [np.unique(image).tolist() for image in process[::2]] == [[0], [0], [128], [170], [255]]
    np.testing.assert_array_equal(process[3::2], states[1:])
    np.testing.assert_array_equal(process[1], np.round((3 * (states[0] / 127.5 - 1)).clip(-1, 1) * 127.5 + 127.5))
    assert [text for text in words(figure) if re.fullmatch(r"(flow time\n)?[\d.]+", text)] == ["flow time\n0", "0.1", "0.25", "0.7", "1"]
    assert "standard deviation,\nblack 0, white 0.25" in words(figure)


def test_a_long_process_is_drawn_at_evenly_spaced_states(random, mask):
    truth, states = pixels(random), pixels(random, 101)
    ones = np.ones((3, SIZE, SIZE))
    figure = sampling_process(contexts(truth, mask), truth, ones, ones, as_data(states), as_data(states), np.linspace(0, 1, 101))
    shown = drawn(figure)[5::2]
    np.testing.assert_array_equal(shown, states[:: 100 // (MOST_STATES - 1)])
    np.testing.assert_array_equal(shown[0], states[0])
    np.testing.assert_array_equal(shown[-1], states[-1])


@pytest.mark.parametrize("states", [2, 3, 21])
@pytest.mark.parametrize("size", [8, 32])
def test_no_text_of_the_sampling_process_covers_another(random, states, size):
    truth = random.integers(0, 256, (size, size, 3), dtype=np.uint8)
    values, ones = np.zeros((states, 3, size, size)), np.ones((3, size, size))
    context = np.concatenate([as_data(truth), np.ones((1, size, size))])
    figure = sampling_process(context, truth, ones, ones, values, values, np.linspace(0, 1, states))
    canvas = FigureCanvasAgg(figure)
    boxes = [text.get_window_extent(canvas.get_renderer()) for text in figure.texts]
    width, height = canvas.get_width_height()
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    assert all(box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height for box in boxes)


def test_samples_of_the_same_noise_stand_in_the_row_of_their_prior(random, mask):
    truth = pixels(random, 2)
    samples = {"standard": {12: pixels(random, 2), 2: pixels(random, 2)}, "warm": {2: pixels(random, 2), 6: pixels(random, 2)}}
    figure = same_noise(contexts(truth, mask), truth, samples)
    panels = {(left, top): image.get_array() for image in figure.axes[0].images for left, _, _, top in [image.get_extent()]}
    columns = sorted({x for x, _ in panels})[1:-1]
    rows = sorted({y for x, y in panels if x in columns})
    assert [text for text in words(figure) if re.search(r"\d", text)] == ["evaluations\n2", "6", "12"]
    assert [text.get_text() for text in figure.texts if text.get_rotation() == 90] == ["standard", "warm"] * 2
    assert len(rows) == 4
    for (block, prior), y in zip(product(range(2), samples), rows, strict=True):
        for nfe, x in zip((2, 6, 12), columns, strict=True):
            if nfe in samples[prior]:
                np.testing.assert_array_equal(panels[x, y], samples[prior][nfe][block])
            else:
                assert (x, y) not in panels


SCORES = ("classifier_distance", "crps", "psnr", "diversity", "power_deviation", "consistency", "spread_skill")


def synthetic(shares=(0.01, 0.1, 0.5), nfe=(2, 4, 6, 12, 50), seeds=3) -> xr.Dataset:
    """Return a study with made-up scores."""
    random = np.random.default_rng(0)
    solvers = (("midpoint", "uniform"), ("dpm3", "log-snr"))
    settings = [
        ("curve", prior, *solver, 0.0 if prior == "standard" else 0.9, 0.1, number, solver == solvers[number > 6])
        for prior in ("standard", "warm", "features-only", "<i>mine</i>")
        for solver in solvers
        for number in nfe
    ]
    settings += [
        ("sensitivity", prior, *solvers[0], warmth, share, number, False)
        for number in (4, 50)
        for share in shares
        for prior, warmths in (("standard", [0.0]), ("warm", [0.2, 0.6, 0.9]))
        for warmth in warmths
    ]
    names = ("kind", "prior", "solver", "grid_in_time", "warmth", "visible", "nfe")
    columns = list(zip(*settings, strict=True))
    study = xr.Dataset(coords={name: ("setting", list(column)) for name, column in zip(names, columns[:-1], strict=True)})
    study["best"] = "setting", list(columns[-1])
    study["diverged"], study["diverged_validation"] = 0 * study["nfe"], 0 * study["nfe"]
    study["cost"] = study["nfe"] + xr.where(study["prior"] == "standard", 0, 0.17)
    start = xr.where(study["prior"] == "warm", 6, 20) / (study["visible"] / 0.1)
    for position, score in enumerate(SCORES):
        mean = (start / study["nfe"] + 1 + (study["solver"] == "dpm3") * 0.3 * start / study["nfe"]) * (position + 1)
        by_seed = mean * xr.DataArray(1 + 0.05 * random.standard_normal((study.sizes["setting"], seeds)), dims=("setting", "seed"))
        study[f"{score}_by_seed"] = by_seed
        study[score] = by_seed.mean("seed")
        half = by_seed.std("seed")
        study[f"{score}_interval"] = xr.concat([study[score] - half, study[score] + half], "bound").transpose("setting", "bound")
    study.attrs = {
        "about": "made-up images & nothing <else>",
        "chosen_on": "5 contexts & none of the test",
        "floor_classifier_distance": 0.8125,
        "floor_of": "9 test images",
        "recipe_hash": "abc123",
    }
    study["classifier_distance_validation"] = 1.5 * study["classifier_distance"]
    return study


@pytest.fixture(scope="module")
def study() -> xr.Dataset:
    return synthetic()


@pytest.fixture(scope="module")
def curves(study) -> xr.Dataset:
    return study.isel(setting=(study["kind"] == "curve").values)


def rows_of(page: str) -> list[list[str]]:
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", page)
    return [[html.unescape(cell) for cell in re.findall(r"<t[hd]\b[^>]*>(.*?)</t[hd]>", row)] for row in rows]


def test_the_page_has_every_setting_once_with_its_intervals(study, tmp_path: Path):
    write_image_study_page(tmp_path / "study.html", study, "small <b>", "name: small\nx: <y>", {"warm": 4, "standard": None})
    page = (tmp_path / "study.html").read_text()
    rows = [row for row in rows_of(page) if row[0] in ("curve", "sensitivity")]
    names = ("kind", "prior", "solver", "grid_in_time", "warmth", "visible", "nfe")
    expected = [tuple(study[name].values[index].item() for name in names) for index in range(study.sizes["setting"])]
    assert [(*row[:4], float(row[4]), float(row[5]) / 100, int(row[6])) for row in rows] == expected
    assert len(set(expected)) == len(expected)
    for index in (0, 11, len(rows) - 1):
        low, high = study["crps_interval"].values[index]
        assert rows[index][7] == f"{study['cost'].values[index]:.2f}"
        assert rows[index][9] == f"{study['crps'].values[index]:.4f} [{low:.4f}, {high:.4f}]"
        assert rows[index][-2:] == [f"{1.5 * study['classifier_distance'].values[index]:.3f}", ""]
    assert page.count("chosen on 5 contexts &amp; none of the test") == 2
    assert ["standard", "no number is both"] in rows_of(page)
    assert ["warm", "4"] in rows_of(page)
    assert page.count("<tr style=font-weight:600>") == int(study["best"].sum())
    assert page.count("<img ") == 5
    assert "classifier distance (not FID) 0.812" in page
    assert "abc123" in page
    assert "small &lt;b&gt;" in page
    assert "made-up images &amp; nothing &lt;else&gt;" in page
    assert "x: &lt;y&gt;" in page
    assert not re.search("<b>|<i>|<y>|<else>|Inception", page)


def test_the_page_leaves_out_what_the_study_lacks(curves, tmp_path: Path):
    one = curves.isel(setting=((curves["solver"] == "dpm3") & (curves["prior"] == "warm")).values)
    one = one.drop_vars([name for name in one.data_vars if str(name).split("_interval")[0].split("_by_seed")[0] in SCORES[2:]])
    one["fid"], one["fid_interval"], one["fid_by_seed"] = one["crps"], one["crps_interval"], one["crps_by_seed"]
    one["fid"][0] = np.nan
    write_image_study_page(tmp_path / "study.html", one, "small", "", {})
    page = (tmp_path / "study.html").read_text()
    _, head, first, *_ = rows_of(page)
    assert page.count("<img ") == 1
    assert head[-5:-2] == ["FID (Inception features)", "classifier distance (not FID)", "fair CRPS of hidden pixels"]
    assert first[-5] == ""
    assert "By solver" not in page
    assert "visible pixels" not in page


def test_missing_and_negative_scores_are_shown(tmp_path: Path):
    study = synthetic(shares=(0.1,), nfe=(6,), seeds=1)
    study["classifier_distance"][0] = -0.1  # a distance of few samples can be negative once its bias is subtracted
    for name in ("diversity", "diversity_interval", "power_deviation", "power_deviation_interval"):
        study[name] = study[name] * np.nan
    write_image_study_page(tmp_path / "study.html", study, "small", "", {})
    assert rows_of((tmp_path / "study.html").read_text())[2][8].startswith("-0.100 [")


def test_a_setting_that_diverged_is_marked(curves, tmp_path: Path):
    """Here all settings of one prior diverged, so it has no line."""
    diverged = ((curves["prior"] == "warm") | (curves["solver"] == "dpm3")).values
    study = curves.copy(deep=True)
    for name in study.data_vars:
        if str(name).startswith(SCORES):
            study[name] = study[name].where(xr.DataArray(~diverged, dims="setting"))
    study["best"] = study["best"] & ~diverged
    study["diverged"], study["diverged_validation"] = ("setting", 0.015 * diverged), ("setting", 0.5 * diverged)
    write_image_study_page(tmp_path / "study.html", study, "small", "", {"standard": 2})
    rows = [row for row in rows_of((tmp_path / "study.html").read_text()) if row[0] == "curve"]
    expected = ["50 % of samples at validation, 1.5 % of samples" if is_diverged else "" for is_diverged in diverged]
    assert [row[-1] for row in rows] == expected
    assert [row[8:-1] == [""] * (len(SCORES) + 1) for row in rows] == diverged.tolist()


def test_a_score_without_an_interval_has_no_bracket(tmp_path: Path):
    study = synthetic(shares=(0.1, 0.5), nfe=(6,), seeds=1)
    study["power_deviation_interval"] = study["power_deviation_interval"] * np.nan
    study["classifier_distance_interval"] = study["classifier_distance_interval"].where(study["best"])
    write_image_study_page(tmp_path / "study.html", study, "small", "", {})
    _, head, *rows = rows_of((tmp_path / "study.html").read_text())
    spectrum, distance = head.index("spectrum: mean |1 - ratio|"), head.index("classifier distance (not FID)")
    assert [row[spectrum] for row in rows] == [f"{value:.3f}" for value in study["power_deviation"].values]
    assert ["[" in row[distance] for row in rows] == study["best"].values.tolist()
    assert not any("nan" in cell for row in rows for cell in row)


def test_the_figures_show_the_scores(study, curves):
    axis = by_evaluations(curves, ["classifier_distance", "crps"]).axes[0]
    lines = {line.get_label(): line for line in axis.lines}
    best = curves.isel(setting=((curves["prior"] == "warm") & curves["best"]).values).sortby("cost")
    np.testing.assert_array_equal(lines["warm"].get_xydata(), np.stack([best["cost"], best["classifier_distance"]], axis=1))
    assert {label: line.get_linestyle() for label, line in lines.items() if not label.startswith("_")} == {
        "features-only": "--",
        "<i>mine</i>": "--",
        "standard": ":",
        "warm": "-",
        "9 test images": ":",
    }
    assert set(lines["9 test images"].get_ydata()) == {0.8125}
    bands = [band.get_datalim(axis.transData).intervaly for band in axis.collections]
    interval = best["classifier_distance_interval"].values
    assert any(np.allclose(band, (interval.min(), interval.max())) for band in bands)

    panels = by_visible_share(study.isel(setting=(study["kind"] == "sensitivity").values), ["crps"]).axes
    assert [axis.get_title() for axis in panels] == ["4 evaluations", "50 evaluations"]
    (line,) = (line for line in panels[1].lines if line.get_label() == "warm, warmth 0.6")
    chosen = study.isel(setting=((study["kind"] == "sensitivity") & (study["nfe"] == 50) & (study["warmth"] == 0.6)).values)
    np.testing.assert_allclose(line.get_xydata(), np.stack([[1, 10, 50], chosen["crps"].values], axis=1))

    panels = by_visible_share(study.isel(setting=(study["kind"] == "sensitivity").values), ["crps"], relative=True).axes
    lines = {line.get_label(): line.get_ydata() for line in panels[1].lines}
    reference = study.isel(setting=((study["kind"] == "sensitivity") & (study["nfe"] == 50) & (study["prior"] == "standard")).values)
    assert (lines["standard"] == 1).all()
    np.testing.assert_allclose(lines["warm, warmth 0.6"], chosen["crps"].values / reference["crps"].values)

    panels = by_solver(curves, ["crps"]).axes
    assert [axis.get_title() for axis in panels] == ["standard", "warm"]
    assert [line.get_label() for line in panels[0].lines] == ["dpm3, log-snr", "midpoint, uniform"]
