r"""
How word error depends on a setting of `generate` and on the number of solver steps.

    python examples/studies/word_error.py guidance --out runs/guidance        # as Figure 4 of the paper
    python examples/studies/word_error.py temperature --out runs/temperature  # as Table 6
    python examples/studies/word_error.py solver --out runs/solver

It writes word_error.json and word_error.png, and with --save-audio what it speaks. Each sentence begins with the same
noise under all settings. The recogniser is that of the protocol "offline-en", which mishears much: only differences
that are large beside the intervals say something.
"""

import argparse
import json
from pathlib import Path

import soundfile
import torch

from ditar_hf import DiTARForTextToSpeech, DiTARProcessor, DiTARScheduler
from ditar_hf.evaluation.protocols import find_protocol
from ditar_hf.evaluation.recognizers import load_recognizer
from ditar_hf.evaluation.summary import mean_with_interval

SETTINGS = {
    "guidance": ("guidance_scale", [1.0, 1.5, 2.0, 3.0, 4.5]),
    "temperature": ("temperature", [0.0, 0.5, 1.0]),
    "solver": ("algorithm_type", ["ddim", "euler", "dpmsolver++"]),
}
PROTOCOL = "offline-en"


def speak(model, processor, texts: list[str], setting: str, value, num_inference_steps: int) -> list:
    """Waveforms `(num_samples,)` of the texts, each with its own seed."""
    settings = {"num_inference_steps": num_inference_steps}
    if setting == "algorithm_type":
        config = {**model.config.scheduler_config, setting: value}
        settings["noise_scheduler"] = DiTARScheduler(**config)
    else:
        settings[setting] = value
    generators = [torch.Generator().manual_seed(row) for row in range(len(texts))]
    return [audio.numpy() for audio in model.generate(**processor(texts), generator=generators, **settings).audio]


def measure(options: argparse.Namespace) -> dict:
    """Word error for each value and number of steps."""
    model = DiTARForTextToSpeech.from_pretrained(options.model).eval()
    processor = DiTARProcessor.from_pretrained(options.model)
    texts = options.sentences.read_text(encoding="utf-8").splitlines()
    protocol = find_protocol(PROTOCOL)
    recognize = load_recognizer(protocol.recognizer)
    setting, values = SETTINGS[options.study]
    results = []
    for value in options.values or values:
        for steps in options.steps:
            waveforms = speak(model, processor, texts, setting, value, steps)
            transcripts = [recognize(waveform, model.config.sampling_rate) for waveform in waveforms]
            counts = [protocol.count(*pair) for pair in zip(texts, transcripts, strict=True)]
            rate, interval = mean_with_interval([count.rate for count in counts], protocol.weights(counts))
            results.append({setting: value, "steps": steps, "word_error": rate, "interval": interval})
            print(f"{setting} {value}, {steps} steps: {rate:.1%} [{interval[0]:.1%}, {interval[1]:.1%}]", flush=True)
            if options.save_audio:
                folder = options.out / f"{value}-{steps}"
                folder.mkdir(parents=True, exist_ok=True)
                for row, waveform in enumerate(waveforms):
                    soundfile.write(folder / f"{row:03d}.wav", waveform, model.config.sampling_rate)
    return {
        "setting": setting,
        "protocol": PROTOCOL,
        "sentences": len(texts),
        "model": options.model,
        "results": results,
    }


def draw(report: dict, path: Path):
    """Word error over steps, a line for each value."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    values = list(dict.fromkeys(result[report["setting"]] for result in report["results"]))
    for index, value in enumerate(values):
        points = [result for result in report["results"] if result[report["setting"]] == value]
        middle = [100 * point["word_error"] for point in points]
        low, high = ([100 * abs(p["interval"][end] - p["word_error"]) for p in points] for end in (0, 1))
        # beside one another, so that the intervals can be told apart
        steps = [point["steps"] * 1.025 ** (index - (len(values) - 1) / 2) for point in points]
        axes.errorbar(steps, middle, [low, high], marker="o", capsize=3, label=str(value))
    axes.set_xscale("log")
    steps = sorted({result["steps"] for result in report["results"]})
    axes.set_xticks(steps, [str(step) for step in steps])
    axes.minorticks_off()
    axes.set_xlabel("solver steps for each patch")
    axes.set_ylabel(f"word error in %, {report['protocol']}")
    axes.set_ylim(bottom=0)
    axes.legend(title=report["setting"])
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


def main(argv: list[str] | None = None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=SETTINGS)
    parser.add_argument("--model", default="hub_cards/ditar-tiny-en")
    parser.add_argument(
        "--sentences", type=Path, default=Path(__file__).with_name("sentences.txt"), help="a text a line"
    )
    parser.add_argument("--values", type=json.loads, nargs="+", help="of the setting, as JSON; by default those above")
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 2, 4, 10, 20])
    parser.add_argument("--save-audio", action="store_true")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    report = measure(options)
    (options.out / "word_error.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    draw(report, options.out / "word_error.png")


if __name__ == "__main__":
    main()
