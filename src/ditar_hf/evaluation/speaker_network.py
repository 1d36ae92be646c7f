"""The papers' speaker encoder: WavLM-large with an ECAPA-TDNN on top, which seed-tts-eval and its successors use."""

import re
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import nn
from transformers import WavLMConfig, WavLMModel

# microsoft/wavlm-large: what differs from the defaults, which are those of the base model
WAVLM_LARGE = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
}
# The names of Microsoft's code, which the checkpoint has, and those of transformers, in this order.
WAVLM_NAMES = (
    (r"^feature_extractor\.conv_layers\.(\d+)\.0\.", r"feature_extractor.conv_layers.\1.conv."),
    (r"^feature_extractor\.conv_layers\.(\d+)\.2\.1\.", r"feature_extractor.conv_layers.\1.layer_norm."),
    (r"^layer_norm\.", "feature_projection.layer_norm."),
    (r"^post_extract_proj\.", "feature_projection.projection."),
    (r"^mask_emb$", "masked_spec_embed"),
    (r"^encoder\.pos_conv\.0\.weight_g$", "encoder.pos_conv_embed.conv.parametrizations.weight.original0"),
    (r"^encoder\.pos_conv\.0\.weight_v$", "encoder.pos_conv_embed.conv.parametrizations.weight.original1"),
    (r"^encoder\.pos_conv\.0\.", "encoder.pos_conv_embed.conv."),
    (r"\.self_attn_layer_norm\.", ".layer_norm."),
    (r"\.self_attn\.grep_linear\.", ".attention.gru_rel_pos_linear."),
    (r"\.self_attn\.grep_a$", ".attention.gru_rel_pos_const"),
    (r"\.self_attn\.relative_attention_bias\.", ".attention.rel_attn_embed."),
    (r"\.self_attn\.", ".attention."),
    (r"\.fc1\.", ".feed_forward.intermediate_dense."),
    (r"\.fc2\.", ".feed_forward.output_dense."),
)
BACKBONE_PREFIX = "feature_extract.model."
# weights of the checkpoint that only its training needed
TRAINING_PREFIX = "loss_calculator."


class ConvReluNorm(nn.Module):
    """Convolution over time, ReLU, batch norm, in this order; the attributes have the checkpoint's names."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 1, padding: int = 0) -> None:
        super().__init__()
        self.conv = nn.Conv1d(in_channels, out_channels, kernel_size, padding=padding)
        self.bn = nn.BatchNorm1d(out_channels)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.bn(self.conv(hidden_states).relu())


class Res2Conv(nn.Module):
    """Groups of channels; each group is convolved after the result of the one before is added (Res2Net)."""

    def __init__(self, channels: int, dilation: int, num_groups: int = 8) -> None:
        super().__init__()
        width = channels // num_groups
        self.convs = nn.ModuleList(
            nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation) for _ in range(num_groups - 1)
        )
        self.bns = nn.ModuleList(nn.BatchNorm1d(width) for _ in range(num_groups - 1))

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        *groups, last = hidden_states.chunk(len(self.convs) + 1, dim=1)
        outputs, carried = [], 0
        for group, conv, norm in zip(groups, self.convs, self.bns, strict=True):
            carried = norm(conv(group + carried).relu())
            outputs.append(carried)
        return torch.cat([*outputs, last], dim=1)


class SqueezeExcitation(nn.Module):
    """Channels are weighted by what they are on average over time."""

    def __init__(self, channels: int, bottleneck: int = 128) -> None:
        super().__init__()
        self.linear1 = nn.Linear(channels, bottleneck)
        self.linear2 = nn.Linear(bottleneck, channels)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        weights = self.linear2(self.linear1(hidden_states.mean(dim=2)).relu()).sigmoid()
        return hidden_states * weights[:, :, None]


class EcapaBlock(nn.Module):
    """One block of ECAPA-TDNN (Desplanques et al., 2020), with a residual connection."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.Conv1dReluBn1 = ConvReluNorm(channels, channels)
        self.Res2Conv1dReluBn = Res2Conv(channels, dilation)
        self.Conv1dReluBn2 = ConvReluNorm(channels, channels)
        self.SE_Connect = SqueezeExcitation(channels)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        inner = self.Conv1dReluBn2(self.Res2Conv1dReluBn(self.Conv1dReluBn1(hidden_states)))
        return hidden_states + self.SE_Connect(inner)


