"""`DiTARModel` and `DiTARForTextToSpeech` on true patches: states, targets, losses, the frozen tokenizer of speech."""

import pytest
import torch
from transformers import AutoModelForTextToWaveform, DynamicCache
from transformers.utils import is_flash_attn_2_available

from ditar_hf import DiTARForTextToSpeech, DiTARVAE
from ditar_hf.modeling import modeling_ditar
from ditar_hf.modeling.modeling_ditar import DiTARForTextToSpeechOutput

PAD, BOS, PATCH, IGNORE = 0, 2, 3, -100
SIZE, DIM = 4, 8
QWEN = {
    "model_type": "qwen3",
    "vocab_size": 40,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 48,
    "bos_token_id": None,
    "eos_token_id": None,
}
# learnt positions: unlike rotary ones they tell where a sequence begins
GPT2 = {
    "model_type": "gpt2",
    "vocab_size": 40,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 64,
    "bos_token_id": None,
    "eos_token_id": None,
}
every_lm = pytest.mark.parametrize("lm_config", [{}, QWEN, GPT2], ids=["arcee", "qwen3", "gpt2"])
# rows of a batch as (tokens of text, patches of a prompt, target patches)
ROWS = ((5, 0, 3), (2, 1, 4), (7, 2, 1))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_batch(rows=ROWS, chosen: slice = slice(None)) -> dict[str, torch.Tensor]:
    """Rows as the collator makes them; `chosen` are the same rows without the others and their padding."""
    made = []
    for row, (text, prompt, target) in enumerate(rows):
        tokens = torch.randint(4, 40, (text,), generator=seeded(row))
        ids = torch.cat((tokens, torch.tensor([BOS] + [PATCH] * (prompt + target))))
        labels = torch.full_like(ids, IGNORE)
        labels[-1 - target :], labels[-1] = 0, 1
        latents = torch.randn((prompt + target) * SIZE, DIM, generator=seeded(100 + row))
        made.append((ids, labels, latents))
    made = made[chosen]

    def pad(values, padding, side):
        return torch.nn.utils.rnn.pad_sequence(values, True, padding, padding_side=side)

    return {
        "input_ids": pad([ids for ids, _, _ in made], PAD, "left"),
        "attention_mask": pad([torch.ones_like(ids) for ids, _, _ in made], 0, "left"),
        "labels": pad([labels for _, labels, _ in made], IGNORE, "left"),
        "latents": pad([latents for _, _, latents in made], 0.0, "right"),
        "latents_mask": pad([torch.ones(len(latents)) for _, _, latents in made], 0.0, "right"),
    }


def all_patches(batch) -> torch.Tensor:
    """Patches of all rows in order, as `DiTARModel` takes them."""
    rows = [row[mask.bool()] for row, mask in zip(batch["latents"], batch["latents_mask"], strict=True)]
    return torch.cat(rows).unflatten(0, (-1, SIZE))


def at_time(monkeypatch, time: float):
    """Draws this diffusion time for all patches: at 0 LocDiT sees the data, at 1 the noise alone."""
    monkeypatch.setattr(modeling_ditar, "sample_timesteps", lambda shape, *_: torch.full(shape, time))


def locdit_calls(model) -> list[dict[str, torch.Tensor]]:
    """What LocDiT is given and what it says, filled by calls of the model."""
    calls = []

    def note(_, args, output):
        names = ("sample", "timestep", "condition", "history")
        calls.append({**dict(zip(names, args, strict=True)), "output": output})

    model.locdit.register_forward_hook(note)
    return calls


