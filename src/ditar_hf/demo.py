"""The demo: a page where one writes a text, chooses or records a voice, and listens. Needs the extra `demo`."""

import html
from typing import Any

import gradio as gr
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg

from ditar_hf import DiTARForTextToSpeech, DiTARProcessor

from .demo_speech import RECORDING, DemoSpeaker
from .modeling.voices_ditar import RANDOM_VOICE
from .plotting import draw_spectrogram

CONSENT = (
    "The person in the recording agrees that their voice is imitated, and I will say that the speech is synthetic."
)
# recordings of people and what was made of them do not stay: looked for every 10 minutes, deleted after an hour
DELETE_CACHE_SECONDS = (600, 3600)
MAX_RECORDING = "20mb"
MAX_QUEUE = 20


def build_demo(model: DiTARForTextToSpeech, processor: DiTARProcessor, name: str) -> gr.Blocks:
    """
    The page.

    Args:
        model ([`DiTARForTextToSpeech`]): On the device that shall compute.
        processor ([`DiTARProcessor`]): Of the model; its voices can be chosen by name.
        name (`str`): Of the model, for the heading.

    Returns:
        `gradio.Blocks`, to be launched by [`launch_demo`].
    """
    speaker = DemoSpeaker(model, processor)
    with gr.Blocks(title=f"{name} · DiTAR", analytics_enabled=False, delete_cache=DELETE_CACHE_SECONDS) as demo:
        gr.Markdown(f"# {name}\nText-to-speech with DiTAR. All that you hear as a result is synthetic.")
        with gr.Row():
            with gr.Column():
                text = gr.Textbox(label="Text", lines=3, placeholder="What shall be said", elem_id="text")
                voice = _voice_choice(processor)
                recording = _recording_inputs(voice)
                settings = _settings(model, processor)
                button = gr.Button("Speak", variant="primary", elem_id="speak")
            with gr.Column():
                outputs = [
                    gr.Audio(label="Speech", interactive=False, format="wav", buttons=["download"], elem_id="speech"),
                    gr.Textbox(label="Result", interactive=False, elem_id="result"),
                    gr.Image(
                        # gradio would lay label and buttons over the axes
                        show_label=False,
                        buttons=[],
                        interactive=False,
                        format="png",
                        alt_text="Spectrogram of the speech",
                        elem_id="spectrogram",
                    ),
                ]
        button.click(_handler(speaker), [text, voice, *recording, *settings], outputs, api_name="speak")
    return demo.queue(max_size=MAX_QUEUE, default_concurrency_limit=1)


def launch_demo(demo: gr.Blocks, host: str | None = None, port: int | None = None) -> str:
    """
    Serves the page, in threads of its own, without a public link, and tells nobody: gradio's analytics are off.

    Args:
        demo (`gradio.Blocks`): Of [`build_demo`].
        host (`str`, *optional*): The address to listen on; by default gradio's, which is this machine alone.
        port (`int`, *optional*): By default the first free one from 7860.

    Returns:
        `str`: The URL. `demo.block_thread()` waits until it is interrupted.

    Raises:
        OSError: If the port is taken.
    """
    _, url, _ = demo.launch(
        server_name=host,
        server_port=port,
        share=False,
        ssr_mode=False,
        run_history=False,
        footer_links=[],
        max_file_size=MAX_RECORDING,
        quiet=True,
        prevent_thread_lock=True,
    )
    return url


def _voice_choice(processor: DiTARProcessor) -> gr.Radio:
    """The names of voices, each with a player of its prompt."""
    names = sorted(processor.voices)
    choices = [*names, ("made up by the model", RANDOM_VOICE), (RECORDING, RECORDING)]
    first = processor.default_voice or RANDOM_VOICE
    voice = gr.Radio(choices, value=first, label="Voice", elem_id="voice")
    if names:
        player = gr.Audio(
            _example(processor, first),
            label=_example_label(processor, first),
            visible=first in processor.voices,
            interactive=False,
            buttons=[],
            elem_id="example",
        )
        voice.change(
            lambda name: gr.update(
                value=_example(processor, name),
                label=_example_label(processor, name),
                visible=name in processor.voices,
            ),
            voice,
            player,
            api_visibility="private",
        )
    return voice


