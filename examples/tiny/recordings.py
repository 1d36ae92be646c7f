"""Step 2 of the tiny recipe: recorded speech, timed, cut at its pauses, and as more voices than it has.

    python examples/tiny/recordings.py --data path/to/kathleen --out runs/tiny/kathleen

A data folder holds a `metadata.csv` of `file_name`, `text` and `speaker`. pocketsphinx finds when each phone is spoken
(`pip install pocketsphinx`); clips that it cannot follow are left out. Clips are cut at pauses, so that a speaker of
one long clip has several: the model learns a voice from pairs of clips. Each is also played slower and faster, as a
speaker of its own. Recordings without a text are cut where they are quiet; from them a model learns to go on in a
voice. Written is what synthesize.py writes: FLAC files and `metadata.jsonl` with timed phones.
"""

import argparse
import csv
import json
import multiprocessing
from pathlib import Path

import numpy as np
import soundfile
import soxr
from alignment import ForcedAligner

SPEEDS = [1.0, 0.92, 1.08]
MARGIN_SECONDS = 0.1
MIN_PAUSE_SECONDS = 0.16
aligner = None


def start_aligner():
    """Each process has an aligner of its own."""
    global aligner
    aligner = ForcedAligner()


def cut_at_pauses(words: list[dict], min_seconds: float) -> list[list[dict]]:
    """Runs of words of at least `min_seconds`, cut where the speaker pauses."""
    parts = [[words[0]]]
    for word in words[1:]:
        pauses = word["start"] - parts[-1][-1]["end"] >= MIN_PAUSE_SECONDS
        if pauses and word["start"] - parts[-1][0]["start"] >= min_seconds:
            parts.append([])
        parts[-1].append(word)
    if len(parts) > 1 and parts[-1][-1]["end"] - parts[-1][0]["start"] < min_seconds / 2:
        last = parts.pop()
        parts[-1] += last
    return parts


def quiet_cuts(audio: np.ndarray, rate: int, seconds: float = 4.0, reach_seconds: float = 1.0) -> list[int]:
    """Samples at which to cut into pieces of about `seconds`: the quietest place near the end of each."""
    frame = rate // 20
    level = np.square(audio[: len(audio) // frame * frame].reshape(-1, frame)).mean(1)
    cuts, reach = [0], round(reach_seconds * 20)
    while len(audio) - cuts[-1] > 1.5 * seconds * rate:
        place = cuts[-1] // frame + round(seconds * 20)
        cuts.append((place - reach + int(np.argmin(level[place - reach : place + reach]))) * frame + frame // 2)
    return [*cuts, len(audio)]


def untimed_clips(audio: np.ndarray, rate: int, row: dict, out: Path) -> list[dict]:
    """The clips of a recording without a text."""
    clips, cuts = [], quiet_cuts(audio, rate)
    for number, (first, last) in enumerate(zip(cuts[:-1], cuts[1:], strict=True)):
        clips += write_clips(audio[first:last], rate, f"{Path(row['file_name']).stem}_{number}", "", [], row, out)
    return clips


def write_clips(
    piece: np.ndarray, rate: int, name: str, text: str, phones: list[tuple[str, float, float]], row: dict, out: Path
) -> list[dict]:
    """Writes a piece of a recording at each speed, and returns the metadata."""
    piece = piece / max(1e-3, np.abs(piece).max()) * 0.7
    clips = []
    for speed in SPEEDS:
        file_name = f"{name}_{speed:.2f}.flac"
        soundfile.write(out / file_name, soxr.resample(piece, rate * speed, rate), rate)
        timed = [(phone, round(start / speed, 3), round(end / speed, 3)) for phone, start, end in phones]
        speaker = f"{row['speaker']}-{speed:.2f}"
        clips.append({"file_name": file_name, "text": text, "speaker": speaker, "phones": timed})
    return clips


def timed_clips(job: tuple[dict, Path, float]) -> list[dict]:
    """The clips of one recording: writes their files and returns their metadata, nothing if it cannot be followed."""
    row, out, min_seconds = job
    audio, rate = soundfile.read(row["path"], dtype="float32")
    if not row["text"]:
        return untimed_clips(audio, rate, row, out)
    words = aligner(audio, rate, row["text"])
    if not words:
        return []
    clips = []
    parts = cut_at_pauses(words, min_seconds)
    for number, part in enumerate(parts):
        first = max(0.0, part[0]["start"] - MARGIN_SECONDS)
        last = min(len(audio) / rate, part[-1]["end"] + MARGIN_SECONDS)
        end = parts[number + 1][0]["span"][0] if number + 1 < len(parts) else len(row["text"])
        text = row["text"][part[0]["span"][0] if number else 0 : end].strip()
        phones = [(phone, a - first, b - first) for word in part for phone, a, b in word["phones"]]
        piece, name = audio[round(first * rate) : round(last * rate)], f"{Path(row['file_name']).stem}_{number}"
        clips += write_clips(piece, rate, name, text, phones, row, out)
    return clips


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--prefix", default="", help="put before the speakers' names, to tell sources apart")
    parser.add_argument("--min-seconds", type=float, default=2.0, help="shorter clips are not cut off")
    parser.add_argument("--leave-out", type=Path, help="text file of file names that are kept for validation")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()

    left_out = set(options.leave_out.read_text().splitlines()) if options.leave_out else set()
    with open(options.data / "metadata.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["file_name"] not in left_out]
    options.out.mkdir(parents=True, exist_ok=True)
    jobs = [
        (
            {**row, "path": options.data / row["file_name"], "speaker": options.prefix + row["speaker"]},
            options.out,
            options.min_seconds,
        )
        for row in rows
    ]
    kept = clips = 0
    with (
        multiprocessing.Pool(options.processes, start_aligner) as pool,
        open(options.out / "metadata.jsonl", "w") as file,
    ):
        for made in pool.imap(timed_clips, jobs, chunksize=8):
            kept += bool(made)
            clips += len(made)
            file.writelines(json.dumps(clip) + "\n" for clip in made)
    print(f"{kept} of {len(rows)} recordings could be timed; {clips} clips written to {options.out}")


if __name__ == "__main__":
    main()