class AttentivePooling(nn.Module):
    """Mean and standard deviation over time, each channel with its own attention."""

    def __init__(self, channels: int, bottleneck: int = 128) -> None:
        super().__init__()
        self.linear1 = nn.Conv1d(channels, bottleneck, 1)
        self.linear2 = nn.Conv1d(bottleneck, channels, 1)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        attention = self.linear2(self.linear1(hidden_states).tanh()).softmax(dim=2)
        mean = (attention * hidden_states).sum(dim=2)
        variance = (attention * hidden_states**2).sum(dim=2) - mean**2
        return torch.cat([mean, variance.clamp(min=1e-9).sqrt()], dim=1)


class WavLMSpeakerEncoder(nn.Module):
    """
    Speaker verification of UniSpeech (Chen et al., 2022): all layers of WavLM, mixed by weights, then ECAPA-TDNN.

    Args:
        config (`WavLMConfig`, *optional*): Of the backbone; WavLM-large by default.
        channels (`int`, *optional*, defaults to 512): Of the ECAPA-TDNN; a multiple of 8.
        embedding_size (`int`, *optional*, defaults to 256): Of what comes out.
    """

    def __init__(self, config: WavLMConfig | None = None, channels: int = 512, embedding_size: int = 256) -> None:
        super().__init__()
        config = WavLMConfig(**WAVLM_LARGE) if config is None else config
        self.backbone = WavLMModel(config)
        self.feature_weight = nn.Parameter(torch.zeros(config.num_hidden_layers + 1))
        self.instance_norm = nn.InstanceNorm1d(config.hidden_size)
        self.layer1 = ConvReluNorm(config.hidden_size, channels, kernel_size=5, padding=2)
        self.layer2 = EcapaBlock(channels, dilation=2)
        self.layer3 = EcapaBlock(channels, dilation=3)
        self.layer4 = EcapaBlock(channels, dilation=4)
        self.conv = nn.Conv1d(3 * channels, 3 * channels, 1)
        self.pooling = AttentivePooling(3 * channels)
        self.bn = nn.BatchNorm1d(6 * channels)
        self.linear = nn.Linear(6 * channels, embedding_size)

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        """
        Embeds one recording.

        Args:
            waveform (`torch.Tensor` of shape `(num_samples,)`): Samples at 16 kHz, at least 400.

        Returns:
            `torch.Tensor` of shape `(embedding_size,)`, of any length.
        """
        waveform = nn.functional.layer_norm(waveform, waveform.shape)
        output = self.backbone(waveform[None], output_hidden_states=True)
        # the last of the hidden states lacks the final norm in some versions of transformers
        layers = (*output.hidden_states[:-1], output.last_hidden_state)
        weights = self.feature_weight.softmax(dim=0)
        mixed = sum(weight * layer for weight, layer in zip(weights, layers, strict=True))
        hidden_states = self.layer1(self.instance_norm(mixed.transpose(1, 2) + 1e-6))  # (1, channels, num_frames)
        blocks = []
        for block in (self.layer2, self.layer3, self.layer4):
            hidden_states = block(hidden_states)
            blocks.append(hidden_states)
        hidden_states = self.conv(torch.cat(blocks, dim=1)).relu()
        return self.linear(self.bn(self.pooling(hidden_states)))[0]

    def load_original(self, weights: Mapping[str, torch.Tensor]) -> None:
        """
        Takes over weights under the names of the published checkpoint.

        Args:
            weights (`dict[str, torch.Tensor]`): What the file holds as `"model"`.

        Raises:
            ValueError: If weights are missing, unknown or of other shapes.
        """
        renamed = {}
        for name, value in weights.items():
            if name.startswith(BACKBONE_PREFIX):
                renamed["backbone." + _backbone_name(name.removeprefix(BACKBONE_PREFIX))] = value
            elif not name.startswith(TRAINING_PREFIX):
                renamed[name] = value
        try:
            self.load_state_dict(renamed)
        except RuntimeError as error:
            raise ValueError(f"`weights` are not those of WavLM with ECAPA-TDNN: {error}") from error


def _backbone_name(name: str) -> str:
    for pattern, replacement in WAVLM_NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def load_speaker_network(path: str | Path) -> WavLMSpeakerEncoder:
    """
    The network with the weights of `wavlm_large_finetune.pth`, which is read without running anything that is in it.

    Args:
        path (`str` or `Path`): The file.

    Returns:
        [`WavLMSpeakerEncoder`] for inference.

    Raises:
        ValueError: If the file is something else.
    """
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True, mmap=True)["model"]
    except (OSError, RuntimeError, KeyError, TypeError, ValueError, UnpicklingError) as error:
        raise ValueError(f"`path` {str(path)!r} is no checkpoint of the speaker encoder: {error}") from error
    network = WavLMSpeakerEncoder()
    network.load_original(weights)
    return network.eval()
