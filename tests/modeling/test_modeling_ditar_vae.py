"""`DiTARVAE`: posterior, latent statistics, batches, training, saving and loading."""

import pytest
import torch
from transformers import AutoModel, Trainer, TrainingArguments

from ditar_hf import DiTARVAE
from ditar_hf.modeling.loss_ditar_vae import limit_bandwidth
from ditar_hf.modeling.modeling_ditar_vae import DiTARVAEOutput, DiTARVAEPosterior

HOP = 600
CONV = {
    "encoder_type": "conv",
    "encoder_strides": [6, 10, 10],
    "encoder_hidden_sizes": [4, 6, 6, 8],
    "encoder_num_layers": [1, 1, 1, 1],
}
BIGVGAN = {
    "decoder_type": "bigvgan",
    "decoder_strides": [10, 10, 6],
    "decoder_hidden_sizes": [8, 8, 4, 4],
    "decoder_num_layers": [0, 1, 1, 1],
    "decoder_kernel_sizes": [3],
}
KINDS = {"mel-istft": {}, "conv-istft": CONV, "mel-bigvgan": BIGVGAN, "conv-bigvgan": {**CONV, **BIGVGAN}}
every_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture
def make_vae(make_vae_config):
    """Factory of tiny tokenizers of speech with statistics that matter."""

    def make(kind="mel-istft", **overrides) -> DiTARVAE:
        torch.manual_seed(0)
        vae = DiTARVAE(make_vae_config(**KINDS[kind], **overrides)).eval()
        channels = torch.linspace(0, 1, 8)
        vae.set_latent_statistics(channels - 0.4, 0.5 + channels)
        return vae

    return make


def crop(rows=1, frames=8) -> torch.Tensor:
    """Speech-like: harmonics with a slow envelope, and some noise."""
    time = torch.arange(frames * HOP) / 24000
    pitch = 110.0 * torch.arange(1, rows + 1)[:, None]
    tones = sum(torch.sin(2 * torch.pi * k * pitch * time) / k for k in range(1, 6))
    return 0.2 * tones * (1 + torch.sin(40 * time)) / 2 + 0.01 * torch.randn(rows, frames * HOP)


class TestPosterior:
    def test_mode_is_the_mean(self):
        mean = torch.randn(2, 3, 4)
        assert torch.equal(DiTARVAEPosterior(mean, torch.ones_like(mean)).mode(), mean)

    def test_draws_have_mean_and_deviation(self):
        mean, std = torch.tensor([-1.0, 2.0]).expand(1, 20000, 2), torch.tensor([0.1, 3.0]).expand(1, 20000, 2)
        draws = DiTARVAEPosterior(mean, std).sample()[0]
        # 5 standard errors
        assert ((draws.mean(0) - mean[0, 0]).abs() < 5 * std[0, 0] / 20000**0.5).all()
        assert ((draws.std(0) - std[0, 0]).abs() < 5 * std[0, 0] / 40000**0.5).all()

    def test_a_generator_for_each_row_makes_rows_independent_of_the_batch(self):
        posterior = DiTARVAEPosterior(torch.zeros(2, 3, 4), torch.ones(2, 3, 4))
        both = posterior.sample([torch.Generator().manual_seed(seed) for seed in (1, 2)])
        alone = DiTARVAEPosterior(torch.zeros(1, 3, 4), torch.ones(1, 3, 4)).sample(torch.Generator().manual_seed(2))
        torch.testing.assert_close(both[1], alone[0])
        assert not torch.equal(both[0], both[1])


