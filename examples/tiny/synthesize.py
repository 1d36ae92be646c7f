"""Step 1 of the tiny recipe: English sentences and their speech, made with the free synthesiser flite.

The sentences are the usage examples of WordNet 3.0 (Debian package `wordnet-base`); the voices are flite's (Debian
package `flite`). Both packages allow use, modification and redistribution. Played faster or slower, at a tempo that
makes up for it, each of the four voices becomes a row of speakers with other pitch and vocal tract. Each clip is cut
to a tenth of a second of silence at both ends, and flite's own timed phones are kept: they train the alignment head.

    python examples/tiny/synthesize.py --out runs/tiny/synthetic --num-sentences 40000
"""

import argparse
import json
import multiprocessing
import random
import re
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import soundfile
import soxr

VOICES = {"slt": 0.35, "rms": 0.35, "awb": 0.2, "kal16": 0.1}
UNCHANGED_SHARE = 0.35
SPEEDS = [0.84, 0.87, 0.9, 0.93, 0.96, 1.04, 1.08, 1.12, 1.16, 1.2]
MARGIN_SECONDS = 0.1
PLAIN_SENTENCE = re.compile(r"[A-Za-z',;?!.\- ]+")


def wordnet_examples(folder: Path, min_words: int = 3, max_words: int = 12) -> list[str]:
    """Usage examples in the glosses of WordNet's `data.*` files, in the order of the files, without duplicates."""
    sentences = {}
    for path in sorted(folder.glob("data.*")):
        for line in path.read_text(encoding="latin-1").splitlines():
            if line.startswith("  ") or "|" not in line:  # licence header
                continue
            for quote in re.findall(r'"([^"]+)"', line.split("|", 1)[1]):
                quote = quote.strip()
                if PLAIN_SENTENCE.fullmatch(quote) and min_words <= len(quote.split()) <= max_words:
                    sentences[quote] = None
    return list(sentences)


def punctuated(sentence: str, rng: random.Random) -> str:
    """Half of the sentences get a capital letter and a full stop, as users type them."""
    if rng.random() < 0.5 or sentence[-1] in ".?!;,":
        return sentence
    return sentence[0].upper() + sentence[1:] + "."


def synthesize(job: tuple[int, str, str, float, Path]) -> dict | None:
    """One sentence in one voice: writes `<index>.flac` and returns its metadata, None where flite says nothing."""
    index, text, voice, speed, out = job
    stretch = ["--setf", f"duration_stretch={speed}"]  # speaks slowly what will be played fast
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        timed = subprocess.run(
            ["flite", "-voice", voice, *stretch, "-t", text, "-psdur", "-o", file.name], capture_output=True, text=True
        ).stdout
        audio, rate = soundfile.read(file.name, dtype="int16")
    phones, start = [], 0.0
    for entry in timed.split():
        name, _, end = entry.rpartition(":")
        phones.append((name, start, float(end)))
        start = float(end)
    spoken = [phone for phone in phones if phone[0] != "pau"]
    if not spoken:
        return None
    first = max(0.0, spoken[0][1] - MARGIN_SECONDS)
    last = min(len(audio) / rate, spoken[-1][2] + MARGIN_SECONDS)
    audio = audio[int(first * rate) : int(last * rate)]
    if np.abs(audio).max() < 300:
        return None
    audio = soxr.resample(audio, rate * speed, rate)
    soundfile.write(out / f"{index:06d}.flac", audio, rate)
    return {
        "file_name": f"{index:06d}.flac",
        "text": text,
        "speaker": f"flite-{voice}-{speed:.2f}",
        "phones": [(name, round((a - first) / speed, 3), round((b - first) / speed, 3)) for name, a, b in spoken],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--wordnet", type=Path, default=Path("/usr/share/wordnet"))
    parser.add_argument("--num-sentences", type=int, default=40_000)
    parser.add_argument("--exclude", type=Path, help="text file of sentences that must not be among them (a test set)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()

    rng = random.Random(options.seed)
    sentences = wordnet_examples(options.wordnet)
    if options.exclude:
        words = lambda line: tuple(re.findall(r"[a-z']+", line.lower()))  # noqa: E731
        tested = {words(line) for line in options.exclude.read_text().splitlines()}
        sentences = [sentence for sentence in sentences if words(sentence) not in tested]
    rng.shuffle(sentences)
    sentences = [punctuated(sentence, rng) for sentence in sentences[: options.num_sentences]]
    voices = rng.choices(list(VOICES), list(VOICES.values()), k=len(sentences))
    options.out.mkdir(parents=True, exist_ok=True)
    speeds = [1.0 if rng.random() < UNCHANGED_SHARE else rng.choice(SPEEDS) for _ in sentences]
    jobs = [(i, *job, options.out) for i, job in enumerate(zip(sentences, voices, speeds, strict=True))]
    kept = 0
    with multiprocessing.Pool(options.processes) as pool, open(options.out / "metadata.jsonl", "w") as file:
        for row in pool.imap(synthesize, jobs, chunksize=16):
            if row is not None:
                file.write(json.dumps(row) + "\n")
                kept += 1
    print(f"{kept} of {len(jobs)} sentences written to {options.out}")


if __name__ == "__main__":
    main()
