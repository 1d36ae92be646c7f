"""A text-to-speech pipeline that takes voices and settings as plain arguments of a call."""

from typing import Any

from transformers import TextToAudioPipeline


class DiTARTextToSpeechPipeline(TextToAudioPipeline):
    """
    The library's pipeline, with what DiTAR's processor and `generate` take as arguments of its own.

    Arguments of [`~DiTARProcessor.__call__`] are `voice`, `prompt_audio`, `prompt_text`, `sampling_rate` (of the
    prompt), `language` and `phonemize`; all others are settings of `generate`, such as `temperature`,
    `guidance_scale`, `num_inference_steps` or `generator`. Those that are given to the constructor hold for each call
    that does not say otherwise, but for `sampling_rate`, which is there that of the output.

    Example:

    ```python
    >>> pipe = pipeline("text-to-speech", model="path/to/model", pipeline_class=DiTARTextToSpeechPipeline)
    >>> speech = pipe("Hello there.", voice="ada", temperature=0.5)
    ```
    """

    def _sanitize_parameters(
        self,
        preprocess_params: dict[str, Any] | None = None,
        forward_params: dict[str, Any] | None = None,
        generate_kwargs: dict[str, Any] | None = None,
        voice: str | list[str | None] | None = None,
        prompt_audio: Any = None,
        prompt_text: str | list[str | None] | None = None,
        sampling_rate: int | None = None,
        language: str | None = None,
        phonemize: bool | None = None,
        **settings: Any,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        inputs = {
            "voice": voice,
            "prompt_audio": prompt_audio,
            "prompt_text": prompt_text,
            "sampling_rate": sampling_rate,
            "language": language,
            "phonemize": phonemize,
        }
        inputs = {name: value for name, value in inputs.items() if value is not None}
        # the library would drop what the constructor was given as soon as a call gives one setting
        earlier = getattr(self, "_forward_params", {}).get("generate_kwargs", {})
        return super()._sanitize_parameters(
            preprocess_params={**(preprocess_params or {}), **inputs},
            forward_params=forward_params,
            generate_kwargs={**earlier, **(generate_kwargs or {}), **settings},
        )