class TestEncodeDecode:
    @every_kind
    def test_a_frame_for_each_hop_and_back(self, make_vae, kind):
        vae = make_vae(kind)
        posterior = vae.encode(crop(2, 5))
        assert posterior.mean.shape == posterior.std.shape == (2, 5, 8) and (posterior.std > 0).all()
        assert vae.decode(posterior.mode()).shape == (2, 5 * HOP)

    @pytest.mark.parametrize("causal", [False, True])
    @every_kind
    def test_a_row_in_a_batch_equals_the_row_alone(self, make_vae, kind, causal):
        vae = make_vae(kind, encoder_causal=causal, decoder_causal=causal)
        waveforms, mask = crop(2, 6), torch.ones(2, 6 * HOP)
        mask[1, 4 * HOP :] = 0  # the samples there are not zero
        posterior, alone = vae.encode(waveforms, mask), vae.encode(waveforms[1:, : 4 * HOP])
        assert posterior.mask.tolist() == [[1] * 6, [1, 1, 1, 1, 0, 0]]
        torch.testing.assert_close(posterior.mean[1, :4], alone.mean[0], atol=1e-4, rtol=0)
        torch.testing.assert_close(posterior.std[1, :4], alone.std[0], atol=1e-4, rtol=0)
        latents = torch.randn(2, 6, 8)
        decoded = vae.decode(latents, posterior.mask)
        torch.testing.assert_close(decoded[1, : 4 * HOP], vae.decode(latents[1:, :4])[0], atol=1e-4, rtol=0)
        assert not decoded[1, 4 * HOP :].any()

    def test_statistics_normalise_latents(self, make_vae):
        vae, waveforms = make_vae(), crop(2, 5)
        mean, std = vae.latent_mean.clone(), vae.latent_std.clone()
        normalised = vae.encode(waveforms)
        vae.set_latent_statistics(torch.zeros(8), torch.ones(8))
        raw = vae.encode(waveforms)
        torch.testing.assert_close(normalised.mean, (raw.mean - mean) / std)
        torch.testing.assert_close(normalised.std, raw.std / std)

    def test_statistics_change_no_reconstruction(self, make_vae):
        vae, waveforms = make_vae(), crop(2, 5)
        before = vae.decode(vae.encode(waveforms).mode())
        vae.set_latent_statistics(torch.full((8,), 3.0), torch.full((8,), 0.1))
        torch.testing.assert_close(vae.decode(vae.encode(waveforms).mode()), before, atol=1e-5, rtol=0)

    def test_measured_statistics_give_unit_latents(self, make_vae):
        vae, waveforms = make_vae(), crop(3, 8)
        vae.set_latent_statistics(torch.zeros(8), torch.ones(8))
        raw = vae.encode(waveforms).mean.flatten(0, 1)
        vae.set_latent_statistics(raw.mean(0), raw.std(0))
        latents = vae.encode(waveforms).mean.flatten(0, 1)
        torch.testing.assert_close(latents.mean(0), torch.zeros(8), atol=1e-4, rtol=0)
        torch.testing.assert_close(latents.std(0), torch.ones(8), atol=1e-4, rtol=0)

    @pytest.mark.parametrize("lookahead", [0, 1])
    @pytest.mark.parametrize("kind", ["mel-istft", "mel-bigvgan"])
    def test_a_causal_decoder_sees_as_far_ahead_as_the_config_says(self, make_vae, kind, lookahead):
        vae = make_vae(kind, decoder_causal=True, decoder_lookahead_frames=lookahead)
        latents = torch.randn(1, 12, 8)
        changed = latents.clone()
        changed[:, 7:] = torch.randn(1, 5, 8)
        first = (vae.decode(latents) - vae.decode(changed))[0].nonzero()[0].item()
        bound = 7 * HOP - round(vae.config.lookahead_seconds * 24000)
        assert bound <= first < bound + 20


class TestRefusals:
    @pytest.mark.parametrize("shape", [(1, HOP - 1), (2, 5 * HOP + 1), (1, 0), (HOP,), (1, 1, HOP)])
    def test_lengths_that_are_no_multiple(self, make_vae, shape):
        with pytest.raises(ValueError, match="multiple of 600 samples"):
            make_vae().encode(torch.zeros(shape))

    def test_masks_of_another_shape(self, make_vae):
        with pytest.raises(ValueError, match="`waveforms_mask`"):
            make_vae().encode(torch.zeros(2, HOP), torch.ones(2, 1))

    @pytest.mark.parametrize("shape", [(1, 4, 7), (4, 8), (1, 0, 8)])
    def test_latents_of_another_size(self, make_vae, shape):
        with pytest.raises(ValueError, match=r"`latents` must be \(batch_size, num_frames, 8\)"):
            make_vae().decode(torch.zeros(shape))

    @pytest.mark.parametrize(
        ("mean", "std", "message"),
        [
            (torch.zeros(7), torch.ones(8), "`mean` must be 8 finite values"),
            (torch.zeros(8), torch.ones(1, 8), "`std` must be 8 finite values"),
            (torch.full((8,), float("nan")), torch.ones(8), "`mean`"),
            (torch.zeros(8), torch.full((8,), float("inf")), "`std`"),
            (torch.zeros(8), torch.tensor([1.0] * 7 + [0.0]), "`std` must be positive"),
            (torch.zeros(8), -torch.ones(8), "`std` must be positive"),
        ],
    )
    def test_statistics_that_are_none(self, make_vae, mean, std, message):
        vae = make_vae()
        before = vae.latent_mean.clone(), vae.latent_std.clone()
        with pytest.raises(ValueError, match=message):
            vae.set_latent_statistics(mean, std)
        assert torch.equal(vae.latent_mean, before[0]) and torch.equal(vae.latent_std, before[1])