class TestStates:
    @every_lm
    def test_a_row_in_a_batch_equals_the_row_alone(self, make_model, lm_config):
        model, batch = make_model(lm_config=lm_config), make_batch()
        together = model(**batch)
        for row in range(len(ROWS)):
            alone = model(**make_batch(chosen=slice(row, row + 1)))
            length = alone.stop_logits.shape[1]
            for name in ("last_hidden_state", "stop_logits"):
                torch.testing.assert_close(together[name][row, -length:], alone[name][0], atol=1e-5, rtol=0)

    def test_more_left_padding_changes_nothing(self, make_model):
        model, batch = make_model(), make_batch()
        padded = dict(batch)
        for name, value in (("input_ids", PAD), ("attention_mask", 0), ("labels", IGNORE)):
            padded[name] = torch.nn.functional.pad(batch[name], (5, 0), value=value)
        before, after = (model(**x, generator=seeded()) for x in (batch, padded))
        torch.testing.assert_close(after.last_hidden_state[:, 5:], before.last_hidden_state, atol=1e-5, rtol=0)
        torch.testing.assert_close(after.loss, before.loss, atol=1e-5, rtol=0)

    def test_more_right_padding_changes_nothing(self, make_model):
        model, batch = make_model(), make_batch()
        padded = dict(batch, latents=torch.nn.functional.pad(batch["latents"], (0, 0, 0, 8), value=7.0))
        padded["latents_mask"] = torch.nn.functional.pad(batch["latents_mask"], (0, 8))
        before, after = (model(**x, generator=seeded()) for x in (batch, padded))
        torch.testing.assert_close(after.loss, before.loss, atol=1e-5, rtol=0)
        torch.testing.assert_close(after.stop_logits, before.stop_logits, atol=1e-5, rtol=0)

    @pytest.mark.parametrize("patch", [0, 1, 3])
    def test_a_patch_changes_its_own_state_and_later_ones(self, make_model, patch):
        model, batch = make_model(), make_batch(((3, 0, 4),))
        changed = dict(batch, latents=batch["latents"].clone())
        changed["latents"][:, patch * SIZE : (patch + 1) * SIZE] += 1.0
        difference = model(**batch).last_hidden_state - model(**changed).last_hidden_state
        moved = difference[0].abs().amax(-1) > 1e-6
        assert moved.tolist() == [False] * (4 + patch) + [True] * (4 - patch)

    def test_a_token_changes_its_own_state_and_later_ones(self, make_model):
        model, batch = make_model(), make_batch(((3, 0, 4),))
        changed = dict(batch, input_ids=batch["input_ids"].clone())
        changed["input_ids"][0, 1] = 4 + batch["input_ids"][0, 1] % 30
        moved = (model(**batch).last_hidden_state - model(**changed).last_hidden_state)[0].abs().amax(-1) > 1e-6
        assert moved.tolist() == [False] + [True] * 7

    @every_lm
    @pytest.mark.parametrize("split", [1, 4, 9])
    def test_cached_equals_uncached(self, make_model, lm_config, split):
        model, batch = make_model(lm_config=lm_config), make_batch()
        ids, mask, patches = batch["input_ids"], batch["attention_mask"], all_patches(batch)
        whole = model.model(ids, mask, patches).last_hidden_state
        cache, parts = DynamicCache(config=model.model.language_model.config), []
        place = (ids == PATCH).nonzero()[:, 1]  # of each patch in its row
        for start, end in ((0, split), (split, ids.shape[1])):
            given = patches[(place >= start) & (place < end)]
            given = given if len(given) else None
            parts.append(model.model(ids[:, start:end], mask[:, :end], given, cache, use_cache=True).last_hidden_state)
        real = mask.bool()
        torch.testing.assert_close(torch.cat(parts, dim=1)[real], whole[real], atol=1e-5, rtol=0)

    @every_lm
    def test_a_continuation_has_states_and_no_losses(self, make_model, lm_config):
        model, batch = make_model(lm_config=lm_config), make_batch(((3, 0, 4),))
        text = model(batch["input_ids"][:, :4], batch["attention_mask"][:, :4], use_cache=True)
        rest = model(
            batch["input_ids"][:, 4:],
            batch["attention_mask"],
            latents=batch["latents"],
            past_key_values=text.past_key_values,
        )
        logits = torch.cat((text.stop_logits, rest.stop_logits), dim=1)
        torch.testing.assert_close(logits, model(**batch).stop_logits, atol=1e-5, rtol=0)
        assert rest.loss is None and rest.diffusion_loss is None

    def test_embeddings_of_placeholders_are_patches_in_order(self, make_model):
        model, batch = make_model(), make_batch()
        embeds = model.model.embed(batch["input_ids"], all_patches(batch))
        is_patch = batch["input_ids"] == PATCH
        assert torch.equal(embeds[is_patch], model.model.patch_encoder(all_patches(batch)))
        assert torch.equal(embeds[~is_patch], model.get_input_embeddings()(batch["input_ids"][~is_patch]))


