"""A text-to-speech pipeline that takes voices, settings and seeds as plain arguments, for a call or for each item."""

import os
from collections.abc import Iterable, Mapping
from types import GeneratorType
from typing import Any

import torch
from transformers import AutoProcessor, GenerationConfig, TextToAudioPipeline

# What says whose voice speaks: an item that names one of them is not mixed with what the call says of the others.
PROMPT_ARGUMENTS = ("voice", "prompt_audio", "prompt_text", "sampling_rate", "prompt_language")
INPUT_ARGUMENTS = (*PROMPT_ARGUMENTS, "language", "phonemize", "seed")


class DiTARTextToSpeechPipeline(TextToAudioPipeline):
    """
    The library's pipeline, with what DiTAR's processor and `generate` take as arguments of its own.

    Arguments of [`~DiTARProcessor.__call__`] are `voice`, `prompt_audio`, `prompt_text`, `sampling_rate` (of the
    prompt), `prompt_language`, `language` and `phonemize`; all others are settings of `generate`, such as
    `temperature`, `guidance_scale` or `num_inference_steps`. `seed` stands for a generator: each item draws its noise
    from one of its own, so that it sounds the same alone and in a batch. Those that are given to the constructor hold
    for each call that does not say otherwise, but for `sampling_rate`, which is there that of the output.

    Example:

    ```python
    >>> pipe = pipeline("text-to-speech", model="path/to/model", pipeline_class=DiTARTextToSpeechPipeline)
    >>> speech = pipe("Hello there.", voice="ada", temperature=0.5, seed=7)
    >>> both = pipe([{"text": "Hello.", "voice": "ada"}, {"text": "Goodbye.", "voice": "bob"}], batch_size=2)
    ```
    """

    def __call__(self, text_inputs: Any, **kwargs: Any) -> Any:
        """
        Speaks one text or many.

        Args:
            text_inputs (`str`, `dict`, or an iterable of them):
                What to say: a string, or a dictionary with `text` and any of `voice`, `prompt_audio`, `prompt_text`,
                `sampling_rate`, `prompt_language`, `language`, `phonemize` and `seed` for this item, `None` for what
                the call says. A voice or prompt of the item replaces that of the call as a whole.
            **kwargs:
                What holds for all items, see the class, and the library's `batch_size`, `num_workers`,
                `preprocess_params`, `forward_params` and `generate_kwargs`.

        Returns:
            `dict` with `audio` (`np.ndarray` of shape `(num_samples,)`, float32) and `sampling_rate` (`int`, hertz).
            For a list or tuple a list of them, of an empty one an empty list; for a generator, a dataset or a column
            of one an iterator, which speaks when it is asked for the next.

        Raises:
            ValueError: If an item has an unknown key or no text, `seed` is no whole number from 0, or the processor or
                `generate` refuses what it gets.
        """
        if isinstance(text_inputs, tuple):
            text_inputs = list(text_inputs)
        elif not isinstance(text_inputs, (str, Mapping, list, GeneratorType, torch.utils.data.Dataset)):
            if not isinstance(text_inputs, Iterable) or isinstance(text_inputs, bytes):
                raise ValueError(
                    f"`text_inputs` is a {type(text_inputs).__name__}. Pass a string, a dictionary with `text`, or a"
                    " list of them."
                )
            text_inputs = (item for item in text_inputs)  # as of `datasets`, which the library takes for one item
        return [] if text_inputs == [] else super().__call__(text_inputs, **kwargs)

    def _sanitize_parameters(
        self,
        preprocess_params: dict[str, Any] | None = None,
        forward_params: dict[str, Any] | None = None,
        generate_kwargs: dict[str, Any] | None = None,
        **arguments: Any,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        inputs = {name: arguments.pop(name) for name in INPUT_ARGUMENTS if arguments.get(name) is not None}
        settings = {name: value for name, value in arguments.items() if name not in INPUT_ARGUMENTS}
        named = {
            "preprocess_params": preprocess_params,
            "forward_params": forward_params,
            "generate_kwargs": generate_kwargs,
        }
        for name, value in named.items():
            if value is not None and not isinstance(value, Mapping):
                raise ValueError(f"`{name}` must be a dictionary, got {value!r}. Pass what is in it by name.")
        for values in (settings, forward_params or {}, generate_kwargs or {}):
            config = values.get("generation_config")
            if config is not None and not isinstance(config, GenerationConfig):
                raise ValueError(
                    f"`generation_config` is of type {type(config).__name__}. Pass a DiTARGenerationConfig, or"
                    " settings by name, such as `temperature=0.5`."
                )
        if unknown := sorted(map(str, (preprocess_params or {}).keys() - set(INPUT_ARGUMENTS))):
            raise ValueError(
                f"`preprocess_params` has the key {unknown[0]!r}, which says nothing to the pipeline. It takes "
                f"{', '.join(f'`{name}`' for name in INPUT_ARGUMENTS)}."
            )
        inputs = {**(preprocess_params or {}), **inputs}
        if inputs.keys() & set(PROMPT_ARGUMENTS):  # a voice of the call replaces that of the constructor as a whole
            inputs = dict.fromkeys(PROMPT_ARGUMENTS) | inputs
        # the library would drop what the constructor was given as soon as a call gives one setting
        earlier = getattr(self, "_forward_params", {}).get("generate_kwargs", {})
        return super()._sanitize_parameters(
            preprocess_params=inputs,
            forward_params=forward_params,
            generate_kwargs={**earlier, **(generate_kwargs or {}), **settings},
        )

    def preprocess(self, text: Any, **inputs: Any) -> dict[str, Any]:
        """
        Model inputs of one item; the library calls it.

        Args:
            text (`str` or `dict`): An item of a call.
            **inputs: What the call and the constructor say.

        Returns:
            `dict[str, Any]`: What the processor gives, always with a prompt, which may be masked, for only items of
            the same keys make a batch; and `seed`.

        Raises:
            ValueError: See [`~DiTARTextToSpeechPipeline.__call__`].
        """
        if isinstance(text, Mapping):
            text, inputs = self._item(text, inputs)
        if self.processor is None:
            fault = self._fault_of_processor()
            raise ValueError(
                f"no processor came with the model in {self.model.name_or_path!r}{fault}. Pass one: "
                "`pipeline(…, processor=DiTARProcessor.from_pretrained(…))`."
            )
        if not isinstance(text, str):
            raise ValueError(f"`text` must be a string, got {type(text).__name__}.")
        for name in ("voice", "prompt_text"):
            if isinstance(inputs.get(name), (list, tuple)):
                raise ValueError(
                    f"`{name}` is a list, but holds for all texts. Give each item its own:"
                    f" `[{{'text': …, '{name}': …}}]`."
                )
        seed = inputs.pop("seed", None)
        if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63):
            raise ValueError(f"`seed` must be a whole number from 0 to 2⁶³ − 1, got {seed!r}.")
        data = dict(self.processor([text], return_tensors="pt", **inputs))
        if "prompt_values" not in data:
            no_prompt = torch.zeros(1, self.processor.feature_extractor.patch_length)
            data |= {"prompt_values": no_prompt, "prompt_mask": no_prompt.long()}
        return {**data, "seed": seed}

    def _fault_of_processor(self) -> str:
        """Why the library, which goes on in silence without a processor, could not load one."""
        has_code = type(self.model).__module__.startswith("transformers_modules.")
        try:
            AutoProcessor.from_pretrained(self.model.name_or_path, trust_remote_code=has_code)
        except Exception as error:  # whatever it failed with then
            return f": {str(error).rstrip('.')}"
        return ""

    def _item(self, item: Mapping, inputs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Text of an item, and its arguments over those of the call."""
        if unknown := sorted(map(str, item.keys() - {"text", *INPUT_ARGUMENTS})):
            raise ValueError(
                f"an item has the key {unknown[0]!r}, which says nothing to the pipeline. It takes `text`, "
                f"{', '.join(f'`{name}`' for name in INPUT_ARGUMENTS)}. Leave it out, for example by "
                "`select_columns` of `datasets`."
            )
        if item.get("text") is None:
            raise ValueError(f"an item has no `text`, only {sorted(map(str, item))}. Say in it what to speak.")
        own = {name: value for name, value in item.items() if name != "text" and value is not None}
        if own.keys() & set(PROMPT_ARGUMENTS):
            inputs = {name: value for name, value in inputs.items() if name not in PROMPT_ARGUMENTS}
        return item["text"], {**inputs, **own}

    def _forward(self, model_inputs: dict[str, Any], **kwargs: Any) -> Any:
        seeds = model_inputs.pop("seed")
        seeds = seeds if isinstance(seeds, list) else [seeds]
        if not model_inputs["prompt_mask"].any():
            del model_inputs["prompt_values"], model_inputs["prompt_mask"]
        if any(seed is not None for seed in seeds):
            if "generator" in kwargs["generate_kwargs"] | kwargs["forward_params"]:
                raise ValueError("`seed` and `generator` are both given. Pass one of them.")
            # on the CPU whatever the device is, so that a seed gives the same noise on each
            generator = [torch.default_generator if seed is None else _generator(seed) for seed in seeds]
            kwargs["generate_kwargs"] = {**kwargs["generate_kwargs"], "generator": generator}
        return super()._forward(model_inputs, **kwargs)

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any):
        """
        Saves the model and its processor, of which the library's pipeline saves only the tokenizer.

        Args:
            save_directory (`str` or `os.PathLike`): A folder, made if it does not exist.
            **kwargs: As for `PreTrainedModel.save_pretrained`.

        Raises:
            ValueError: If `save_directory` is a file.
        """
        if os.path.isfile(save_directory):
            raise ValueError(f"`save_directory` is {str(save_directory)!r}, a file. Pass a folder.")
        super().save_pretrained(save_directory, **kwargs)
        if self.processor is not None:
            self.processor.save_pretrained(save_directory)


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