class TestTraining:
    def test_loss_is_the_weighted_sum_of_its_parts(self, make_vae):
        vae = make_vae(mel_loss_weight=2.0, stft_loss_weight=0.5, kl_loss_weight=0.1)
        output = vae(crop())
        expected = 2.0 * output.mel_loss + 0.5 * output.stft_loss + 0.1 * output.kl_loss
        torch.testing.assert_close(output.loss, expected)
        assert output.waveforms.shape == (1, 8 * HOP)

    def test_tuple_holds_the_same(self, make_vae):
        vae, waveforms = make_vae(), crop()
        output = vae(waveforms)
        assert isinstance(output, DiTARVAEOutput)
        for ours, theirs in zip(vae(waveforms, return_dict=False), output.to_tuple(), strict=True):
            assert torch.equal(ours, theirs)

    def test_it_draws_in_training_alone(self, make_vae):
        vae, waveforms = make_vae(), crop()
        assert torch.equal(vae(waveforms).waveforms, vae(waveforms).waveforms)
        torch.testing.assert_close(vae(waveforms).waveforms, vae.decode(vae.encode(waveforms).mode()))
        vae.train()
        first, again, other = (vae(waveforms, generator=torch.Generator().manual_seed(s)).waveforms for s in (1, 1, 2))
        assert torch.equal(first, again) and not torch.equal(first, other)

    @every_kind
    def test_padding_changes_no_loss(self, make_vae, kind):
        vae, waveforms, mask = make_vae(kind), crop(1, 7), torch.ones(1, 7 * HOP)
        mask[:, 4 * HOP :] = 0
        padded, alone = vae(waveforms, mask), vae(waveforms[:, : 4 * HOP])
        for name in ("loss", "mel_loss", "stft_loss", "kl_loss"):
            torch.testing.assert_close(padded[name], alone[name], atol=1e-4, rtol=0)

    @every_kind
    def test_every_weight_has_a_gradient(self, make_vae, kind):
        vae = make_vae(kind).train()
        vae(crop(2, 4)).loss.backward()
        assert [n for n, p in vae.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []

    @pytest.mark.parametrize("kind", ["mel-istft", "conv-bigvgan"])
    def test_plain_trainer_lowers_the_loss(self, make_vae, tmp_path, kind):
        waveform = crop()[0]
        arguments = TrainingArguments(
            output_dir=tmp_path,
            max_steps=3,
            per_device_train_batch_size=1,
            learning_rate=3e-3,
            lr_scheduler_type="constant",
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
        )
        trainer = Trainer(make_vae(kind), arguments, train_dataset=[{"waveforms": waveform}] * 8)
        trainer.train()
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        assert len(losses) == 3 and 0 < losses[2] < losses[1] < losses[0] < float("inf")

    @pytest.mark.parametrize("kind", ["mel-istft", "conv-bigvgan"])
    @pytest.mark.parametrize("autocast", [False, True])
    def test_half_precision_is_finite(self, make_vae, kind, autocast):
        vae, mask = make_vae(kind).train(), torch.ones(2, 4 * HOP)
        vae = vae if autocast else vae.to(torch.bfloat16)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            output = vae(crop(2, 4), mask)
        output.loss.backward()
        assert output.loss.isfinite() and output.loss.dtype == output.waveforms.dtype == torch.float32
        assert all(p.grad.isfinite().all() for p in vae.parameters())


class TestSaving:
    @every_kind
    def test_saved_equals_loaded(self, make_vae, tmp_path, kind):
        vae, waveforms = make_vae(kind), crop(2, 5)
        vae.save_pretrained(tmp_path)
        for loaded in (DiTARVAE.from_pretrained(tmp_path), AutoModel.from_pretrained(tmp_path)):
            assert type(loaded) is DiTARVAE and not loaded.training
            tensors = [dict((*x.named_parameters(), *x.named_buffers())) for x in (vae, loaded)]
            assert tensors[0].keys() == tensors[1].keys()
            for name, tensor in tensors[0].items():
                assert torch.equal(tensor, tensors[1][name]), name
            assert torch.equal(loaded(waveforms).waveforms, vae(waveforms).waveforms)

    @every_kind
    def test_nothing_stays_uninitialised_after_the_meta_device(self, make_vae, kind):
        vae = make_vae(kind)
        with torch.device("meta"):
            empty = DiTARVAE(vae.config)
        empty.to_empty(device="cpu")
        with torch.no_grad():
            for tensor in (*empty.parameters(), *empty.buffers()):
                tensor.fill_(float("nan"))
        empty.init_weights()
        assert [name for name, p in empty.named_parameters() if not p.isfinite().all()] == []
        assert not empty.latent_mean.any() and (empty.latent_std == 1).all()
        fresh = DiTARVAE(vae.config)
        for (name, ours), (_, theirs) in zip(empty.named_buffers(), fresh.named_buffers(), strict=True):
            assert torch.equal(ours, theirs), name
        for (name, ours), (_, theirs) in zip(empty.named_parameters(), fresh.named_parameters(), strict=True):
            # raw parameters and biases begin with fixed values, matrices with a deviation
            if theirs.numel() == 1 or theirs.std() == 0:
                assert torch.equal(ours, theirs), name
            elif theirs.numel() > 100:
                torch.testing.assert_close(ours.std(), theirs.std(), atol=0, rtol=0.5, msg=name)

    def test_half_precision_keeps_statistics_and_filters(self, make_vae, tmp_path):
        vae = make_vae()
        vae.save_pretrained(tmp_path)
        loaded = DiTARVAE.from_pretrained(tmp_path, dtype=torch.bfloat16)
        assert loaded.dtype == torch.bfloat16
        assert {buffer.dtype for buffer in loaded.buffers()} == {torch.float32}
        assert loaded.encode(crop()).mean.dtype == torch.float32


def test_casts_keep_the_statistics(make_vae_config):
    vae = DiTARVAE(make_vae_config())
    mean, std = torch.linspace(-1, 1, 8) / 3, torch.linspace(1, 2, 8) / 3
    vae.set_latent_statistics(mean, std)
    names = list(vae.state_dict())
    for cast in (vae.bfloat16, vae.half, vae.double):
        cast()
        assert vae.decoder.output_proj.weight.dtype != torch.float32
        assert torch.equal(vae.latent_mean, mean) and torch.equal(vae.latent_std, std)
    assert list(vae.state_dict()) == names
    assert {p.device.type for p in (*vae.to("meta").parameters(), *vae.buffers())} == {"meta"}


def test_what_lies_above_the_bandwidth_is_no_error(make_vae_config):
    vae = DiTARVAE(make_vae_config()).eval()
    waveforms = torch.randn(2, 4800) * 0.1
    narrow = limit_bandwidth(waveforms, torch.tensor([8000.0, 8000.0]), 24000)
    bandwidths = torch.tensor([8000.0, 8000.0])
    outputs = [vae(narrow, target_waveforms=target, bandwidths=bandwidths) for target in (narrow, waveforms)]
    torch.testing.assert_close(outputs[0].loss, outputs[1].loss)
    assert vae(narrow, target_waveforms=waveforms).loss > outputs[1].loss + 0.1
    full = vae(narrow, target_waveforms=waveforms, bandwidths=torch.tensor([12000.0, 12000.0])).loss
    torch.testing.assert_close(full, vae(narrow, target_waveforms=waveforms).loss)
