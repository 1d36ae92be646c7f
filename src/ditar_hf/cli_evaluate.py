"""`ditar evaluate`: a test set is spoken, and the speech measured. Heavy packages are imported late."""

import shlex
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .cli_common import errors_only, exits_with_2, find_device, given, note

if TYPE_CHECKING:
    import numpy as np

    from .evaluation.test_sets import TestItem

EXAMPLES = """
Examples:

ditar evaluate --model hub_cards/ditar-tiny-en --set sentences --list examples/studies/sentences.txt --out runs/report

ditar evaluate --model org/name --set seed-en --list seedtts_testset/en/meta.lst --out report

torchrun --nproc-per-node 8 -m ditar_hf.cli evaluate --model org/name --set librispeech-pc
--list librispeech_pc_test_clean_cross_sentence.lst --audio-root LibriSpeech/test-clean --out report
"""
LIMIT_LOGGER = "ditar_hf.modeling.generation_ditar"

app = typer.Typer(rich_markup_mode="rich")


@app.command(epilog=EXAMPLES)
def evaluate(
    model: Annotated[str, typer.Option(help="Folder or Hub id of the model.")],
    test_set: Annotated[
        str,
        typer.Option("--set", help="librispeech-pc, librispeech-a, seed-en, seed-zh, folder or sentences."),
    ],
    path: Annotated[Path, typer.Option("--list", help="The list of the test set.")],
    out: Annotated[Path, typer.Option(help="The folder of the report; an interrupted evaluation in it goes on.")],
    audio_root: Annotated[
        Path | None, typer.Option(help="Where its recordings lie. Not given: beside the list.")
    ] = None,
    protocol: Annotated[str | None, typer.Option(help="Of word error. Not given: that of the set.")] = None,
    encoder: Annotated[str | None, typer.Option(help="Of speaker likeness. Not given: that of the set.")] = None,
    max_items: Annotated[int | None, typer.Option(min=1, help="Take only the first ones.")] = None,
    language: Annotated[str | None, typer.Option(help="Language of the texts. Not given: the model's.")] = None,
    temperature: Annotated[float | None, typer.Option(help="Not given: the model's own, as for the next two.")] = None,
    guidance_scale: Annotated[float | None, typer.Option(help="1 is no guidance.")] = None,
    steps: Annotated[int | None, typer.Option(help="Solver steps for each patch.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of all noise.")] = 0,
    device: Annotated[str | None, typer.Option(help="Where to compute. Not given: a GPU if there is one.")] = None,
) -> None:
    """Speak a test set and measure the speech, beside its recordings and what the speech tokenizer makes of them."""
    with exits_with_2(ValueError, OSError, path="--list", name="--set", protocol="--protocol", encoder="--encoder"):
        from accelerate import PartialState

        from .evaluation.protocols import find_protocol
        from .evaluation.speaker_encoders import SPEAKER_ENCODERS
        from .evaluation.speech_evaluation import SpeechEvaluation
        from .evaluation.test_sets import TEST_SETS, read_test_set
        from .evaluation.vae_report import file_sums

        items = read_test_set(test_set, path, audio_root)[:max_items]
        kind = TEST_SETS[test_set]
        protocol, encoder = find_protocol(protocol or kind.protocol).name, encoder or kind.encoder
        if encoder not in SPEAKER_ENCODERS:
            raise ValueError(f"`encoder` {encoder!r} is not known. Name one of {', '.join(SPEAKER_ENCODERS)}.")
        generation = given(temperature=temperature, guidance_scale=guidance_scale, num_inference_steps=steps)
        # a model card takes figures only of the weights that were measured
        settings = {
            "model": model,
            "sha256": file_sums(model),
            "set": test_set,
            "list": path.name,
            "language": language,
            "generation": generation,
        }
        evaluation = SpeechEvaluation(out, items, settings, seed)
        target_device = find_device(device)
        # without `cpu`, processes on a machine without a GPU would not know of one another
        # the others wait while the first one scores, which may take hours
        state = PartialState(cpu=target_device.type == "cpu", timeout=timedelta(days=7))
        target_device = target_device if state.num_processes == 1 else state.device
        synthesize, resynthesize = _voices(model, str(target_device), language, generation)
        if state.is_main_process:
            evaluation.begin()
        state.wait_for_everyone()
        try:
            with errors_only(LIMIT_LOGGER):  # the report counts and names them
                evaluation.synthesize(synthesize, state.process_index, state.num_processes)
        except KeyboardInterrupt:
            num_spoken = sum(evaluation.audio("model", item).is_file() for item in items)
            note(f"interrupted: {num_spoken} of {len(items)} are spoken, and the same command goes on")
            raise
        state.wait_for_everyone()
        if state.is_main_process:
            evaluation.add_bounds(resynthesize)
            _report(evaluation, protocol, encoder, target_device)
        state.wait_for_everyone()
    state.destroy_process_group()


def _voices(model: str, device: str, language: str | None, generation: dict[str, Any]) -> tuple[Callable, Callable]:
    """Functions that say an item, and that encode and decode a recording."""
    import torch

    from .cli_models import load_model, load_processor
    from .evaluation.waveforms import read_waveform, resampled

    processor, speaker = load_processor(model), load_model(model).to(device).eval()
    rate = speaker.config.sampling_rate

    def synthesize(item: "TestItem", seed: int) -> "tuple[np.ndarray, int, bool]":
        prompt = {}
        if item.prompt_audio is not None:
            samples, prompt_rate = read_waveform(item.prompt_audio)
            prompt = {"prompt_audio": samples, "sampling_rate": prompt_rate, "prompt_text": item.prompt_text}
        inputs = processor(item.text, **prompt, **given(language=language)).to(device)
        output = speaker.generate(**inputs, generator=torch.Generator().manual_seed(seed), **generation)
        return output.audio[0].float().cpu().numpy(), rate, bool(output.reached_limit[0])

    @torch.no_grad()
    def resynthesize(waveform: "np.ndarray", sampling_rate: int) -> "tuple[np.ndarray, int]":
        samples = torch.from_numpy(resampled(waveform, sampling_rate, rate))
        length = len(samples)
        samples = torch.nn.functional.pad(samples, (0, -length % speaker.config.patch_length))
        latents = speaker.vae.encode(samples[None].to(device)).mode()
        return speaker.vae.decode(latents)[0, :length].clamp(-1, 1).cpu().numpy(), rate

    return synthesize, resynthesize


def _report(evaluation: Any, protocol: str, encoder: str, device: Any) -> None:
    from .evaluation.speech_measures import load_measures
    from .evaluation.speech_report import write_speech_report
    from .evaluation.vae_report import environment

    measures = load_measures(protocol, encoder, str(device))
    scores = evaluation.score(measures)
    model = {name: evaluation.settings[key] for name, key in (("name", "model"), ("sha256", "sha256"))}
    about = {"command": shlex.join(["ditar", *sys.argv[1:]]), "environment": environment(device), "model": model}
    typer.echo(write_speech_report(evaluation, scores, measures, about))
    for reason in sorted({score["not_measured"] for score in scores if "not_measured" in score}):
        note(f"not measured: {reason}")
    if evaluation.run_aways:
        note(f"{len(evaluation.run_aways)} of {len(evaluation.items)} ran into the limit of their length")
    typer.echo(f"{evaluation.folder}: the report, in report.md and report.json, and index.html to listen to")
    if all("not_measured" in score for score in scores):
        raise ValueError("nothing was measured, for the reasons above. The speech is kept: repeat the command then")
