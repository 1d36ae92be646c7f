r"""
Whether a patch takes longer the more speech there is already: time of each patch over its position.

    OMP_NUM_THREADS=2 python examples/studies/length.py --out runs/length

It writes length.json and length.png. Both kinds of cache are timed in turns, so that both meet the same machine; a
point is the median of a window of patches over all repeats. Meaning plays no role, so the text is random tokens.
"""

import argparse
import json
import logging
import statistics
import time
from pathlib import Path

import torch

from ditar_hf import DiTARConfig, DiTARForTextToSpeech

CACHES = ("dynamic", "static")
NUM_TOKENS = 60


class Clock:
    """A streamer that notes when each patch is there."""

    def __init__(self):
        self.times = [time.perf_counter()]

    def put(self, latents: torch.Tensor):
        """Called with each patch."""
        self.times.append(time.perf_counter())

    def end(self):
        """Called after the last one."""


def measure(options: argparse.Namespace) -> dict:
    """Milliseconds a patch for each cache and window of positions."""
    if options.size:
        torch.manual_seed(0)
        model = DiTARForTextToSpeech(DiTARConfig.from_preset(options.size))
    else:
        model = DiTARForTextToSpeech.from_pretrained(options.model)
    model.eval()
    # what is timed is the loop: decoding is one more call, after it
    vocab_size, bos = model.config.lm_config.vocab_size, model.config.audio_bos_token_id
    ids = torch.randint(4, vocab_size, (1, NUM_TOKENS), generator=torch.Generator().manual_seed(0))
    ids[:, -1] = bos
    lengths = {"max_new_tokens": options.patches, "min_new_tokens": options.patches}
    milliseconds = {cache: [[] for _ in range(options.patches)] for cache in CACHES}
    for repeat in range(options.repeats + 1):
        for cache in CACHES:
            clock = Clock()
            # the length is forced, and no row stops by itself
            logging.getLogger("ditar_hf.modeling.generation_ditar").setLevel(logging.ERROR)
            model.generate(ids, streamer=clock, cache_implementation=cache, temperature=0.0, **lengths)
            if repeat == 0:
                continue  # the first round warms up
            for position, (start, end) in enumerate(zip(clock.times, clock.times[1:], strict=False)):
                milliseconds[cache][position].append(1000 * (end - start))
    # the first patch waits for the text to be read
    starts = range(1, options.patches, options.window)
    results = {
        cache: [statistics.median(sum(values[start : start + options.window], [])) for start in starts]
        for cache, values in milliseconds.items()
    }
    about = {"model": options.size or options.model, "threads": torch.get_num_threads(), "repeats": options.repeats}
    return {**about, "patches": list(starts), "milliseconds": results}


def draw(report: dict, path: Path):
    """Milliseconds over position, a line for each cache."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.add_subplot()
    for cache, values in report["milliseconds"].items():
        axes.plot(report["patches"], values, marker=".", label=f"{cache} cache")
    axes.set_xlabel("patch")
    axes.set_ylabel("milliseconds")
    axes.set_ylim(bottom=0)
    axes.set_title(f"{report['model']}, {report['threads']} threads", fontsize=10)
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


def main(argv: list[str] | None = None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="hub_cards/ditar-tiny-en")
    parser.add_argument("--size", help="a size of the paper with random weights instead, such as 0.1B")
    parser.add_argument("--patches", type=int, default=600, help="10 are a second")
    parser.add_argument("--window", type=int, default=25, help="patches in a point of the figure")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(argv)
    report = measure(options)
    for cache, values in report["milliseconds"].items():
        print(f"{cache} cache: {values[0]:.1f} ms a patch at the beginning, {values[-1]:.1f} ms at the end")
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "length.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    draw(report, options.out / "length.png")


if __name__ == "__main__":
    main()
