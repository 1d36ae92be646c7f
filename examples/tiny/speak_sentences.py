"""Speaks each line of a file: 000.wav, 001.wav, … for a recogniser.

python examples/tiny/speak_sentences.py --model hub_cards/ditar-tiny-en --sentences sentences.txt --out wavs
"""

import argparse
import json
import time
from pathlib import Path

import soundfile
import torch
from transformers import pipeline

import ditar_hf  # noqa: F401  registers the model with the Auto classes


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--sentences", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--voice", type=Path, help="a recording to follow, with --voice-text")
    parser.add_argument("--voice-text")
    parser.add_argument("--generate", type=json.loads, default={}, help="as JSON: '{\"temperature\": 0.5}'")
    parser.add_argument("--profile", action="store_true", help="also print where the time of one more sentence goes")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    pipe = pipeline("text-to-speech", model=options.model)
    voice = {}
    if options.voice:
        audio, rate = soundfile.read(options.voice, dtype="float32")
        voice = {"prompt_audio": audio, "prompt_text": options.voice_text, "sampling_rate": rate}
    options.out.mkdir(parents=True, exist_ok=True)
    started, seconds = time.perf_counter(), 0.0

    def speak(text: str, seed: int) -> dict:
        generator = torch.Generator().manual_seed(seed)
        return pipe(text, preprocess_params=voice, generate_kwargs={**options.generate, "generator": generator})

    for index, text in enumerate(options.sentences.read_text().splitlines()):
        speech = speak(text, options.seed + index)
        soundfile.write(options.out / f"{index:03d}.wav", speech["audio"], speech["sampling_rate"])
        seconds += len(speech["audio"]) / speech["sampling_rate"]
    spent = time.perf_counter() - started
    print(f"{index + 1} sentences, {seconds:.1f} s in {spent:.1f} s (real-time factor {spent / seconds:.3f})")
    if options.profile:
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
            speak(text, options.seed)
        print(profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=12, max_name_column_width=50))


if __name__ == "__main__":
    main()
