r"""
How much voices differ at each temperature: one text, spoken in random voices many times (Figure 6 of the paper).

    python examples/studies/diversity.py --out runs/diversity

It writes diversity.json and diversity.png: the first two principal components of the speaker embeddings, fitted on
all samples together, and for each temperature the mean cosine distance between two samples. The paper embeds by
WavLM-large, and fits the components on its training set; the default here, Resemblyzer, works offline once it is
installed ("wavlm-large-sv" comes from the Hub).
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from ditar_hf import DiTARForTextToSpeech, DiTARProcessor
from ditar_hf.evaluation.speaker_encoders import SPEAKER_ENCODERS, load_speaker_encoder
from ditar_hf.evaluation.summary import NotMeasuredError

TEXT = "The children walked along the river until the sun went down."
NUM_RESAMPLES = 1000


def mean_distance(embeddings: np.ndarray) -> float:
    """Mean of 1 − cosine over all pairs of `(num_samples, dim)` unit vectors."""
    pairs = np.triu_indices(len(embeddings), k=1)
    # rounding makes the cosine of a vector with itself more than 1
    return max(0.0, float(1 - (embeddings @ embeddings.T)[pairs].mean()))


def distance_with_interval(embeddings: np.ndarray) -> tuple[float, list[float]]:
    """Mean distance, and a 95% interval by drawing half of the samples without replacement."""
    generator, half = np.random.default_rng(0), len(embeddings) // 2
    draws = [mean_distance(embeddings[generator.permutation(len(embeddings))[:half]]) for _ in range(NUM_RESAMPLES)]
    return mean_distance(embeddings), [float(bound) for bound in np.quantile(draws, [0.025, 0.975])]


def measure(options: argparse.Namespace) -> dict:
    """Embeddings and their spread for each temperature."""
    embed = load_speaker_encoder(options.encoder)
    model = DiTARForTextToSpeech.from_pretrained(options.model).eval()
    processor = DiTARProcessor.from_pretrained(options.model)
    embeddings = []
    for temperature in options.temperatures:
        rows = []
        for start in range(0, options.samples, options.batch_size):
            seeds = range(start, min(start + options.batch_size, options.samples))
            # the text alone: processors with a default voice would begin with it
            inputs = {name: x.repeat(len(seeds), 1) for name, x in processor(options.text, voice="random").items()}
            generators = [torch.Generator().manual_seed(seed) for seed in seeds]
            output = model.generate(**inputs, temperature=temperature, generator=generators)
            rows += [embed(audio.numpy(), model.config.sampling_rate) for audio in output.audio]
        embeddings.append(np.stack(rows))
    everything = np.concatenate(embeddings)
    _, _, axes = np.linalg.svd(everything - everything.mean(0), full_matrices=False)
    results = []
    for temperature, group in zip(options.temperatures, embeddings, strict=True):
        distance, interval = distance_with_interval(group)
        points = (group - everything.mean(0)) @ axes[:2].T
        results.append(
            {"temperature": temperature, "distance": distance, "interval": interval, "points": points.tolist()}
        )
        print(f"temperature {temperature}: {distance:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]", flush=True)
    about = {"model": options.model, "encoder": options.encoder, "text": options.text, "samples": options.samples}
    return {**about, "results": results}


def draw(report: dict, path: Path):
    """A panel of points for each temperature, all in the same axes."""
    from matplotlib.figure import Figure

    results = report["results"]
    figure = Figure(figsize=(2.6 * len(results), 3), layout="constrained")
    panels = figure.subplots(1, len(results), sharex=True, sharey=True, squeeze=False)[0]
    for panel, result in zip(panels, results, strict=True):
        first, second = zip(*result["points"], strict=True)
        panel.scatter(first, second, s=10, alpha=0.6)
        panel.set_title(f"τ = {result['temperature']:g}, distance {result['distance']:.3f}", fontsize=9)
        panel.set_xlabel("first component")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("second component")
    figure.savefig(path, dpi=120)


def main(argv: list[str] | None = None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="hub_cards/ditar-tiny-en")
    parser.add_argument("--text", default=TEXT)
    parser.add_argument("--temperatures", type=float, nargs="+", default=[0.0, 0.25, 0.5, 0.75, 1.0])
    parser.add_argument("--samples", type=int, default=100, help="for each temperature, at least 4")
    parser.add_argument("--batch-size", type=int, default=20)
    parser.add_argument("--encoder", choices=SPEAKER_ENCODERS, default="resemblyzer")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(argv)
    if options.samples < 4:
        parser.error(f"--samples is {options.samples}: take 4 or more, so that halves of them can be compared")
    try:
        report = measure(options)
    except NotMeasuredError as error:
        parser.error(str(error))
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "diversity.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    draw(report, options.out / "diversity.png")


if __name__ == "__main__":
    main()