class TestTargets:
    @pytest.mark.parametrize("history", [0, 1, 2])
    def test_locdit_gets_states_before_targets_and_patches_before_those(self, make_model, monkeypatch, history):
        model, batch = make_model(num_history_patches=history), make_batch()
        calls = locdit_calls(model)
        at_time(monkeypatch, 0.0)
        states = model(**batch).last_hidden_state
        expected = {"sample": [], "condition": [], "history": []}
        for row, (_, prompt, target) in enumerate(ROWS):
            patches = batch["latents"][row].unflatten(0, (-1, SIZE))
            patches = torch.cat((torch.zeros(history, SIZE, DIM), patches))  # so that patch n is at n + history
            for patch in range(prompt, prompt + target):
                expected["sample"].append(patches[patch + history])
                expected["history"].append(patches[patch : patch + history].flatten(0, 1))
                expected["condition"].append(states[row, -1 - (prompt + target - patch)])
        for name, values in expected.items():
            torch.testing.assert_close(calls[0][name], torch.stack(values), atol=1e-6, rtol=0)

    @pytest.mark.parametrize("draws", [1, 3])
    def test_locdit_works_on_targets_alone(self, make_model, draws):
        model = make_model(num_noise_samples=draws)
        calls = locdit_calls(model)
        model(**make_batch())
        assert [len(call["sample"]) for call in calls] == [draws * sum(target for _, _, target in ROWS)]

    def test_labels_decide_targets(self, make_model, monkeypatch):
        model, batch = make_model(), make_batch()
        calls = locdit_calls(model)
        at_time(monkeypatch, 0.0)
        batch["labels"][1, -5:-3] = IGNORE  # no longer targets: the first two of row 1
        model(**batch)
        model(**{**batch, "labels": None})
        kept = [*range(3), *range(6, 8), 10]  # among 3 + (1 + 4) + (2 + 1) patches
        torch.testing.assert_close(calls[0]["sample"], all_patches(batch)[kept], atol=1e-6, rtol=0)
        torch.testing.assert_close(calls[1]["sample"], all_patches(batch), atol=1e-6, rtol=0)

    def test_without_targets_the_loss_is_that_of_stopping(self, make_model):
        model, batch = make_model(), make_batch()
        batch["labels"] = torch.where(batch["labels"] == 1, 1, IGNORE)
        output = model(**batch)
        output.loss.backward()
        assert output.diffusion_loss == 0 and torch.equal(output.loss, output.stop_loss) and output.loss > 0

    def test_noise_is_drawn_for_each_patch_and_draw(self, make_model, monkeypatch):
        model = make_model(num_noise_samples=4)
        calls = locdit_calls(model)
        at_time(monkeypatch, 1.0)
        model(**make_batch())
        noise = calls[0]["sample"].flatten(1)
        assert torch.pdist(noise).min() > 1 and abs(noise.std() - 1) < 0.15

    def test_draws_share_what_they_are_conditioned_on(self, make_model):
        model = make_model(num_noise_samples=4)
        calls = locdit_calls(model)
        model(**make_batch())
        (call,) = calls
        assert len(call["timestep"].unique()) == 32
        for name, same in (("condition", True), ("history", True), ("sample", False)):
            draws = call[name].unflatten(0, (8, 4))
            assert torch.equal(draws, draws[:, :1].expand_as(draws)) == same, name


class TestLosses:
    def test_diffusion_loss_is_the_mean_over_real_frames(self, make_model, monkeypatch):
        model, batch = make_model(), make_batch()
        calls = locdit_calls(model)
        batch["latents_mask"][0, 10:12] = 0  # half of the last patch of row 0
        at_time(monkeypatch, 1.0)
        loss = model(**batch).diffusion_loss
        # at time 1 the velocity is -π/2 times the data
        error = calls[0]["output"] + torch.pi / 2 * all_patches(make_batch())[[*range(3), *range(4, 8), 10]]
        error[2, 2:] = 0
        torch.testing.assert_close(loss, error.square().sum() / ((8 * SIZE - 2) * DIM))

    def test_stop_loss_reads_the_state_after_each_patch(self, make_model):
        model, batch = make_model(stop_positive_weight=3.0), make_batch()
        output = model(**batch)
        terms = []
        for row, (_, _, target) in enumerate(ROWS):
            logits = output.stop_logits[row, -1 - target :]
            terms += [torch.nn.functional.softplus(logits[:-1]), 3 * torch.nn.functional.softplus(-logits[-1:])]
        torch.testing.assert_close(output.stop_loss, torch.cat(terms).mean())
        logits = model.stop_head(output.last_hidden_state)[..., 0]
        torch.testing.assert_close(output.stop_logits, logits)

    def test_loss_is_the_weighted_sum(self, make_model):
        model = make_model(stop_loss_weight=0.3, alignment_loss_weight=0.7)
        batch = make_batch()
        alignment = torch.full_like(batch["input_ids"], IGNORE)
        alignment[0, -4] = batch["input_ids"].shape[1] - 9 + 2  # the first patch of row 0 speaks its third token
        output = model(**batch, alignment_targets=alignment)
        assert output.alignment_loss > 0
        expected = output.diffusion_loss + 0.3 * output.stop_loss + 0.7 * output.alignment_loss
        torch.testing.assert_close(output.loss, expected)

    def test_without_labels_there_is_no_stop_loss(self, make_model):
        output = make_model()(**{**make_batch(), "labels": None})
        assert output.stop_loss is None and torch.equal(output.loss, output.diffusion_loss)

    def test_without_latents_there_are_logits_alone(self, make_model):
        output = make_model()(torch.tensor([[5, 6, BOS]]))
        assert output.loss is None and output.stop_logits.shape == (1, 3)

    def test_tuple_holds_the_same(self, make_model):
        model, batch = make_model(), make_batch()
        output = model(**batch, generator=seeded())
        assert isinstance(output, DiTARForTextToSpeechOutput)
        values = model(**batch, generator=seeded(), return_dict=False)
        assert isinstance(values, tuple) and torch.equal(values[0], output.loss)
        assert len(values) == len(output.to_tuple())

    def test_generator_decides_and_the_global_source_rests(self, make_model):
        model, state = make_model(condition_dropout=0.5, history_noise_std=0.1).train(), torch.get_rng_state()
        first, again, other = (model(**make_batch(), generator=seeded(seed)).loss for seed in (1, 1, 2))
        assert first == again != other
        assert torch.equal(torch.get_rng_state(), state)

    def test_evaluations_repeat_and_leave_the_global_source_alone(self, make_model):
        model, batch = make_model().eval(), make_batch()
        torch.manual_seed(0)
        state = torch.get_rng_state()
        first = model(**batch).loss
        assert torch.equal(torch.get_rng_state(), state)
        torch.manual_seed(1)
        assert torch.equal(model(**batch).loss, first)
        # training does not repeat itself
        model.train()
        assert not torch.equal(model(**batch).diffusion_loss, model(**batch).diffusion_loss)

    def test_perfect_predictions_cost_nothing(self, make_model, monkeypatch):
        model, batch = make_model(), make_batch()
        at_time(monkeypatch, 1.0)
        perfect = -torch.pi / 2 * all_patches(batch)[[*range(3), *range(4, 8), 10]]
        monkeypatch.setattr(model.locdit, "forward", lambda *_: perfect)
        assert model(**batch).diffusion_loss < 1e-10

    @pytest.mark.parametrize("distribution", ["uniform", "logit_normal"])
    def test_times_follow_the_config(self, make_model, distribution):
        # a deviation of 0 shows the mean: sigmoid(2)
        options = {"timestep_logit_mean": 2.0, "timestep_logit_std": 0.0}
        model = make_model(timestep_distribution=distribution, num_noise_samples=4, **options)
        calls = locdit_calls(model)
        model(**make_batch())
        is_constant = bool((calls[0]["timestep"] - torch.tensor(2.0).sigmoid()).abs().max() < 1e-6)
        assert is_constant == (distribution == "logit_normal")

    def test_what_is_learnt_follows_the_scheduler_s_config(self, make_model, monkeypatch):
        at_time(monkeypatch, 1.0)
        targets = all_patches(make_batch())[[*range(3), *range(4, 8), 10]]
        for prediction_type, factor in (("flow_prediction", -torch.pi / 2), ("v_prediction", -1.0), ("sample", 1.0)):
            model = make_model(scheduler_config={"prediction_type": prediction_type})
            calls = locdit_calls(model)
            loss = model(**make_batch()).diffusion_loss
            torch.testing.assert_close(loss, (calls[0]["output"] - factor * targets).square().mean())


