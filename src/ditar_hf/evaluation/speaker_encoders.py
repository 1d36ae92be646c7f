"""Speaker encoders by name: recordings become directions, and the cosine between two says how alike voices are."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .summary import NotMeasuredError, one_line
from .waveforms import judged_samples

ENCODER_RATE = 16000
RESEMBLYZER_REMEDY = "pip install webrtcvad-wheels librosa && pip install --no-deps resemblyzer"
# Microsoft offers the checkpoint on Google Drive only; this is a copy of it on the Hub, known by its hash.
WAVLM_LARGE_REPOSITORY = "bezzam/wavlm_large_finetune_seed_tts_eval"
WAVLM_LARGE_FILE = "wavlm_large_finetune.pth"
WAVLM_LARGE_SHA256 = "51f07e3b94d9e0262a6a675ef5a087be3dd09e8c62e9d886827f44f82fe7f94b"

Embed = Callable[[np.ndarray, int], np.ndarray]


@dataclass(frozen=True)
class SpeakerEncoder:
    """
    A speaker encoder that has a name here.

    Args:
        model (`str`): The model behind it.
        measures (`str`): What cannot be measured without it.
        load (`Callable`): From a device to the function that embeds; what it gives may have any length.
    """

    model: str
    measures: str
    load: Callable[[str], Embed]


def load_speaker_encoder(name: str, device: str = "cpu") -> Embed:
    """
    A speaker encoder. Similarities by different encoders cannot be compared.

    Args:
        name (`str`):
            One of `SPEAKER_ENCODERS`:

            - `"wavlm-large-sv"`: the papers' ("SIM"), WavLM-large with an ECAPA-TDNN; 1.3 GB from a copy on the Hub,
              whose hash is checked, or from where `HF_HUB_CACHE` has it. It is read without running anything in it.
            - `"wavlm-base-plus-sv"`: smaller, by transformers.
            - `"resemblyzer"`: offline, by the package of that name, which carries its weights. It leaves silence out.

            Anything else is a folder or Hub id for transformers' `AutoModelForAudioXVector`.
        device (`str`, *optional*, defaults to `"cpu"`): Where the model computes.

    Returns:
        A function from samples `(num_samples,)` and their rate in Hz to an embedding `(dim,)` of length 1. It raises
        [`NotMeasuredError`] for a recording in which there is nothing to hear.

    Raises:
        NotMeasuredError:
            If the package or the model of a name cannot be had; the message says what it would have measured.
        ValueError: If a folder or Hub id is not found, or embeds no speakers.
    """
    if name not in SPEAKER_ENCODERS:
        try:
            return _of_unit_length(_xvector(name, device))
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(
                f"`name`: the speaker encoder {name!r} cannot be loaded ({error}). "
                f"Name one of {', '.join(map(repr, SPEAKER_ENCODERS))}, a folder or a Hub id."
            ) from error
    encoder = SPEAKER_ENCODERS[name]
    try:
        return _of_unit_length(encoder.load(device))
    except (NotMeasuredError, OSError, ValueError, KeyError) as error:
        raise NotMeasuredError(
            f"the speaker encoder {name} ({encoder.model}), for {encoder.measures}, cannot be had: {one_line(error)}"
        ) from error


def _of_unit_length(embed: Embed) -> Embed:
    def of_unit_length(waveform: np.ndarray, sampling_rate: int) -> np.ndarray:
        # digital silence has no voice, and encoders that normalise would divide by nothing
        samples = judged_samples(waveform, sampling_rate, ENCODER_RATE)
        if not samples.any():
            raise NotMeasuredError("the recording is silent")
        embedding = embed(samples, ENCODER_RATE)
        return embedding / np.linalg.norm(embedding)

    return of_unit_length


def _xvector(model: str, device: str) -> Embed:
    import torch
    from transformers import AutoFeatureExtractor, AutoModelForAudioXVector

    network, loading = AutoModelForAudioXVector.from_pretrained(model, output_loading_info=True)
    # transformers would make up what is missing, as the head of a model that knows no speakers
    if loading["missing_keys"]:
        raise ValueError(f"it has no {sorted(loading['missing_keys'])[0]}")
    extractor = AutoFeatureExtractor.from_pretrained(model)
    if extractor.sampling_rate != ENCODER_RATE:
        raise ValueError(f"it takes audio at {extractor.sampling_rate} Hz, not {ENCODER_RATE}")
    network = network.to(device).eval()

    @torch.no_grad()
    def embed(samples: np.ndarray, sampling_rate: int) -> np.ndarray:
        inputs = extractor(samples, sampling_rate=sampling_rate, return_tensors="pt").to(device)
        return network(**inputs).embeddings[0].float().cpu().numpy()

    return embed


def _wavlm_large(device: str) -> Embed:
    import torch
    from huggingface_hub import hf_hub_download

    from .speaker_network import load_speaker_network

    path = hf_hub_download(WAVLM_LARGE_REPOSITORY, WAVLM_LARGE_FILE)
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != WAVLM_LARGE_SHA256:
        raise ValueError(f"{path} has the SHA-256 {found}, not that of Microsoft's checkpoint")
    network = load_speaker_network(path).to(device)

    @torch.no_grad()
    def embed(samples: np.ndarray, sampling_rate: int) -> np.ndarray:
        return network(torch.from_numpy(samples).to(device)).cpu().numpy()

    return embed


def _resemblyzer(device: str) -> Embed:
    try:
        import resemblyzer
    except ImportError as error:
        raise NotMeasuredError(f"{error}: {RESEMBLYZER_REMEDY}") from error
    encoder = resemblyzer.VoiceEncoder(device, verbose=False)

    def embed(samples: np.ndarray, sampling_rate: int) -> np.ndarray:
        voiced = resemblyzer.preprocess_wav(samples)
        if not len(voiced):
            raise NotMeasuredError("no voice is heard in the recording")
        return encoder.embed_utterance(voiced)

    return embed


SPEAKER_ENCODERS: dict[str, SpeakerEncoder] = {
    "wavlm-large-sv": SpeakerEncoder(
        f"{WAVLM_LARGE_FILE} of UniSpeech, from {WAVLM_LARGE_REPOSITORY}",
        "the papers' speaker similarity (SIM)",
        _wavlm_large,
    ),
    "wavlm-base-plus-sv": SpeakerEncoder(
        "microsoft/wavlm-base-plus-sv",
        "speaker similarity",
        lambda device: _xvector("microsoft/wavlm-base-plus-sv", device),
    ),
    "resemblyzer": SpeakerEncoder(
        "the model of the package resemblyzer", "speaker similarity without a network", _resemblyzer
    ),
}
