"""Laws of pictures: a histogram counts every value once, between edges that hold it."""

import numpy as np
import pytest

from ditar_hf.plotting import draw_histograms


def bars(axes):
    (patch,) = axes.patches
    return patch.get_data()


def test_every_recording_and_speaker_is_counted_once():
    generator = np.random.default_rng(0)
    seconds, hours = generator.lognormal(1.5, 0.5, 1000), generator.lognormal(-3, 3, 70)
    figure = draw_histograms(seconds, hours, "1,000 recordings")
    panels = figure.axes
    for axes, values in zip(panels, (seconds, hours), strict=True):
        heights, edges, _ = bars(axes)
        assert heights.sum() == len(values) and edges[0] <= values.min() and edges[-1] >= values.max()
        inside = [np.sum((values >= low) & (values < high)) for low, high in zip(edges, edges[1:], strict=False)]
        assert inside[:-1] == heights[:-1].tolist()  # the last bin has its upper edge, too
    assert (panels[0].get_xlabel(), panels[1].get_xlabel()) == ("length (s)", "speech of a speaker (hours)")
    assert panels[1].get_xscale() == "log" and figure.get_suptitle() == "1,000 recordings"


def test_without_speakers_there_are_only_lengths():
    (axes,) = draw_histograms([2.5], []).axes
    assert bars(axes)[0].sum() == 1 and axes.get_legend_handles_labels()[1] == ["median 2.50 s"]


@pytest.mark.parametrize("hours", [[0.5], [1.0], [1e-3, np.nextafter(1e-3, 0)], [1e-4, 1e-4], [1e-6, 1e4]])
def test_speakers_all_alike_or_far_apart_are_drawn(hours, tmp_path):
    figure = draw_histograms([1.0, 1.0], hours, "costs $5, or $6")
    assert bars(figure.axes[1])[0].sum() == len(hours)
    figure.savefig(tmp_path / "histogram.png")
    assert (tmp_path / "histogram.png").read_bytes().startswith(b"\x89PNG")