class TestDropping:
    def test_a_dropped_condition_is_zero_and_the_history_stays(self, make_model):
        model = make_model().train()
        model.config.condition_dropout = 1.0  # above what the config allows, so that all are dropped
        calls = locdit_calls(model)
        model(**make_batch())
        (call,) = calls
        assert not call["condition"].any() and call["history"].any()
        free = model.locdit(call["sample"], call["timestep"], torch.zeros(8, 32), call["history"])
        assert torch.equal(call["output"], free)

    def test_it_is_drawn_for_each_patch_and_draw(self, make_model):
        model = make_model(num_noise_samples=50, condition_dropout=0.3).train()
        calls = locdit_calls(model)
        model(**make_batch(), generator=seeded())
        dropped = (calls[0]["condition"] == 0).all(-1).float().unflatten(0, (8, 50))
        assert ((dropped.mean(1) > 0) & (dropped.mean(1) < 1)).all()
        # 400 draws: within 5 standard errors
        assert abs(dropped.mean() - 0.3) < 5 * (0.21 / 400) ** 0.5

    def test_nothing_is_dropped_outside_of_training(self, make_model):
        model = make_model(num_noise_samples=50, condition_dropout=0.9).eval()
        calls = locdit_calls(model)
        model(**make_batch())
        assert calls[0]["condition"].any(-1).all()

    def test_the_stop_head_is_never_deprived(self, make_model):
        model = make_model(condition_dropout=0.9)
        before = model.eval()(**make_batch()).stop_loss
        torch.testing.assert_close(model.train()(**make_batch()).stop_loss, before)


class TestHistoryNoise:
    def test_encoder_and_history_see_it_in_training_alone(self, make_model, monkeypatch):
        model, batch, encoded = make_model(history_noise_std=0.5), make_batch(), []
        model.model.patch_encoder.register_forward_pre_hook(lambda _, args: encoded.append(args[0]))
        calls = locdit_calls(model)
        at_time(monkeypatch, 0.0)
        model.eval()(**batch)
        model.train()(**batch)
        assert torch.equal(encoded[0], all_patches(batch))
        noise = encoded[1] - encoded[0]
        assert 0.4 < noise.std() < 0.6
        # history and encoder share the noise; the targets have none
        torch.testing.assert_close(calls[1]["sample"], calls[0]["sample"])
        targets = [*range(3), *range(4, 8), 10]
        before = [index - 1 for index in targets]
        shared = calls[1]["history"] - calls[0]["history"]
        torch.testing.assert_close(shared[1:], noise[before][1:], atol=1e-6, rtol=0)
        assert not shared[0].any()  # before the first patch there are zeros, whatever the noise


