"""Configuration of the continuous speech tokenizer (DiTAR, section 3.5.1), and what all configurations share."""

import dataclasses
import difflib
import functools
import math
import os
from typing import Any, Literal

import torch
from huggingface_hub.dataclasses import strict
from huggingface_hub.errors import StrictDataclassClassValidationError, StrictDataclassFieldValidationError
from transformers import PreTrainedConfig

from .saved_folders_ditar import refuse_broken_json, refuse_folder_without, refuse_other_names

DTYPES = ("float32", "bfloat16", "float16")
# What the library itself (its loaders, its `Trainer`) may write into any configuration besides the fields.
LIBRARY_KEYS = {
    "attn_implementation",
    "auto_map",
    "bos_token_id",
    "custom_pipelines",
    "eos_token_id",
    "experts_implementation",
    "model_type",
    "name_or_path",
    "num_labels",
    "output_attentions",
    "pad_token_id",
    "quantization_config",
    "torch_dtype",
    "use_cache",
}


def check_dtype(name: str, dtype: str | torch.dtype | None):
    """
    Refuses precisions that DiTAR does not run in.

    Args:
        name (`str`): What messages call it.
        dtype (`str` or `torch.dtype`, *optional*): Of a file or an argument.

    Raises:
        ValueError: If it is not fp32, bf16 or fp16.
    """
    known = str(dtype).removeprefix("torch.") if isinstance(dtype, torch.dtype) else dtype
    if dtype is not None and known not in DTYPES:
        raise ValueError(f"`{name}` is {dtype!r}, but the model runs in {', '.join(DTYPES)}: name one of these.")


def refuse_unknown_keys(config: PreTrainedConfig, kwargs: dict[str, Any]):
    """
    Raises where the base class would keep a misspelt key and use the default in silence.

    Args:
        config (`PreTrainedConfig`): The configuration under construction.
        kwargs (`dict`): Keys that are not its fields.

    Raises:
        ValueError: If a key is not one that the library itself passes; the message names the nearest field. Or if the
            keys are those of another model.
    """
    if kwargs.get("model_type", config.model_type) != config.model_type:
        raise ValueError(
            f"`model_type` is {kwargs['model_type']!r}, so this configuration is another model's: "
            f"{type(config).__name__} reads {config.model_type!r}."
        )
    for key in kwargs:
        if key not in LIBRARY_KEYS and not key.startswith("_"):
            names = [field.name for field in dataclasses.fields(config)]
            near = difflib.get_close_matches(key, names, n=1)
            hint = f"did you mean `{near[0]}`?" if near else f"its fields are {', '.join(sorted(names))}."
            raise ValueError(f"`{key}` is not a field of {type(config).__name__}: {hint}")


def strict_config(config_class: type[PreTrainedConfig]) -> type[PreTrainedConfig]:
    """
    Class decorator: `strict` of huggingface_hub, with `ValueError`s in place of errors of its own kinds.

    Args:
        config_class (`type`): A configuration; its fields' types and its `validate_…` methods are checked.

    Returns:
        The same class, whose constructor, `validate` and assignments raise `ValueError` alone.
    """
    config_class = strict(config_class)
    assign, check = config_class.__setattr__, config_class.validate

    @functools.wraps(assign)
    def __setattr__(self, name, value):
        try:
            assign(self, name, value)
        except StrictDataclassFieldValidationError as error:
            raise ValueError(
                f"`{name}` of {type(self).__name__} cannot be {value!r}: {error.__cause__}. Change it in the "
                "call or in `config.json`."
            ) from error

    @functools.wraps(check)
    def validate(self):
        try:
            check(self)
        except StrictDataclassClassValidationError as error:
            raise ValueError(str(error.__cause__)) from error

    config_class.__setattr__, config_class.validate = __setattr__, validate
    return config_class


