"""Recordings, data sets in the layouts of public ones, and tiny runs for the tests of training."""

import gzip
import io
import json
import tarfile

import numpy as np
import pytest
import soundfile
import torch


def tone(seconds: float, rate: int, pitch: float) -> np.ndarray:
    """A buzz with a little noise, float32 of shape `(num_samples,)`."""
    time = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(round(pitch)).standard_normal(len(time)) * 0.02
    return (0.2 * np.sign(np.sin(2 * np.pi * pitch * time)) + noise).astype(np.float32)


@pytest.fixture
def recordings(tmp_path):
    """Folder of six recordings of about half a second, of 24 and of 16 kHz."""
    folder = tmp_path / "recordings"
    folder.mkdir()
    for index in range(6):
        rate = 24000 if index % 2 else 16000
        soundfile.write(folder / f"{index}.wav", tone(0.4 + 0.05 * index, rate, 110 + 30 * index), rate)
    return folder


@pytest.fixture
def encode_speech():
    """`encode_speech(seconds, rate=24_000, format="WAV", pitch=200)`: a recording as the bytes of its file."""

    def encode(seconds: float, rate: int = 24_000, format: str = "WAV", pitch: float = 200) -> bytes:
        file = io.BytesIO()
        soundfile.write(file, tone(seconds, rate, pitch), rate, format=format)
        return file.getvalue()

    return encode


@pytest.fixture
def put_tar():
    """`put_tar(file, members)`: a tar file as `webdataset` writes it, of names to bytes or to what becomes JSON."""

    def put(file, members):
        file.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(file, "w") as archive:
            for name, content in members.items():
                content = content if isinstance(content, bytes) else json.dumps(content).encode()
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
        return file

    return put


@pytest.fixture
def emilia(encode_speech):
    """`emilia(number, **fields)`: members of a recording as in Emilia's tar files, MP3 first; fields replace."""

    def members(number, **fields):
        key = f"EN_B00000_S00000_W{number:06d}"
        stated = {"id": key, "wav": f"{key}.wav", "text": f" Sentence {number}.", "duration": 0.1}
        stated |= {"speaker": "EN_B00000", "language": "en", "dnsmos": 3.3}
        return {f"{key}.mp3": encode_speech(0.1, format="MP3"), f"{key}.json": {**stated, **fields}}

    return members


@pytest.fixture
def yodas(encode_speech):
    """`yodas(number, **fields)`: members of a recording as in Emilia-YODAS's tar files, JSON first; fields replace."""

    def members(number, **fields):
        key = f"EN_-abc_W{number:06d}"
        stated = {"_id": key, "text": f" Words {number}", "duration": 0.2, "speaker": "EN_-abc", "language": "en"}
        stated |= {"dnsmos": 3.1, "phone_count": 9}
        return {f"{key}.json": {**stated, **fields}, f"{key}.mp3": encode_speech(0.2, format="MP3")}

    return members


@pytest.fixture
def make_librilight(tmp_path):
    """
    `make_librilight(voice_activity, seconds=8.0, speaker="100", book="sea_fairies", stem="01_baum")` puts a file of
    Libri-light into `tmp_path / "librilight" / "small"`, with the JSON beside it, and returns the file's path. Noise
    all through, so that each of its samples is told from the others.
    """

    def make(voice_activity, seconds=8.0, speaker="100", book="sea_fairies", stem="01_baum"):
        file = tmp_path / "librilight" / "small" / speaker / book / f"{stem}.flac"
        file.parent.mkdir(parents=True, exist_ok=True)
        samples = 0.2 * np.random.default_rng(len(str(file))).standard_normal(round(seconds * 16_000))
        soundfile.write(file, samples.clip(-1, 1), 16_000)
        stated = {"speaker": speaker, "book_meta": {"id": "1", "title": "The Sea Fairies"}, "snr": 9.1}
        file.with_suffix(".json").write_text(json.dumps({**stated, "voice_activity": voice_activity}))
        return file

    return make