class TestAccumulation:
    """With the items of a whole optimizer step given, micro-batches add up."""

    parts = (slice(0, 1), slice(1, 3))

    def test_a_micro_batch_gives_its_share(self, make_model):
        model = make_model()
        for part in self.parts:
            batch = make_batch(chosen=part)
            count = (batch["labels"] != IGNORE).sum()
            mean, share = (model(**batch, generator=seeded(), num_items_in_batch=n).loss for n in (None, 11))
            torch.testing.assert_close(share, mean * count / 11)

    def test_stop_losses_add_up_to_the_whole_batch(self, make_model, monkeypatch):
        model = make_model()
        monkeypatch.setattr(model, "_diffusion_loss", lambda states, *_: states.new_zeros(()))
        total = torch.tensor(sum(target + 1 for _, _, target in ROWS))
        whole = model(**make_batch(), num_items_in_batch=total).loss
        shares = [model(**make_batch(chosen=part), num_items_in_batch=total).loss for part in self.parts]
        torch.testing.assert_close(sum(shares), whole, atol=1e-5, rtol=0)
        torch.testing.assert_close(whole, model(**make_batch()).stop_loss)

    def test_diffusion_losses_of_equal_rows_add_up_to_the_whole_batch(self, make_model, monkeypatch):
        # a share counts stop labels, one more than patches: exact where all rows have as many patches
        rows = ((5, 0, 3), (2, 1, 3), (7, 2, 3))
        model = make_model(stop_loss_weight=0.0)
        at_time(monkeypatch, 0.5)
        # no noise, so that parts and whole see the same
        monkeypatch.setattr(modeling_ditar, "randn_tensor", lambda shape, *_: torch.zeros(shape))
        whole = model(**make_batch(rows), num_items_in_batch=12).loss
        shares = [model(**make_batch(rows, part), num_items_in_batch=12).loss for part in self.parts]
        torch.testing.assert_close(sum(shares), whole, atol=1e-5, rtol=0)
        torch.testing.assert_close(whole, model(**make_batch(rows)).diffusion_loss)


class TestWaveforms:
    def waveforms(self, rows=1, patches=3) -> torch.Tensor:
        return 0.3 * torch.randn(rows, patches * 2400, generator=seeded(5))

    def text(self, patches=3) -> dict[str, torch.Tensor]:
        batch = make_batch(((4, 0, patches),))
        return {name: batch[name] for name in ("input_ids", "attention_mask", "labels")}

    def test_they_equal_their_latents(self, make_model):
        model = make_model()
        latents = model.vae.encode(self.waveforms()).mode()
        expected = model(**self.text(), latents=latents, generator=seeded())
        given = model(**self.text(), waveforms=self.waveforms(), generator=seeded())
        assert torch.equal(given.loss, expected.loss) and torch.equal(given.stop_logits, expected.stop_logits)

    def test_a_padded_row_equals_the_row_alone(self, make_model, monkeypatch):
        model, waveforms = make_model(), self.waveforms(2)
        at_time(monkeypatch, 0.0)
        mask = torch.ones_like(waveforms)
        mask[1, 2400:] = 0  # what lies there is no silence
        batch = make_batch(((4, 0, 3), (6, 0, 1)))
        text = {name: batch[name] for name in ("input_ids", "attention_mask", "labels")}
        calls = locdit_calls(model)
        together = model(**text, waveforms=waveforms, waveforms_mask=mask)
        single = make_batch(((4, 0, 3), (6, 0, 1)), slice(1, 2))
        single = {name: single[name] for name in text}
        alone = model(**single, waveforms=waveforms[1:, :2400])
        length = alone.stop_logits.shape[1]
        torch.testing.assert_close(together.stop_logits[1, -length:], alone.stop_logits[0], atol=1e-4, rtol=0)
        torch.testing.assert_close(calls[0]["output"][3:], calls[1]["output"], atol=1e-4, rtol=0)

    def test_posterior_is_sampled_in_training_if_the_config_says_so(self, make_model):
        for sample in (False, True):
            model, encoded = make_model(sample_latents=sample), []
            model.model.patch_encoder.register_forward_pre_hook(lambda _, args, to=encoded: to.append(args[0]))
            model.eval()(**self.text(), waveforms=self.waveforms())
            model.train()(**self.text(), waveforms=self.waveforms())
            mean = model.vae.encode(self.waveforms()).mode()[0].unflatten(0, (-1, SIZE))
            assert torch.equal(encoded[0], mean)
            assert torch.equal(encoded[1], mean) != sample

    def test_autocast_does_not_reach_the_tokenizer(self, make_model):
        model = make_model()
        expected = model.vae.encode(self.waveforms()).mode()
        with torch.autocast("cpu", torch.bfloat16):
            latents, mask = model.encode_waveforms(self.waveforms())
            loss = model(**self.text(), waveforms=self.waveforms()).loss
        assert torch.equal(latents, expected) and mask is None
        assert loss.isfinite() and loss.dtype == torch.float32

    def test_latents_have_no_gradient(self, make_model):
        waveforms = self.waveforms().requires_grad_()
        latents, _ = make_model().encode_waveforms(waveforms)
        assert not latents.requires_grad