class StrictConfig(PreTrainedConfig):
    """What all configurations of DiTAR share: no key is kept unread, and no override unchecked."""

    def __post_init__(self, **kwargs):
        refuse_unknown_keys(self, kwargs)
        check_dtype("dtype", kwargs.get("torch_dtype") if self.dtype is None else self.dtype)
        super().__post_init__(**kwargs)

    def to_dict(self) -> dict[str, Any]:
        """
        As `PreTrainedConfig.to_dict`; of a class that a repository brought along also where its code lies.

        Returns:
            `dict[str, Any]`: Without `auto_map` for the installed class, which saves no code beside the file.
        """
        values = super().to_dict()
        if self._auto_class is None:
            values.pop("auto_map", None)
        return values

    @classmethod
    def get_config_dict(cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any) -> tuple[dict, dict]:
        """
        As `PreTrainedConfig.get_config_dict`, which `from_pretrained` calls, but a folder is refused by what is wrong.

        Args:
            pretrained_model_name_or_path (`str` or `os.PathLike`): A folder or the name of a repository.
            **kwargs: As for `from_pretrained`.

        Returns:
            `tuple[dict, dict]`: What the file says, and what is left of `kwargs`.

        Raises:
            ValueError: If there is no name, or the config.json of a folder is missing or no JSON object.
            OSError: If there is no such folder, or no such file on the Hub or in the cache.
        """
        refuse_other_names(pretrained_model_name_or_path)
        name = kwargs.get("_configuration_file") or "config.json"
        if not kwargs.get("gguf_file"):
            refuse_folder_without([name], pretrained_model_name_or_path, kwargs.get("subfolder"))
        refuse_broken_json([name], pretrained_model_name_or_path, kwargs.get("subfolder"))
        return super().get_config_dict(pretrained_model_name_or_path, **kwargs)

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> "StrictConfig | tuple[StrictConfig, dict]":
        """
        As `PreTrainedConfig.from_dict`, which writes overrides into a configuration that is already checked.

        Args:
            config_dict (`dict`): Of a file.
            **kwargs: Overrides of fields, and `return_unused_kwargs`.

        Returns:
            The configuration, and with `return_unused_kwargs=True` what was no field.

        Raises:
            ValueError: As the constructor.
        """
        for key in ("attn_implementation", "_attn_implementation"):
            if config_dict.get(key) not in (None, "eager", "sdpa", "flash_attention_2"):
                # transformers would fetch a kernel of that name and run it
                raise ValueError(
                    f"`{key}` in the configuration is {config_dict[key]!r}: take it out, and pass "
                    "`attn_implementation` to `from_pretrained`."
                )
        made = super().from_dict(config_dict, **kwargs)
        (made[0] if isinstance(made, tuple) else made).validate()
        return made


