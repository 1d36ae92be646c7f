"""Layers of the speech tokenizer: lengths, what each output step sees, masks."""

import pytest
import torch

from ditar_hf.modeling.layers_ditar_vae import (
    ConvNeXtBlock,
    PaddedConv1d,
    UpsamplingConv1d,
    apply_mask,
    downsample_mask,
    upsample_mask,
)


def steps_that_hear(function, length: int, step: int) -> list[int]:
    """Output steps of `function` on `(1, 2, length)` that depend on an input step."""
    states = torch.randn(1, 2, length, requires_grad=True)
    output = function(states)
    heard = []
    for index in range(output.shape[-1]):
        (gradient,) = torch.autograd.grad(output[0, :, index].sum(), states, retain_graph=True)
        if gradient[0, :, step].any():
            heard.append(index)
    return heard


class TestPaddedConvolution:
    @pytest.mark.parametrize("stride", [1, 2, 3, 5])
    @pytest.mark.parametrize("lookahead", [None, 0])
    def test_output_has_a_step_for_each_stride(self, stride, lookahead):
        layer = PaddedConv1d(2, 3, max(2 * stride, 3), stride, lookahead=lookahead)
        assert layer(torch.randn(1, 2, 7 * stride)).shape == (1, 3, 7)

    @pytest.mark.parametrize(
        ("kernel", "dilation", "lookahead"), [(3, 1, 0), (7, 1, 0), (3, 4, 0), (5, 1, 2), (4, 1, 3)]
    )
    def test_it_sees_as_far_ahead_as_it_says(self, kernel, dilation, lookahead):
        layer = PaddedConv1d(2, 2, kernel, dilation=dilation, lookahead=lookahead)
        heard = steps_that_hear(layer, 30, 15)
        first = 15 - lookahead
        assert heard == list(range(first, first + (kernel - 1) * dilation + 1, dilation))

    def test_by_default_it_sees_both_sides_alike(self):
        assert steps_that_hear(PaddedConv1d(2, 2, 5), 30, 15) == [13, 14, 15, 16, 17]

    @pytest.mark.parametrize("stride", [2, 3, 5])
    def test_a_causal_stride_sees_its_own_steps_and_earlier_ones(self, stride):
        layer = PaddedConv1d(2, 2, 2 * stride, stride, lookahead=0)
        for step in (5 * stride, 6 * stride - 1):
            assert steps_that_hear(layer, 10 * stride, step) == [5, 6]


class TestUpsampling:
    @pytest.mark.parametrize("stride", [2, 3, 4, 5])
    @pytest.mark.parametrize("causal", [False, True])
    def test_output_has_stride_steps_for_each(self, stride, causal):
        assert UpsamplingConv1d(2, 3, stride, causal)(torch.randn(1, 2, 7)).shape == (1, 3, 7 * stride)

    @pytest.mark.parametrize("stride", [2, 3, 5])
    def test_a_causal_one_mixes_a_step_with_the_one_before(self, stride):
        heard = steps_that_hear(UpsamplingConv1d(2, 2, stride, causal=True), 8, 4)
        assert heard == list(range(4 * stride, 6 * stride))

    @pytest.mark.parametrize("stride", [2, 4])
    def test_otherwise_it_is_centred(self, stride):
        heard = steps_that_hear(UpsamplingConv1d(2, 2, stride, causal=False), 8, 4)
        assert heard == list(range(4 * stride - stride // 2, 5 * stride + stride // 2))


class TestConvNeXt:
    @pytest.mark.parametrize("causal", [False, True])
    def test_a_row_in_a_batch_equals_the_row_alone(self, causal):
        block, states = ConvNeXtBlock(6, 12, 5, causal, 1.0), torch.randn(2, 9, 6)
        mask = torch.ones(2, 9)
        mask[1, 6:] = 0
        torch.testing.assert_close(block(states, mask)[1, :6], block(states[1:, :6])[0], atol=1e-6, rtol=0)

    def test_a_causal_one_sees_the_past_alone(self):
        block = ConvNeXtBlock(2, 4, 5, True, 1.0)
        assert steps_that_hear(lambda x: block(x.transpose(1, 2)).transpose(1, 2), 20, 10) == [10, 11, 12, 13, 14]

    def test_its_scale_weighs_what_it_adds(self):
        block, states = ConvNeXtBlock(6, 12, 5, False, 0.25), torch.randn(2, 9, 6)
        added = block(states) - states
        block.layer_scale.data.fill_(0.5)
        torch.testing.assert_close(block(states) - states, 2 * added, atol=1e-6, rtol=1e-4)
        block.reset_parameters()
        torch.testing.assert_close(block(states) - states, added, atol=1e-6, rtol=1e-4)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.bool])
    def test_any_mask_goes_with_half_precision(self, dtype):
        block = ConvNeXtBlock(6, 12, 5, False, 1.0).to(torch.bfloat16)
        output = block(torch.randn(2, 9, 6, dtype=torch.bfloat16), torch.ones(2, 9, dtype=dtype))
        assert output.dtype == torch.bfloat16


class TestMasks:
    def test_rates_go_round(self):
        mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
        assert torch.equal(downsample_mask(upsample_mask(mask, 5), 5), mask)
        assert upsample_mask(mask, 5).sum(1).tolist() == [20, 10]

    def test_none_stays_none(self):
        states = torch.randn(2, 3, 4)
        assert downsample_mask(None, 2) is None and upsample_mask(None, 2) is None
        assert apply_mask(states, None) is states

    def test_applying_zeroes_masked_steps_of_all_channels(self):
        states = torch.randn(2, 3, 4)
        masked = apply_mask(states, torch.tensor([[1, 1, 1, 1], [1, 0, 0, 0]]))
        assert torch.equal(masked[0], states[0]) and not masked[1, :, 1:].any()
        assert torch.equal(masked[1, :, 0], states[1, :, 0])