class TestFrozenTokenizer:
    def test_training_mode_passes_it_by(self, make_model):
        model = make_model().train()
        assert model.training and model.locdit.training
        assert not any(module.training for module in model.vae.modules())

    @pytest.mark.parametrize("alignment", [0.0, 1.0])
    def test_exactly_the_other_weights_have_gradients(self, make_model, alignment):
        model = make_model(alignment_loss_weight=alignment).train()
        text = make_batch(((4, 0, 3),))
        labels = torch.full_like(text["input_ids"], IGNORE)
        labels[0, 4] = 1
        waveforms = 0.3 * torch.randn(1, 7200)
        names = ("input_ids", "attention_mask", "labels")
        model(**{n: text[n] for n in names}, waveforms=waveforms, alignment_targets=labels).loss.backward()
        without = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is None}
        trained = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None}
        assert without == {"vae"} and "vae" not in trained
        assert {name.split(".")[0] for name, p in model.named_parameters() if not p.requires_grad} == {"vae"}

    @pytest.mark.parametrize(
        "cast",
        [
            lambda m: m.to(torch.bfloat16),
            lambda m: m.bfloat16(),
            lambda m: m.half(),
            lambda m: m.to(dtype=torch.float64),
        ],
        ids=["to", "bfloat16", "half", "float64"],
    )
    def test_casts_pass_it_by(self, make_model, cast):
        model = make_model()
        before = {name: tensor.clone() for name, tensor in model.vae.state_dict().items()}
        cast(model)
        assert model.stop_head.weight.dtype != torch.float32
        for name, tensor in (*model.vae.named_parameters(), *model.vae.named_buffers()):
            assert tensor.dtype == torch.float32, name
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.vae.state_dict().items())

    def test_it_is_built_in_full_precision_whatever_is_asked_for_the_rest(self, make_config):
        model = AutoModelForTextToWaveform.from_config(make_config(), dtype=torch.bfloat16)
        assert model.stop_head.weight.dtype == torch.bfloat16
        assert {p.dtype for p in (*model.vae.parameters(), *model.vae.buffers())} == {torch.float32}

    def test_moves_take_it_along(self, make_model):
        model = make_model().to("meta")
        assert {tensor.device.type for tensor in (*model.parameters(), *model.buffers())} == {"meta"}


class TestPrecision:
    @pytest.mark.parametrize("draws", [1, 2])
    def test_half_precision_is_finite(self, make_model, draws):
        model = make_model(num_noise_samples=draws, alignment_loss_weight=1.0).to(torch.bfloat16).train()
        output = model(**make_batch())
        output.loss.backward()
        assert output.loss.dtype == output.diffusion_loss.dtype == output.stop_loss.dtype == torch.float32
        assert output.loss.isfinite() and output.last_hidden_state.dtype == torch.bfloat16
        assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)

    def test_half_precision_is_near(self, make_model):
        exact, rounded = make_model(), make_model().to(torch.bfloat16)
        expected, output = (model(**make_batch(), generator=seeded()) for model in (exact, rounded))
        torch.testing.assert_close(output.loss, expected.loss, atol=0, rtol=0.05)

    def test_autocast_is_near(self, make_model):
        model = make_model()
        expected = model(**make_batch(), generator=seeded()).loss
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(**make_batch(), generator=seeded()).loss
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, expected, atol=0, rtol=0.05)