@strict_config
class DiTARVAEConfig(StrictConfig):
    r"""
    Configuration of a [`DiTARVAE`], which compresses a 24 kHz waveform into 40 latent frames a second.

    Encoder and decoder each come in two kinds. `"conv"` and `"bigvgan"` work on the waveform, as in the paper; `"mel"`
    and `"istft"` work on spectra at a tenth of the cost, which is what a CPU can afford.

    Args:
        sampling_rate (`int`, *optional*, defaults to 24000):
            Samples a second of the waveform.
        latent_dim (`int`, *optional*, defaults to 64):
            Channels of a latent frame.
        encoder_type (`str`, *optional*, defaults to `"conv"`):
            `"conv"`: strided convolutions on the waveform. `"mel"`: ConvNeXt blocks on a log-mel spectrogram.
        encoder_strides (`list[int]`, *optional*, defaults to `[2, 3, 4, 5, 5]`):
            Downsampling factors; their product is `hop_length`. For `"mel"` the first one is the spectrogram's hop.
        encoder_hidden_sizes (`list[int]`, *optional*, defaults to `[64, 128, 256, 512, 512, 512]`):
            Channels before the first and after each further stride (`"mel"`: one fewer, the spectrogram has none
            before).
        encoder_num_layers (`list[int]`, *optional*, defaults to `[1, 1, 1, 1, 1, 1]`):
            Blocks at each of these sizes.
        encoder_causal (`bool`, *optional*, defaults to `False`):
            Whether the encoder's convolutions see the past only.
        num_mel_bins (`int`, *optional*, defaults to 100):
            Bands of the spectrogram that a `"mel"` encoder reads, and of none of the losses.
        mel_window_length (`int`, *optional*, defaults to 1200):
            Samples in a frame of that spectrogram.
        decoder_type (`str`, *optional*, defaults to `"bigvgan"`):
            `"bigvgan"`: transposed convolutions with anti-aliased periodic activations (Lee et al., 2022). `"istft"`:
            ConvNeXt blocks and an inverse short-time Fourier transform.
        decoder_strides (`list[int]`, *optional*, defaults to `[5, 5, 4, 3, 2]`):
            Upsampling factors; their product is `hop_length`. For `"istft"` the last one is the transform's hop.
        decoder_hidden_sizes (`list[int]`, *optional*, defaults to `[1536, 768, 384, 192, 96, 48]`):
            Channels before the first and after each further stride (`"istft"`: one fewer).
        decoder_num_layers (`list[int]`, *optional*, defaults to `[0, 1, 1, 1, 1, 1]`):
            Blocks at each of these sizes; at least one for each size after the first.
        decoder_kernel_sizes (`list[int]`, *optional*, defaults to `[3, 7, 11]`):
            Kernel sizes of the parallel residual blocks of `"bigvgan"`.
        istft_window_length (`int`, *optional*, defaults to 800):
            Samples in a frame of the `"istft"` decoder's transform; four times its hop.
        decoder_causal (`bool`, *optional*, defaults to `False`):
            Whether the decoder sees no latent frame beyond `decoder_lookahead_frames`, so that it can be streamed.
        decoder_lookahead_frames (`int`, *optional*, defaults to 0):
            Future latent frames that a causal decoder sees; for `"istft"`, `lookahead_seconds` adds the overlap of
            windows.
        kernel_size (`int`, *optional*, defaults to 7):
            Kernel size of depthwise and of first convolutions, an odd number.
        mlp_ratio (`float`, *optional*, defaults to 3.0):
            Width of a ConvNeXt block's pointwise layers, in units of its channels.
        kl_loss_weight (`float`, *optional*, defaults to 0.01):
            Weight of the divergence from a standard normal, in nats a latent channel and frame.
        mel_loss_weight (`float`, *optional*, defaults to 1.0):
            Weight of the multi-resolution mel loss.
        stft_loss_weight (`float`, *optional*, defaults to 1.0):
            Weight of the multi-resolution STFT loss.

    Raises:
        ValueError: If a key is unknown, a value is of a wrong type or sizes contradict one another; the message names
            the fields and what to change.
    """

    model_type = "ditar_vae"

    sampling_rate: int = 24000
    latent_dim: int = 64
    encoder_type: Literal["conv", "mel"] = "conv"
    encoder_strides: list[int] | tuple[int, ...] = (2, 3, 4, 5, 5)
    encoder_hidden_sizes: list[int] | tuple[int, ...] = (64, 128, 256, 512, 512, 512)
    encoder_num_layers: list[int] | tuple[int, ...] = (1, 1, 1, 1, 1, 1)
    encoder_causal: bool = False
    num_mel_bins: int = 100
    mel_window_length: int = 1200
    decoder_type: Literal["bigvgan", "istft"] = "bigvgan"
    decoder_strides: list[int] | tuple[int, ...] = (5, 5, 4, 3, 2)
    decoder_hidden_sizes: list[int] | tuple[int, ...] = (1536, 768, 384, 192, 96, 48)
    decoder_num_layers: list[int] | tuple[int, ...] = (0, 1, 1, 1, 1, 1)
    decoder_kernel_sizes: list[int] | tuple[int, ...] = (3, 7, 11)
    istft_window_length: int = 800
    decoder_causal: bool = False
    decoder_lookahead_frames: int = 0
    kernel_size: int = 7
    mlp_ratio: float = 3.0
    kl_loss_weight: float = 0.01
    mel_loss_weight: float = 1.0
    stft_loss_weight: float = 1.0

    @property
    def hop_length(self) -> int:
        """Samples in one latent frame."""
        return math.prod(self.encoder_strides)

    @property
    def frame_rate(self) -> float:
        """Latent frames a second."""
        return self.sampling_rate / self.hop_length

    @property
    def lookahead_seconds(self) -> float | None:
        """
        Seconds of future latents that one output sample depends on, which is how far samples lag behind latents in a
        decode in pieces; `None` if the decoder is not causal.
        """
        if not self.decoder_causal:
            return None
        # that a sample needs the whole frame in which it lies is no look-ahead
        samples = self.decoder_lookahead_frames * self.hop_length
        if self.decoder_type == "istft":
            # a window begins before its hop
            samples += (self.istft_window_length - self.decoder_strides[-1]) // 2
        return samples / self.sampling_rate

    def validate_architecture(self):
        """Checks that sizes fit one another; called by the constructor and after overrides."""
        if math.prod(self.decoder_strides) != self.hop_length:
            raise ValueError(
                f"`decoder_strides` ({list(self.decoder_strides)}) multiply to {math.prod(self.decoder_strides)}, but "
                f"`encoder_strides` ({list(self.encoder_strides)}) to {self.hop_length}: make the products equal."
            )
        for side, is_spectral in (("encoder", self.encoder_type == "mel"), ("decoder", self.decoder_type == "istft")):
            strides, sizes = getattr(self, f"{side}_strides"), getattr(self, f"{side}_hidden_sizes")
            layers = getattr(self, f"{side}_num_layers")
            expected = len(strides) if is_spectral else len(strides) + 1
            if len(sizes) != expected or len(layers) != expected:
                raise ValueError(
                    f"`{side}_hidden_sizes` ({list(sizes)}) and `{side}_num_layers` ({list(layers)}) must each have "
                    f"{expected} entries, for `{side}_strides` of {len(strides)} in this type of {side}."
                )
            if min(strides) < 1 or min(sizes) < 1 or min(layers) < 0:
                raise ValueError(f"`{side}_strides`, `{side}_hidden_sizes` and `{side}_num_layers` must be positive.")
            if is_spectral and not sum(layers):
                raise ValueError(f"`{side}_num_layers` ({list(layers)}) must name at least one block.")
        if self.decoder_type == "istft" and self.istft_window_length != 4 * self.decoder_strides[-1]:
            raise ValueError(
                f"`istft_window_length` ({self.istft_window_length}) must be four times the last of `decoder_strides` "
                f"({self.decoder_strides[-1]}), so that windows overlap evenly."
            )
        if self.encoder_type == "mel" and self.mel_window_length < self.encoder_strides[0]:
            raise ValueError(
                f"`mel_window_length` ({self.mel_window_length}) must not be shorter than the hop, the first of "
                f"`encoder_strides` ({self.encoder_strides[0]})."
            )
        if self.encoder_type == "mel" and (self.mel_window_length - self.encoder_strides[0]) % 2:
            raise ValueError(
                f"`mel_window_length` ({self.mel_window_length}) minus the hop ({self.encoder_strides[0]}) "
                "must be even."
            )
        if self.kernel_size % 2 == 0 or any(size % 2 == 0 for size in self.decoder_kernel_sizes):
            raise ValueError(
                f"`kernel_size` ({self.kernel_size}) and `decoder_kernel_sizes` ({list(self.decoder_kernel_sizes)}) "
                "must be odd."
            )
        if self.decoder_lookahead_frames < 0 or (self.decoder_lookahead_frames and not self.decoder_causal):
            raise ValueError(
                f"`decoder_lookahead_frames` ({self.decoder_lookahead_frames}) is for `decoder_causal=True`, and not "
                "negative."
            )
        if self.latent_dim < 1 or self.sampling_rate < 1:
            raise ValueError(
                f"`latent_dim` ({self.latent_dim}) and `sampling_rate` ({self.sampling_rate}) are positive."
            )


__all__ = ["DiTARVAEConfig"]