def _example(processor: DiTARProcessor, name: str) -> tuple[int, np.ndarray] | None:
    known = processor.voices.get(name)
    return None if known is None else (known.sampling_rate, _int16(known.audio))


def _example_label(processor: DiTARProcessor, name: str) -> str:
    return f"{name}: “{processor.voices[name].text}”" if name in processor.voices else ""


def _recording_inputs(voice: gr.Radio) -> list[gr.components.Component]:
    """Recording, transcript and consent, seen only where a recording is the voice."""
    with gr.Group(visible=voice.value == RECORDING) as group:
        inputs = [
            gr.Audio(
                sources=["upload", "microphone"],
                type="filepath",
                label="Recording of the voice, a few seconds",
                elem_id="recording",
            ),
            gr.Textbox(label="What is said in it, word for word", elem_id="transcript"),
            gr.Checkbox(label=CONSENT, value=False, elem_id="consent"),
        ]
    voice.change(lambda name: gr.update(visible=name == RECORDING), voice, group, api_visibility="private")
    return inputs


def _settings(model: DiTARForTextToSpeech, processor: DiTARProcessor) -> list[gr.components.Component]:
    """Settings, at the model's own values."""
    own = model.generation_config
    languages = processor.tokenizer.languages if processor.reads_phonemes else []
    with gr.Accordion("Settings", open=False, elem_id="settings"):
        return [
            gr.Slider(0, 1, own.temperature, step=0.1, label="Temperature", info="0: each time the same"),
            gr.Slider(
                1,
                max(5, own.guidance_scale),
                own.guidance_scale,
                step=0.1,
                label="Guidance",
                info="How closely text and voice are followed; 1 is none, and faster",
            ),
            gr.Slider(
                1,
                max(50, own.num_inference_steps),
                own.num_inference_steps,
                step=1,
                label="Steps",
                info="Diffusion steps for each 0.1 s of speech; fewer are faster",
            ),
            # no gr.Number, which shows a 0 when it is empty
            gr.Textbox(
                label="Seed",
                info="Of the noise, above a temperature of 0",
                placeholder="drawn each time",
                max_lines=1,
                elem_id="seed",
            ),
            gr.Dropdown(
                languages,
                value=processor.tokenizer.language if languages else None,
                label="Language of text and recording",
                visible=len(languages) > 1,
            ),
        ]


def _handler(speaker: DemoSpeaker) -> Any:
    """From the inputs of the page, in their order, to its outputs."""

    def speak(text, voice, recording, transcript, has_consent, temperature, guidance_scale, steps, seed, language):
        try:
            speech = speaker(
                text,
                voice,
                recording,
                transcript,
                has_consent,
                _seed(seed),
                language,
                temperature=temperature,
                guidance_scale=guidance_scale,
                num_inference_steps=steps,
            )
        except ValueError as error:
            # messages quote what was written, and gradio takes them for HTML
            raise gr.Error(html.escape(str(error), quote=False), duration=None, print_exception=False) from error
        samples = _int16(speech.waveform)
        return (speech.sampling_rate, samples), speech.summary, _picture(speech.waveform, speech.sampling_rate)

    return speak


def _seed(written: str | None) -> int | None:
    written = (written or "").strip()
    if not written:
        return None
    if not (written.isascii() and written.isdecimal()):
        raise ValueError(f"The seed must be a whole number from 0, got {written!r}. Leave it empty to draw one.")
    return int(written)


def _int16(waveform: np.ndarray) -> np.ndarray:
    """As in a file: gradio would scale floats to full level."""
    return np.clip(np.round(waveform * 2**15), -(2**15), 2**15 - 1).astype(np.int16)


def _picture(waveform: np.ndarray, sampling_rate: int) -> np.ndarray:
    """The spectrogram, of shape `(height, width, 3)`."""
    figure = draw_spectrogram(waveform, sampling_rate)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