class TestAttention:
    @pytest.mark.parametrize("lm_config", [{}, QWEN], ids=["arcee", "qwen3"])
    def test_eager_equals_sdpa(self, make_model, make_config, lm_config):
        outputs = {}
        for attention in ("sdpa", "eager"):
            model = make_model(make_config(attn_implementation=attention, lm_config=lm_config))
            parts = (model.model.language_model, *(m for m in model.modules() if hasattr(m, "qkv_proj")))
            assert {part.config._attn_implementation for part in parts} == {attention}
            outputs[attention] = model(**make_batch(), generator=seeded())
        real = make_batch()["attention_mask"].bool()
        torch.testing.assert_close(outputs["eager"].loss, outputs["sdpa"].loss, atol=1e-5, rtol=0)
        states = [outputs[attention].last_hidden_state[real] for attention in ("eager", "sdpa")]
        torch.testing.assert_close(*states, atol=1e-5, rtol=0)

    def test_it_can_be_changed_later(self, make_model):
        model = make_model()
        expected = model(**make_batch(), generator=seeded()).loss
        model.set_attn_implementation("eager")
        parts = (model.model.language_model, *(m for m in model.modules() if hasattr(m, "qkv_proj")))
        assert {part.config._attn_implementation for part in parts} == {"eager"}
        torch.testing.assert_close(model(**make_batch(), generator=seeded()).loss, expected, atol=1e-5, rtol=0)

    def test_flash_attention_is_taken_or_refused(self, make_model, make_config):
        config = make_config(attn_implementation="flash_attention_2")
        if is_flash_attn_2_available():
            assert make_model(config).config._attn_implementation == "flash_attention_2"
        else:
            with pytest.raises(ImportError, match="FlashAttention2"):
                make_model(config)

    @pytest.mark.gpu
    def test_flash_attention_is_near_sdpa(self, make_model, make_config):
        logits = {}
        for attention in ("sdpa", "flash_attention_2"):
            model = make_model(make_config(attn_implementation=attention)).to("cuda", torch.bfloat16)
            batch = {name: value.to("cuda") for name, value in make_batch().items()}
            logits[attention] = model(**batch).stop_logits[batch["attention_mask"].bool()]
        torch.testing.assert_close(logits["flash_attention_2"], logits["sdpa"], atol=0.05, rtol=0)


class TestCheckpointing:
    @pytest.mark.parametrize("lm_config", [{}, QWEN], ids=["arcee", "qwen3"])
    def test_gradients_are_the_same_at_twice_the_work(self, make_model, lm_config):
        gradients, work = [], []
        for checkpointing in (False, True):
            model, calls = make_model(lm_config=lm_config).train(), []
            if checkpointing:
                model.activation_checkpointing_enable()
            lm, encoder, locdit = model.model.language_model, model.model.patch_encoder, model.locdit
            blocks = (encoder.transformer.layers[0].attention, locdit.transformer.layers[0].attention)
            for part in (*blocks, lm.layers[0].self_attn):
                part.register_forward_hook(lambda *_, to=calls: to.append(1))
            model(**make_batch(), generator=seeded()).loss.backward()
            gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
            work.append(len(calls))
        assert work == [3, 6]
        assert gradients[0].keys() == gradients[1].keys()
        for name, gradient in gradients[0].items():
            torch.testing.assert_close(gradients[1][name], gradient, atol=1e-6, rtol=1e-4, msg=name)


class TestLanguageModel:
    def test_a_qwen3_goes_in(self, make_model):
        model = make_model(lm_config=QWEN).train()
        assert type(model.model.language_model).__name__ == "Qwen3Model"
        output = model(**make_batch())
        output.loss.backward()
        assert output.loss.isfinite()
        assert all(p.grad is not None for p in model.model.parameters())

    @pytest.mark.parametrize("dtype", [torch.bfloat16, "bfloat16"])
    def test_the_precision_in_its_configuration_is_that_of_its_file(self, make_config, dtype):
        config = make_config()
        config.lm_config.dtype = dtype
        model = DiTARForTextToSpeech(config)
        assert {p.dtype for p in model.parameters()} == {torch.float32}
        assert model(**make_batch()).loss.isfinite()

    def test_a_width_of_its_own_goes_in(self, make_model):
        model = make_model(lm_config={"hidden_size": 48, "head_dim": 12})
        assert model(**make_batch()).last_hidden_state.shape[-1] == 48

    def test_pretrained_weights_go_in(self, make_model):
        model, other = make_model(lm_config=QWEN), make_model(lm_config=QWEN)
        with torch.no_grad():
            for parameter in other.model.language_model.parameters():
                parameter.add_(0.1)
        model.model.language_model.load_state_dict(other.model.language_model.state_dict())
        torch.testing.assert_close(model(**make_batch()).stop_logits, other(**make_batch()).stop_logits)

    def test_embedding_can_be_resized(self, make_model):
        model = make_model()
        model.resize_token_embeddings(50)
        assert model.get_input_embeddings().weight.shape == (50, 32) and model.config.lm_config.vocab_size == 50


