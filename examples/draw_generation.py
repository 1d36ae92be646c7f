r"""
Draws what each setting of `generate` does to speech: mel spectrograms of one sentence, a panel for each value.

    python examples/draw_generation.py --out docs/figures            # all of them
    python examples/draw_generation.py guidance --out docs/figures   # one: generation_guidance.png

What a panel does not name is the model's own setting, and the seed is 0. The panels of a picture share their axes
and their scale of levels; where speech has ended, a panel is grey. Needs matplotlib (the extra `plot`).
"""

import argparse
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

from ditar_hf import DiTARForTextToSpeech, DiTARProcessor, DiTARScheduler

TEXT = "The quick brown fox jumps over the lazy dog."
# what a panel may say beside settings of `generate`
SEED, VOICE, SOLVER = "seed", "voice", "algorithm_type"
# for each picture its rows of panels, of each panel what differs from the model's own settings
PICTURES: dict[str, list[list[dict[str, Any]]]] = {
    "temperature": [[{"temperature": tau, SEED: seed} for seed in (0, 1)] for tau in (0.0, 0.5, 1.0)],
    "seed": [[{"temperature": 1.0, VOICE: voice, SEED: seed} for voice in (None, "random")] for seed in (0, 1, 2)],
    "guidance": [[{"guidance_scale": scale} for scale in row] for row in ((1.0, 2.0), (3.0, 10.0))],
    "steps": [[{"num_inference_steps": steps} for steps in row] for row in ((1, 2), (4, 10))],
    "solver": [
        [{SOLVER: solver, "num_inference_steps": steps} for solver in ("ddim", "euler", "dpmsolver++")]
        for steps in (1, 3)
    ],
    "length": [
        [{"stop_threshold": 0.0001}, {"stop_threshold": 0.99999}],
        [{"max_new_tokens": 12}, {"max_patches_per_token": 0.6, "spare_patches": 0}],
        [{"min_new_tokens": 50}, {"min_patches_per_token": 0.9}],
    ],
}
NUM_MELS, WINDOW_SAMPLES, HOP_SAMPLES = 64, 1024, 360
MAX_HERTZ, DYNAMIC_RANGE_DB = 8000, 64
# few colours make small files
NUM_COLOURS = 16
PANEL_INCHES, DOTS_PER_INCH = (4.8, 1.9), 90


def speak(model: DiTARForTextToSpeech, processor: DiTARProcessor, text: str, panel: dict[str, Any]):
    """What `generate` says with the settings of a panel: samples of shape `(num_samples,)`, and whether it stopped."""
    settings = dict(panel)
    inputs = processor(text, voice=settings.pop(VOICE, None))
    settings["generator"] = torch.Generator().manual_seed(settings.pop(SEED, 0))
    if SOLVER in settings:
        scheduler = DiTARScheduler.from_config(model.noise_scheduler.config, algorithm_type=settings.pop(SOLVER))
        settings["noise_scheduler"] = scheduler
    output = model.generate(**inputs, **settings)
    return output.audio[0].numpy(), not output.reached_limit[0]


def mel_spectrogram(samples: np.ndarray, sampling_rate: int) -> np.ndarray:
    """Mel power spectrum of shape `(NUM_MELS, num_frames)`, of samples of shape `(num_samples,)`."""
    filters = mel_filter_bank(WINDOW_SAMPLES // 2 + 1, NUM_MELS, 0, MAX_HERTZ, sampling_rate, mel_scale="slaney")
    window = window_function(WINDOW_SAMPLES)
    return spectrogram(samples, window, WINDOW_SAMPLES, HOP_SAMPLES, power=2.0, mel_filters=filters)


def title_of(panel: dict[str, Any], num_samples: int, sampling_rate: int, has_stopped: bool) -> str:
    """The line above a panel: what it varies, and the length."""
    said = ", ".join(f"{name} {value}" for name, value in panel.items() if value is not None)
    return f"{said} · {num_samples / sampling_rate:.1f} s{'' if has_stopped else ', cut off'}"


def draw(rows: list[list[tuple[str, np.ndarray]]], seconds_per_frame: float):
    """A picture of rows of panels, of each its title and its mel power spectrum."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    colours = colormaps["magma"].resampled(NUM_COLOURS)
    spectra = [spectrum for row in rows for _, spectrum in row]
    loudest = max(spectrum.max() for spectrum in spectra) or 1.0
    longest = max(spectrum.shape[1] for spectrum in spectra) * seconds_per_frame
    size = (PANEL_INCHES[0] * len(rows[0]), PANEL_INCHES[1] * len(rows) + 0.3)
    figure = Figure(figsize=size, dpi=DOTS_PER_INCH, layout="constrained")
    grid = figure.subplots(len(rows), len(rows[0]), sharex=True, sharey=True, squeeze=False)
    for line, row in zip(grid, rows, strict=True):
        for axes, (title, spectrum) in zip(line, row, strict=True):
            levels = 10 * np.log10(np.maximum(spectrum / loudest, 10 ** (-DYNAMIC_RANGE_DB / 10)))
            extent = (0, spectrum.shape[1] * seconds_per_frame, 0, NUM_MELS)
            limits = {"vmin": -DYNAMIC_RANGE_DB, "vmax": 0}
            axes.imshow(levels, colours, origin="lower", extent=extent, interpolation="nearest", **limits)
            axes.set(xlim=(0, longest), aspect="auto", facecolor="lightgrey", yticks=[])
            axes.set_title(title, fontsize=9, parse_math=False)
    figure.supxlabel("time (s)", fontsize=9)
    figure.supylabel(f"mel frequency, up to {MAX_HERTZ // 1000} kHz", fontsize=9)
    return figure


def main(argv: list[str] | None = None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", nargs="*", help=f"which: {', '.join(PICTURES)}; all of them if none is named")
    parser.add_argument("--model", default="hub_cards/ditar-tiny-en", help="folder or Hub id")
    parser.add_argument("--text", default=TEXT, help="what is said")
    parser.add_argument("--out", type=Path, required=True, help="folder of the pictures")
    options = parser.parse_args(argv)
    if unknown := sorted(set(options.pictures) - PICTURES.keys()):
        parser.error(f"there is no picture {unknown[0]!r}; the pictures are {', '.join(PICTURES)}")
    model = DiTARForTextToSpeech.from_pretrained(options.model).eval()
    processor = DiTARProcessor.from_pretrained(options.model)
    rate = processor.feature_extractor.sampling_rate
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.pictures or PICTURES:
        rows = []
        for row in PICTURES[name]:
            rows.append([])
            for panel in row:
                samples, has_stopped = speak(model, processor, options.text, panel)
                title = title_of(panel, len(samples), rate, has_stopped)
                rows[-1].append((title, mel_spectrogram(samples, rate)))
                print(f"{name}: {title}", flush=True)
        figure = draw(rows, HOP_SAMPLES / rate)
        with warnings.catch_warnings():
            # The text may be in a script that the font of the picture lacks.
            warnings.filterwarnings("ignore", message="Glyph .* missing")
            figure.savefig(options.out / f"generation_{name}.png")


if __name__ == "__main__":
    main()
