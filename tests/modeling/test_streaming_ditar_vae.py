"""Decode in pieces: it equals the whole decode, keeps little, and waits no longer than the look-ahead."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ditar_hf import DiTARVAE

HOP = 120
RATES = {"encoder_strides": [60, 2], "mel_window_length": 120, "decoder_causal": True}
DECODERS = {
    # a hop of odd length, whose overlap is no whole number of half hops
    "istft": {"decoder_strides": [8, 15], "istft_window_length": 60},
    # windows that reach beyond the next latent frame
    "istft-wide": {
        "decoder_strides": [120],
        "decoder_hidden_sizes": [16],
        "decoder_num_layers": [2],
        "istft_window_length": 480,
    },
    "bigvgan": {
        "decoder_type": "bigvgan",
        "decoder_strides": [5, 24],
        "decoder_hidden_sizes": [8, 6, 4],
        "decoder_num_layers": [1, 1, 1],
        "decoder_kernel_sizes": [3, 5],
    },
}
every_decoder = pytest.mark.parametrize("decoder", DECODERS)
every_lookahead = pytest.mark.parametrize("lookahead_frames", [0, 1, 3])


@pytest.fixture
def make_vae(make_vae_config):
    """Factory of tiny causal tokenizers of speech in which no bias, scale or statistic is trivial."""

    def make(decoder="istft", lookahead_frames=0) -> DiTARVAE:
        torch.manual_seed(0)
        config = make_vae_config(**RATES, **DECODERS[decoder], decoder_lookahead_frames=lookahead_frames)
        vae = DiTARVAE(config).eval().requires_grad_(False)
        for parameter in vae.decoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        channels = torch.linspace(0, 1, 8)
        vae.set_latent_statistics(channels - 0.4, 0.5 + channels)
        return vae

    return make


def decode_in_pieces(vae, latents, num_frames) -> list[torch.Tensor]:
    """Pieces of waveform for pieces of latents of the given lengths, the last of which ends the decode."""
    state = vae.new_decode_state(len(latents))
    last = len(num_frames) - 1
    pieces = enumerate(latents.split(num_frames, dim=1))
    return [vae.decode(piece, state=state, is_last=index == last) for index, piece in pieces]


class TestEquality:
    @every_lookahead
    @every_decoder
    def test_pieces_of_any_lengths_add_up_to_the_whole(self, make_vae, decoder, lookahead_frames):
        vae = make_vae(decoder, lookahead_frames)

        @given(num_frames=st.lists(st.integers(0, 4), min_size=1, max_size=5), batch_size=st.integers(1, 3))
        @settings(max_examples=12, deadline=None)
        def check(num_frames, batch_size):
            latents = torch.randn(batch_size, sum(num_frames), 8)
            waveforms = torch.cat(decode_in_pieces(vae, latents, num_frames), dim=1)
            whole = vae.decode(latents) if sum(num_frames) else torch.zeros(batch_size, 0)
            assert waveforms.dtype == torch.float32
            torch.testing.assert_close(waveforms, whole, atol=1e-5, rtol=0)

        check()

    @every_decoder
    def test_the_whole_is_no_constant_and_not_clipped(self, make_vae, decoder):
        waveforms = make_vae(decoder).decode(torch.randn(1, 10, 8))
        assert waveforms.std() > 0.01 and (waveforms.abs() < 0.99).float().mean() > 0.9

    @every_decoder
    def test_two_decodes_share_a_model(self, make_vae, decoder):
        vae, latents = make_vae(decoder, lookahead_frames=1), torch.randn(2, 1, 9, 8)
        states, waveforms = [vae.new_decode_state() for _ in latents], [[], []]
        for begin in range(0, 9, 3):
            for row, state, pieces in zip(latents, states, waveforms, strict=True):
                pieces.append(vae.decode(row[:, begin : begin + 3], state=state, is_last=begin == 6))
        for row, pieces in zip(latents, waveforms, strict=True):
            torch.testing.assert_close(torch.cat(pieces, dim=1), vae.decode(row), atol=1e-5, rtol=0)

    @every_decoder
    def test_half_precision_differs_by_its_rounding_alone(self, make_vae, decoder):
        vae, latents = make_vae(decoder, lookahead_frames=1), torch.randn(2, 8, 8)
        exact = vae.decode(latents)
        vae.to(torch.bfloat16)
        rounding = (vae.decode(latents) - exact).abs().max()
        waveforms = torch.cat(decode_in_pieces(vae, latents, [3, 0, 4, 1]), dim=1)
        assert waveforms.dtype == torch.float32
        assert (waveforms - exact).abs().max() < 2 * rounding


class TestLookahead:
    @every_lookahead
    @every_decoder
    def test_samples_come_as_early_as_the_lookahead_allows(self, make_vae, decoder, lookahead_frames):
        vae = make_vae(decoder, lookahead_frames)
        lookahead = round(vae.config.lookahead_seconds * vae.config.sampling_rate)
        lengths = [piece.shape[1] for piece in decode_in_pieces(vae, torch.randn(1, 7, 8), [1] * 7 + [0])]
        delivered = [sum(lengths[: index + 1]) for index in range(8)]
        assert delivered == [max(0, num_frames * HOP - lookahead) for num_frames in range(1, 8)] + [7 * HOP]

    @every_lookahead
    @every_decoder
    def test_latents_further_ahead_change_no_sample(self, make_vae, decoder, lookahead_frames):
        vae, latents = make_vae(decoder, lookahead_frames), torch.randn(1, 12, 8)
        changed = latents.clone()
        changed[:, 7:] = torch.randn(1, 5, 8)
        first = (vae.decode(latents) - vae.decode(changed))[0].nonzero()[0].item()
        bound = 7 * HOP - round(vae.config.lookahead_seconds * vae.config.sampling_rate)
        # windows begin with 0 and rise slowly
        assert bound <= first < bound + 20


class TestState:
    @every_decoder
    def test_it_does_not_grow_and_ends_empty(self, make_vae, decoder):
        vae = make_vae(decoder, lookahead_frames=1).requires_grad_(True)
        state, num_bytes = vae.new_decode_state(2), []
        for num_frames in (5, 1, 0, 9, 2):
            vae.decode(torch.randn(2, num_frames, 8), state=state)
            contexts = list(state._contexts.values())
            num_bytes.append(sum(context.untyped_storage().nbytes() for context in contexts))
            assert not any(context.requires_grad for context in contexts)
        assert len(set(num_bytes)) == 1 and 0 < num_bytes[0] < 2**18
        vae.decode(torch.randn(2, 0, 8), state=state, is_last=True)
        assert not state._contexts

    def test_it_is_in_the_precision_of_the_decoder(self, make_vae):
        vae = make_vae("bigvgan").to(torch.bfloat16)
        state = vae.new_decode_state()
        vae.decode(torch.randn(1, 3, 8), state=state)
        assert {context.dtype for context in state._contexts.values()} == {torch.bfloat16}


class TestRefusals:
    def test_decoders_that_see_all(self, make_vae_config):
        with pytest.raises(ValueError, match="`decoder_causal` is False.*decode all latents at once"):
            DiTARVAE(make_vae_config()).new_decode_state()

    def test_a_batch_of_no_rows(self, make_vae):
        with pytest.raises(ValueError, match=r"`batch_size` \(0\)"):
            make_vae().new_decode_state(batch_size=0)

    @pytest.mark.parametrize(
        ("shape", "arguments", "message"),
        [
            ((1, 2, 8), {"latents_mask": torch.ones(1, 2)}, "`latents_mask` does not go with a `state`"),
            ((3, 2, 8), {}, r"`latents` has 3 rows, but `state` is for 1.*batch_size=3"),
            ((1, 2, 7), {}, r"`latents` must be \(batch_size, num_frames, 8\)"),
        ],
    )
    def test_pieces_that_do_not_fit_leave_the_state_as_it_was(self, make_vae, shape, arguments, message):
        vae, latents = make_vae(), torch.randn(1, 4, 8)
        state = vae.new_decode_state()
        first = vae.decode(latents[:, :2], state=state)
        with pytest.raises(ValueError, match=message):
            vae.decode(torch.randn(shape), state=state, is_last=True, **arguments)
        rest = vae.decode(latents[:, 2:], state=state, is_last=True)
        torch.testing.assert_close(torch.cat([first, rest], dim=1), vae.decode(latents), atol=1e-5, rtol=0)

    def test_pieces_after_the_last(self, make_vae):
        vae, latents = make_vae(), torch.randn(1, 2, 8)
        state = vae.new_decode_state()
        vae.decode(latents, state=state, is_last=True)
        for is_last in (False, True):
            with pytest.raises(ValueError, match="`state` is used up.*`new_decode_state`"):
                vae.decode(latents, state=state, is_last=is_last)

    def test_an_end_of_nothing(self, make_vae):
        with pytest.raises(ValueError, match="`is_last`.*pass its `state`"):
            make_vae().decode(torch.randn(1, 2, 8), is_last=True)
