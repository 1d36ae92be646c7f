"""Pictures of speech; needs matplotlib (the extra `plot`)."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

WINDOW_SECONDS = 0.04
HOPS_PER_WINDOW = 4
DYNAMIC_RANGE_DB = 80
NUM_BINS = 50


def log_spectrogram(waveform: "np.ndarray", sampling_rate: int) -> "np.ndarray":
    """
    Magnitudes of the short-time Fourier transform in dB below the loudest bin, cut off at `-DYNAMIC_RANGE_DB`.

    Args:
        waveform (`np.ndarray` of shape `(num_samples,)`):
            The samples; silence is added at both ends so that each frame is centred on its time.
        sampling_rate (`int`):
            Samples per second.

    Returns:
        `np.ndarray` of shape `(num_frequencies, num_frames)`.
    """
    import numpy as np

    window_samples = round(WINDOW_SECONDS * sampling_rate)
    padded = np.pad(np.asarray(waveform, dtype=np.float64), window_samples // 2)
    padded = np.pad(padded, (0, max(0, window_samples - padded.size)))
    frames = np.lib.stride_tricks.sliding_window_view(padded, window_samples)[:: window_samples // HOPS_PER_WINDOW]
    magnitudes = np.abs(np.fft.rfft(frames * np.hanning(window_samples))).T
    loudest = magnitudes.max()
    if loudest == 0:
        return np.full_like(magnitudes, -DYNAMIC_RANGE_DB)
    return 20 * np.log10(np.maximum(magnitudes / loudest, 10 ** (-DYNAMIC_RANGE_DB / 20)))


def draw_spectrogram(waveform: "np.ndarray", sampling_rate: int, title: str = "") -> "Figure":
    """
    Draw the spectrogram of `waveform`, over time in seconds and frequency in kHz.

    Args:
        waveform (`np.ndarray` of shape `(num_samples,)`):
            The samples.
        sampling_rate (`int`):
            Samples per second.
        title (`str`, *optional*, defaults to `""`):
            Stands above the picture; a long one is shortened.

    Returns:
        `matplotlib.figure.Figure`, to be saved or drawn on a canvas.

    Raises:
        ModuleNotFoundError: If matplotlib is not installed.
    """
    # A Figure of its own leaves pyplot and the user's choice of backend alone.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    axes = figure.add_subplot()
    extent = (0.0, len(waveform) / sampling_rate, 0.0, sampling_rate / 2000)
    image = axes.imshow(
        log_spectrogram(waveform, sampling_rate), origin="lower", aspect="auto", extent=extent, cmap="magma"
    )
    axes.set_xlabel("time (s)")
    axes.set_ylabel("frequency (kHz)")
    # A text with two $ signs is no formula.
    axes.set_title(title if len(title) <= 90 else title[:89] + "…", parse_math=False)
    figure.colorbar(image, label="level (dB, loudest at 0)")
    return figure


def save_spectrogram(waveform: "np.ndarray", sampling_rate: int, path: str | Path, title: str = "") -> None:
    """
    Save the picture of [`draw_spectrogram`].

    Args:
        waveform (`np.ndarray` of shape `(num_samples,)`):
            The samples.
        sampling_rate (`int`):
            Samples per second.
        path (`str` or `Path`):
            Where to write; the suffix (`.png`, `.pdf`, `.svg`) decides the format.
        title (`str`, *optional*, defaults to `""`):
            Stands above the picture; a long one is shortened.

    Raises:
        ModuleNotFoundError: If matplotlib is not installed.
        ValueError: If the suffix of `path` is no format of matplotlib's.
        OSError: If the file cannot be written.
    """
    figure = draw_spectrogram(waveform, sampling_rate, title)
    with warnings.catch_warnings():
        # The title may be in a script that the font of the picture lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure.savefig(path, dpi=120)


def draw_comparison(
    original: "np.ndarray", reconstruction: "np.ndarray", sampling_rate: int, title: str = ""
) -> "Figure":
    """
    Draw waveforms and spectrograms of a recording and of what was made of it, side by side.

    The waveforms share their scale, which shows a difference of levels; each spectrogram has its loudest bin at 0 dB.

    Args:
        original, reconstruction (`np.ndarray` of shape `(num_samples,)`):
            The samples.
        sampling_rate (`int`):
            Samples per second.
        title (`str`, *optional*, defaults to `""`):
            Stands above; a long one is shortened.

    Returns:
        `matplotlib.figure.Figure`, to be saved or drawn on a canvas.

    Raises:
        ModuleNotFoundError: If matplotlib is not installed.
    """
    import numpy as np
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 6), layout="constrained")
    axes = figure.subplots(2, 2, sharex=True, height_ratios=(1, 2))
    pair = [np.asarray(samples, np.float64) for samples in (original, reconstruction)]
    peak = max(np.abs(samples).max() for samples in pair) or 1.0
    extent = (0.0, len(pair[0]) / sampling_rate, 0.0, sampling_rate / 2000)
    for (above, below), name, samples in zip(axes.T, ("original", "reconstruction"), pair, strict=True):
        above.plot(np.arange(len(samples)) / sampling_rate, samples, linewidth=0.4)
        above.set(title=name, ylim=(-1.05 * peak, 1.05 * peak), ylabel="amplitude")
        image = below.imshow(
            log_spectrogram(samples, sampling_rate), origin="lower", aspect="auto", extent=extent, cmap="magma"
        )
        below.set(xlabel="time (s)", ylabel="frequency (kHz)")
    figure.colorbar(image, ax=list(axes[1]), label="level (dB, loudest at 0)")
    figure.suptitle(title if len(title) <= 90 else title[:89] + "…", parse_math=False)
    return figure


def draw_histograms(seconds: Sequence[float], speaker_hours: Sequence[float], title: str = "") -> "Figure":
    """
    Draw how long recordings are and, if speakers are known, how much speech there is of each.

    Hours have a logarithmic scale: between the speakers of one data set there may be factors of thousands.

    Args:
        seconds (`Sequence[float]`):
            Length of each recording; at least one.
        speaker_hours (`Sequence[float]`):
            Hours of each speaker, all positive; may be empty.
        title (`str`, *optional*, defaults to `""`):
            Stands above; a long one is shortened.

    Returns:
        `matplotlib.figure.Figure`, to be saved or drawn on a canvas.

    Raises:
        ModuleNotFoundError: If matplotlib is not installed.
    """
    import numpy as np
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(10, 4), layout="constrained")
    panels = figure.subplots(1, 2 if len(speaker_hours) else 1, squeeze=False)[0]
    lengths = np.asarray(seconds, np.float64)
    panels[0].stairs(*np.histogram(lengths, NUM_BINS, (0, lengths.max())), fill=True)
    median = np.median(lengths)
    panels[0].axvline(median, color="black", linestyle="--", linewidth=1, label=f"median {median:.2f} s")
    panels[0].legend()
    panels[0].set(xlabel="length (s)", ylabel="recordings", xlim=(0, None))
    if len(speaker_hours):
        hours = np.asarray(speaker_hours, np.float64)
        # whole decades, so that there are ticks to label; where a logarithm was rounded, as far as the least value
        first, last = np.floor(np.log10([hours.min(), hours.max()]))
        edges = np.geomspace(min(10**first, hours.min()), 10 ** (last + 1), NUM_BINS + 1)
        panels[1].stairs(*np.histogram(hours, edges), fill=True)
        panels[1].set(xscale="log", xlabel="speech of a speaker (hours)", ylabel="speakers")
        panels[1].xaxis.set_major_formatter("{x:g}")
    for axes in panels:
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    figure.suptitle(title if len(title) <= 90 else title[:89] + "…", parse_math=False)
    return figure