class TestFromVae:
    def vae(self, make_vae_config, **overrides) -> DiTARVAE:
        torch.manual_seed(7)
        vae = DiTARVAE(make_vae_config(**overrides))
        vae.set_latent_statistics(torch.full((8,), 0.3), torch.full((8,), 2.0))
        return vae

    def test_weights_and_statistics_are_copied(self, make_vae_config, make_config):
        vae = self.vae(make_vae_config, decoder_causal=True, decoder_hidden_sizes=[24, 12])
        model = DiTARForTextToSpeech.from_vae(vae, make_config())
        assert model.config.vae_config.decoder_hidden_sizes == [24, 12] and model.config.vae_config.decoder_causal
        for name, tensor in vae.state_dict().items():
            assert torch.equal(model.vae.state_dict()[name], tensor), name
        latents = torch.randn(1, 4, 8)
        assert torch.equal(model.vae.decode(latents), vae.decode(latents))
        with torch.no_grad():
            vae.encoder.output_proj.weight.zero_()
        assert model.vae.encoder.output_proj.weight.any()

    def test_a_file_does_not_tell_where_the_weights_lay(self, make_vae_config, make_config, tmp_path):
        DiTARVAE(make_vae_config()).save_pretrained(tmp_path / "vae")
        vae = DiTARVAE.from_pretrained(tmp_path / "vae")
        DiTARForTextToSpeech.from_vae(vae, make_config()).save_pretrained(tmp_path / "whole")
        assert str(tmp_path) not in (tmp_path / "whole" / "config.json").read_text()

    def test_it_is_frozen_there_and_not_here(self, make_vae_config, make_config):
        vae = self.vae(make_vae_config).train()
        model = DiTARForTextToSpeech.from_vae(vae, make_config()).train()
        assert not model.vae.training and not any(p.requires_grad for p in model.vae.parameters())
        assert vae.training and all(p.requires_grad for p in vae.parameters())

    def test_the_rest_of_the_config_stays(self, make_vae_config, make_config):
        config = make_config(num_history_patches=2, attn_implementation="eager")
        before = config.to_dict()
        model = DiTARForTextToSpeech.from_vae(self.vae(make_vae_config, kernel_size=5), config)
        assert config.to_dict() == before
        assert model.config.num_history_patches == 2 and model.config._attn_implementation == "eager"

    @pytest.mark.parametrize(("field", "value"), [("latent_dim", 16), ("sampling_rate", 16000)])
    def test_other_sizes_are_refused(self, make_vae_config, make_config, field, value):
        vae = DiTARVAE(make_vae_config(**{field: value}))
        with pytest.raises(ValueError, match=rf"`{field}` .* differs from `vae_config.{field}` \({value}\)"):
            DiTARForTextToSpeech.from_vae(vae, make_config())


class TestRefusals:
    def test_latents_and_waveforms_together(self, make_model):
        with pytest.raises(ValueError, match="`latents` and `waveforms` are both given"):
            make_model()(**make_batch(), waveforms=torch.zeros(3, 2400))

    def test_placeholders_without_patches(self, make_model):
        batch = make_batch()
        with pytest.raises(ValueError, match="placeholders"):
            make_model()(batch["input_ids"], batch["attention_mask"])

    @pytest.mark.parametrize("missing", [1, -1])
    def test_too_few_or_many_placeholders(self, make_model, missing):
        batch = make_batch()
        if missing > 0:
            batch["input_ids"][0, -1] = 9
        else:
            batch["input_ids"][0, -5] = PATCH
        with pytest.raises(ValueError, match="placeholders"):
            make_model()(**batch)

    def test_placeholders_of_another_row(self, make_model):
        batch = make_batch(((4, 0, 2), (4, 0, 2)))
        batch["input_ids"][0, -1], batch["input_ids"][1, -4] = 9, PATCH
        with pytest.raises(ValueError, match=r"hold \[1, 3\] placeholders.*\[2, 2\] *patches"):
            make_model()(**batch)

    @pytest.mark.parametrize("shape", [(1, 7, DIM), (1, 8, DIM + 1), (8, DIM)])
    def test_latents_of_another_shape(self, make_model, shape):
        with pytest.raises(ValueError, match="`latents` must be"):
            make_model()(torch.tensor([[5, BOS, PATCH, PATCH]]), latents=torch.zeros(shape))

    def test_prompts_beside_latents(self, make_model):
        with pytest.raises(ValueError, match="`prompt_values` without `waveforms`"):
            make_model()(**make_batch(), prompt_values=torch.zeros(1, 2400))

    def test_prompts_that_are_no_whole_patches(self, make_model):
        with pytest.raises(ValueError, match="multiple of 2400 samples a row"):
            make_model().encode_prompts(torch.zeros(1, 2401))

    def test_masks_of_another_shape(self, make_model):
        ids, latents = torch.tensor([[5, BOS, PATCH, PATCH]]), torch.zeros(1, 8, DIM)
        with pytest.raises(ValueError, match="`latents_mask`"):
            make_model()(ids, latents=latents, latents_mask=torch.ones(1, 2))

    def test_waveforms_that_are_no_whole_patches(self, make_model):
        with pytest.raises(ValueError, match="2400 samples"):
            make_model()(torch.tensor([[5, BOS, PATCH]]), waveforms=torch.zeros(1, 1800))