@pytest.fixture
def make_cut():
    """
    `make_cut(number, start, duration, texts=…, source=…)`: a line of a manifest of libriheavy, by default of the file
    that `make_librilight` makes, as a `dict`.
    """

    def make(number, start, duration, texts=None, source="small/100/sea_fairies/01_baum.flac"):
        recording = source.removesuffix(".flac")
        texts = texts or [f'"It\'s {number}," she asked.', f"IT'S {number} SHE ASKED"]
        supervision = {
            "id": f"{recording}_{number}",
            "recording_id": recording,
            "start": 0,
            "duration": duration,
            "channel": 0,
            "language": "English",
            "speaker": source.split("/")[1],
            "custom": {"texts": texts, "pre_texts": ["...", "..."], "begin_byte": 10, "end_byte": 20},
        }
        sources = [{"type": "file", "channels": [0], "source": f"download/librilight/{source}"}]
        return {
            "id": f"{recording}_{number}",
            "start": start,
            "duration": duration,
            "channel": 0,
            "supervisions": [supervision],
            "recording": {
                "id": recording,
                "sources": sources,
                "sampling_rate": 16_000,
                "num_samples": 128_000,
                "duration": 8.0,
                "channel_ids": [0],
            },
            "custom": {"text_path": "download/librilight_text/output_text_small_cleaned/Sea Fairies/text.txt"},
            "type": "MonoCut",
        }

    return make


@pytest.fixture
def put_manifest():
    """`put_manifest(file, cuts)`: a manifest of lhotse, a line of JSON for each cut, with gzip."""

    def put(file, cuts):
        with gzip.open(file, "wt", encoding="utf-8") as stream:
            stream.writelines(f"{json.dumps(cut)}\n" for cut in cuts)
        return file

    return put


@pytest.fixture
def make_vae(make_vae_config):
    """Factory of tiny `DiTARVAE`s in `eval()` whose latent statistics matter; overrides replace fields."""
    from ditar_hf import DiTARVAE

    def make(seed=0, **overrides):
        torch.manual_seed(seed)
        vae = DiTARVAE(make_vae_config(**overrides)).eval()
        channels = torch.linspace(0, 1, vae.config.latent_dim)
        vae.set_latent_statistics(channels - 0.4, 0.5 + channels)
        return vae

    return make


TINY_DISCRIMINATORS = {
    "crop_seconds": 0.1,
    "periods": (2, 3),
    "period_channels": (4, 8),
    "num_scales": 1,
    "scale_channels": (4, 8),
    "scale_strides": (1, 4),
    "scale_groups": (1, 2),
}


@pytest.fixture
def make_vae_arguments(tmp_path, recordings, make_vae_config):
    """Factory of `VAETrainingArguments` of a run of six steps that goes through all phases; overrides replace."""
    from ditar_hf.training.data import AudioSource
    from ditar_hf.training.vae_arguments import VAETrainingArguments
    from ditar_hf.training.vae_crops import CropArguments
    from ditar_hf.training.vae_discriminators import DiscriminatorArguments

    sizes = make_vae_config().to_diff_dict()
    sizes = {name: sizes[name] for name in sizes if name not in ("model_type", "transformers_version")}

    def make(**overrides):
        values = {
            "output_dir": str(tmp_path / "run"),
            "data": [AudioSource(str(recordings))],
            "vae": sizes,
            "crops": CropArguments(crop_seconds=0.2, max_speed_change=0.1),
            "discriminators": DiscriminatorArguments(**TINY_DISCRIMINATORS),
            "max_steps": 6,
            "batch_size": 2,
            "learning_rate": 1e-3,
            "warmup_steps": 1,
            "adversarial_start_step": 2,
            "freeze_encoder_step": 5,
            "num_statistics_batches": 2,
            "logging_steps": 2,
            "save_steps": 3,
            "cpu": True,
        }
        return VAETrainingArguments(**{**values, **overrides})

    return make


@pytest.fixture
def load_tensors():
    """`load_tensors(checkpoint)`: everything in a checkpoint by file and name, for comparisons bit by bit."""
    from safetensors.torch import load_file

    def flatten(value, prefix):
        if isinstance(value, dict):
            for key, item in value.items():
                yield from flatten(item, f"{prefix}/{key}")
        elif isinstance(value, list | tuple):
            for index, item in enumerate(value):
                yield from flatten(item, f"{prefix}/{index}")
        elif isinstance(value, torch.Tensor | int | float | str | bool | type(None)):
            yield prefix, value

    def load(checkpoint):
        found = {}
        for file in sorted(checkpoint.iterdir()):
            if file.suffix == ".safetensors":
                found.update(flatten(load_file(file), file.name))
            elif file.suffix in (".bin", ".pkl") and "random" not in file.name:
                found.update(flatten(torch.load(file, weights_only=False), file.name))
        return found

    return load
