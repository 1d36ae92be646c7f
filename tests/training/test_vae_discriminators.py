import pytest
import torch
from torch.nn import functional as F

from ditar_hf.training.vae_discriminators import (
    SLOPE,
    DiscriminatorArguments,
    Discriminators,
    PeriodDiscriminator,
)


def test_full_size_is_that_of_hifi_gan():
    discriminators = Discriminators(DiscriminatorArguments())
    # weight normalisation adds one magnitude for each output channel
    plain = sum(p.numel() for n, p in discriminators.named_parameters() if "original0" not in n)
    periods = sum(p.numel() for n, p in discriminators.periods.named_parameters() if "original0" not in n)
    # HiFi-GAN: 41.1M for five periods, 29.6M for three scales
    assert round(periods / 1e6, 1) == 41.1 and round((plain - periods) / 1e6, 1) == 29.6


@pytest.mark.parametrize("period", [2, 3, 7])
def test_phases_as_rows_equal_a_convolution_of_k_by_1(period):
    discriminator = PeriodDiscriminator(period, (4, 8, 8))
    waveforms = torch.randn(2, 100)
    hidden_states = F.pad(waveforms[:, None], (0, -100 % period), "reflect").unflatten(-1, (-1, period))
    features = discriminator(waveforms)
    for index, layer in enumerate([*discriminator.layers, discriminator.output]):
        stride, padding = (layer.stride[0], 1), (layer.padding[0], 0)
        hidden_states = F.conv2d(hidden_states, layer.weight[..., None], layer.bias, stride, padding)
        if index < len(discriminator.layers):
            hidden_states = F.leaky_relu(hidden_states, SLOPE)
        ours = features[index].unflatten(0, (2, period)).permute(0, 2, 3, 1)  # (B, C, T, period)
        torch.testing.assert_close(ours, hidden_states)


def test_rows_do_not_mix():
    discriminators = Discriminators(
        DiscriminatorArguments(
            period_channels=(4, 8), num_scales=2, scale_channels=(4, 8), scale_strides=(2, 2), scale_groups=(1, 2)
        )
    )
    waveforms = torch.randn(2, 500)
    both, alone = discriminators(waveforms), discriminators(waveforms[:1])
    assert len(both) == 7
    for together, single in zip(both, alone, strict=True):
        for a, b in zip(together, single, strict=True):
            torch.testing.assert_close(a.chunk(2)[0], b)


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"scale_strides": (1,)}, "scale_strides"),
        ({"period_channels": ()}, "period_channels"),
        ({"periods": (), "num_scales": 0}, "periods"),
        ({"scale_channels": (6, 6), "scale_strides": (1, 1), "scale_groups": (1, 4)}, "scale_groups"),
        ({"crop_seconds": 0.0}, "crop_seconds"),
    ],
)
def test_bad_sizes_are_refused(values, name):
    with pytest.raises(ValueError, match=f"`{name}`"):
        DiscriminatorArguments(**values)
