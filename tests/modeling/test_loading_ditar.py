"""Saving and loading whole models: equality, precision, the meta device, and folders that are not complete."""

import json
import pickle

import pytest
import torch
from accelerate import infer_auto_device_map
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForTextToWaveform, BertConfig

from ditar_hf import DiTARConfig, DiTARForTextToSpeech, DiTARModel, DiTARVAE

BOS, PATCH, IGNORE = 2, 3, -100
INPUTS = {
    "input_ids": torch.tensor([[0, 0, 5, BOS, PATCH, PATCH], [7, 8, 9, BOS, PATCH, PATCH]]),
    "attention_mask": torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]]),
    "labels": torch.tensor([[IGNORE, IGNORE, IGNORE, 0, 0, 1]] * 2),
    "latents": torch.randn(2, 8, 8, generator=torch.Generator().manual_seed(0)),
}
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
BIGVGAN = {
    "decoder_type": "bigvgan",
    "decoder_strides": [10, 10, 6],
    "decoder_hidden_sizes": [8, 8, 4, 4],
    "decoder_num_layers": [0, 1, 1, 1],
    "decoder_kernel_sizes": [3],
}


def run(model):
    return model(**INPUTS, generator=torch.Generator().manual_seed(1))


def tensors(model) -> dict[str, torch.Tensor]:
    """Parameters and buffers, also those that are not saved."""
    return dict((*model.named_parameters(), *model.named_buffers()))


def assert_same(ours, theirs):
    assert tensors(ours).keys() == tensors(theirs).keys()
    for name, tensor in tensors(ours).items():
        assert torch.equal(tensor, tensors(theirs)[name]), name
        assert tensor.requires_grad == tensors(theirs)[name].requires_grad, name


@pytest.fixture
def saved(make_model, tmp_path):
    """A folder with a tiny model, and the model."""
    model = make_model()
    model.save_pretrained(tmp_path / "model")
    return tmp_path / "model", model


def without(folder, *names):
    """Takes weights out of a folder."""
    path = folder / "model.safetensors"
    weights = {key: value for key, value in load_file(path).items() if not key.startswith(names)}
    save_file(weights, path, {"format": "pt"})
    return folder


class TestRoundTrip:
    @pytest.mark.parametrize(
        "overrides",
        [{}, {"lm_config": QWEN}, {"vae_config": BIGVGAN, "num_history_patches": 2}, {"alignment_loss_weight": 1.0}],
        ids=["plain", "qwen3", "bigvgan", "alignment"],
    )
    def test_saved_equals_loaded(self, make_model, tmp_path, overrides):
        model = make_model(**overrides)
        model.save_pretrained(tmp_path)
        for load in (DiTARForTextToSpeech.from_pretrained, AutoModelForTextToWaveform.from_pretrained):
            loaded = load(tmp_path)
            assert type(loaded) is DiTARForTextToSpeech and not loaded.training
            assert_same(loaded, model)
            assert torch.equal(run(loaded).loss, run(model).loss)
            assert torch.equal(loaded.vae.decode(INPUTS["latents"]), model.vae.decode(INPUTS["latents"]))

    def test_saving_a_loaded_model_repeats_its_files(self, saved, tmp_path):
        folders = [saved[0], tmp_path / "second", tmp_path / "third"]
        for source, copy in zip(folders, folders[1:], strict=False):
            DiTARForTextToSpeech.from_pretrained(source).save_pretrained(copy)
        for name in ("config.json", "model.safetensors", "generation_config.json"):
            first, second, third = ((folder / name).read_bytes() for folder in folders)
            # the library adds the precision of the parts to a config when it loads
            assert second == third and (first == second or name == "config.json"), name

    def test_one_file_holds_all_weights(self, saved):
        folder, model = saved
        assert [path.name for path in folder.glob("*.safetensors")] == ["model.safetensors"]
        assert load_file(folder / "model.safetensors").keys() == model.state_dict().keys()

    def test_shards_are_put_together(self, make_model, tmp_path):
        model = make_model()
        model.save_pretrained(tmp_path, max_shard_size=100_000)
        assert len(list(tmp_path.glob("*.safetensors"))) > 1
        assert_same(DiTARForTextToSpeech.from_pretrained(tmp_path), model)

    def test_parts_load_from_the_whole(self, saved):
        folder, model = saved
        assert_same(DiTARModel.from_pretrained(folder), model.model)
        assert type(AutoModel.from_pretrained(folder)) is DiTARModel
        for name, tensor in DiTARVAE.from_pretrained(folder).state_dict().items():
            assert torch.equal(tensor, model.vae.state_dict()[name]), name

    def test_loading_info_is_given_if_asked_for(self, saved):
        model, info = DiTARForTextToSpeech.from_pretrained(saved[0], output_loading_info=True)
        assert type(model) is DiTARForTextToSpeech
        assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]


class TestFrozenTokenizer:
    def test_it_is_frozen_after_loading(self, saved):
        model = DiTARForTextToSpeech.from_pretrained(saved[0]).train()
        assert not model.vae.training
        assert {name.split(".")[0] for name, p in model.named_parameters() if not p.requires_grad} == {"vae"}
        run(model).loss.backward()
        assert all(p.grad is None for p in model.vae.parameters())

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, "bfloat16"])
    def test_half_precision_passes_it_by(self, saved, dtype):
        folder, model = saved
        loaded = DiTARForTextToSpeech.from_pretrained(folder, dtype=dtype)
        assert loaded.dtype == (torch.bfloat16 if dtype == "bfloat16" else dtype)
        assert {t.dtype for t in (*loaded.vae.parameters(), *loaded.vae.buffers())} == {torch.float32}
        assert_same(loaded.vae, model.vae)
        assert torch.equal(loaded.vae.decode(INPUTS["latents"]), model.vae.decode(INPUTS["latents"]))

    def test_it_stays_exact_through_a_half_precision_file(self, saved, tmp_path):
        folder, model = saved
        model.to(torch.bfloat16).save_pretrained(tmp_path / "half")
        loaded = DiTARForTextToSpeech.from_pretrained(tmp_path / "half")
        assert loaded.dtype == torch.bfloat16 and loaded.vae.dtype == torch.float32
        assert_same(loaded.vae, DiTARForTextToSpeech.from_pretrained(folder).vae)

    def test_tables_of_angles_stay_exact(self, saved):
        loaded = DiTARForTextToSpeech.from_pretrained(saved[0], dtype=torch.bfloat16)
        for name, buffer in loaded.named_buffers():
            assert buffer.dtype == torch.float32 and torch.equal(buffer, dict(saved[1].named_buffers())[name]), name


class TestMetaDevice:
    @pytest.mark.parametrize(
        "overrides", [{}, {"lm_config": QWEN, "vae_config": BIGVGAN, "alignment_loss_weight": 1.0}]
    )
    def test_nothing_stays_uninitialised(self, make_config, overrides):
        config = make_config(**overrides)
        with torch.device("meta"):
            model = DiTARForTextToSpeech(config)
        model.to_empty(device="cpu")
        with torch.no_grad():
            for tensor in tensors(model).values():
                tensor.fill_(float("nan"))
        model.init_weights()
        fresh = DiTARForTextToSpeech(config)
        for name, tensor in tensors(model).items():
            assert tensor.isfinite().all(), name
        for name, buffer in fresh.named_buffers():
            assert torch.equal(dict(model.named_buffers())[name], buffer), name
        token = model.model.patch_encoder.patch_token
        assert 0.3 * config.initializer_range < token.std() < 3 * config.initializer_range

    def test_weights_of_another_size_are_drawn_anew_if_asked_for(self, saved):
        folder, model = saved
        config = DiTARConfig.from_pretrained(folder)
        config.encoder_config.hidden_size = 64
        message = r"weights do not have the shapes.* DiTARForTextToSpeech .*patch_token \[32\], not \[64\].*own config"
        with pytest.raises(ValueError, match=message):
            DiTARForTextToSpeech.from_pretrained(folder, config=config)
        loaded = DiTARForTextToSpeech.from_pretrained(folder, config=config, ignore_mismatched_sizes=True)
        token = loaded.model.patch_encoder.patch_token
        assert token.shape == (64,) and 0.3 * 0.02 < token.std() < 3 * 0.02
        assert all(tensor.isfinite().all() for tensor in tensors(loaded).values())
        assert torch.equal(loaded.locdit.output_proj.weight, model.locdit.output_proj.weight)
        assert run(loaded).loss.isfinite()

    @pytest.mark.parametrize("device_map", ["cpu", "auto"])
    def test_device_maps_change_nothing(self, saved, device_map):
        folder, model = saved
        loaded = DiTARForTextToSpeech.from_pretrained(folder, device_map=device_map).to("cpu")
        assert_same(loaded, model)

    def test_weights_on_disk_change_nothing(self, saved, tmp_path):
        folder, model = saved
        parts = ("model.language_model", "stop_head"), ("model.patch_encoder", "locdit", "vae")
        device_map = {name: device for names, device in zip(parts, ("cpu", "disk"), strict=True) for name in names}
        loaded = DiTARForTextToSpeech.from_pretrained(folder, device_map=device_map, offload_folder=tmp_path / "disk")
        assert loaded.model.patch_encoder.patch_token.device.type == "meta"
        torch.testing.assert_close(run(loaded).loss, run(model).loss)

    @pytest.mark.filterwarnings("ignore:Current model requires")
    @pytest.mark.parametrize("overrides", [{}, {"vae_config": BIGVGAN}], ids=["istft", "bigvgan"])
    def test_blocks_are_never_split(self, make_model, overrides):
        model = make_model(**overrides)
        blocks = [n for n, m in model.named_modules() if type(m).__name__ in model._no_split_modules]
        kinds = {type(m).__name__ for n, m in model.named_modules() if n in blocks}
        assert {"LocDiT", "DiTARPatchEncoder", "ArceeDecoderLayer", "ConvNeXtBlock"} <= kinds
        splits = set()
        for budget in range(10_000, 400_000, 30_000):
            memory = {0: budget, 1: budget, "cpu": 10**9}
            device_map = infer_auto_device_map(model, memory, no_split_module_classes=model._no_split_modules)
            splits |= set(device_map)
            for name in device_map:
                assert not any(name.startswith(f"{block}.") for block in blocks), (budget, name)
        assert any("layers." in name for name in splits)  # splits between layers of the LM were tried


class TestIncompleteFolders:
    @pytest.mark.parametrize(
        "name", ["stop_head.bias", "locdit.", "model.patch_encoder.patch_token", "vae.latent_std"]
    )
    def test_missing_weights_are_named(self, saved, name):
        folder = without(saved[0], name)
        with pytest.raises(ValueError, match=f"lacks .* weights of DiTARForTextToSpeech: .*{name}"):
            DiTARForTextToSpeech.from_pretrained(folder)
        with pytest.raises(ValueError, match=name):
            AutoModelForTextToWaveform.from_pretrained(folder)

    def test_missing_weights_of_a_tokenizer_are_named(self, make_model, tmp_path):
        make_model().vae.save_pretrained(tmp_path)
        without(tmp_path, "latent_mean", "decoder.output_proj")
        with pytest.raises(ValueError, match="lacks 3 weights of DiTARVAE: decoder.output_proj.*latent_mean"):
            DiTARVAE.from_pretrained(tmp_path)

    def test_a_tokenizer_alone_is_no_model(self, make_model, tmp_path):
        model = make_model()
        model.vae.save_pretrained(tmp_path)
        model.config.save_pretrained(tmp_path)
        with pytest.raises(ValueError, match="lacks .* weights"):
            DiTARForTextToSpeech.from_pretrained(tmp_path)

    def test_the_training_aid_may_be_missing(self, saved):
        folder, model = saved
        config = DiTARConfig.from_pretrained(folder, alignment_loss_weight=1.0)
        loaded = DiTARForTextToSpeech.from_pretrained(folder, config=config)
        assert all(p.isfinite().all() for p in loaded.alignment_head.parameters())
        assert 0.01 < loaded.alignment_head.query_proj.weight.std() < 0.03
        assert torch.equal(run(loaded).loss, run(model).loss)

    def test_the_training_aid_may_be_left_behind(self, make_model, tmp_path):
        model = make_model(alignment_loss_weight=1.0)
        model.save_pretrained(tmp_path)
        config = DiTARConfig.from_pretrained(tmp_path, alignment_loss_weight=0.0)
        loaded = DiTARForTextToSpeech.from_pretrained(tmp_path, config=config)
        assert loaded.alignment_head is None and torch.equal(run(loaded).loss, run(model).loss)

    @pytest.mark.parametrize("part", [0.0, 0.001, 0.5, 0.999])
    def test_a_truncated_file_is_refused(self, saved, part):
        path = saved[0] / "model.safetensors"
        whole = path.read_bytes()
        path.write_bytes(whole[: int(part * len(whole))])
        with pytest.raises(ValueError, match=f"{saved[0].name}.*cut off or damaged"):
            DiTARForTextToSpeech.from_pretrained(saved[0])

    def test_a_folder_without_weights_is_refused(self, saved):
        (saved[0] / "model.safetensors").unlink()
        for load in (DiTARForTextToSpeech.from_pretrained, AutoModelForTextToWaveform.from_pretrained):
            with pytest.raises(ValueError, match=f"{saved[0].name}.*no file named model.safetensors.*Fetch it again"):
                load(saved[0])

    def test_a_missing_shard_is_refused(self, make_model, tmp_path):
        make_model().save_pretrained(tmp_path, max_shard_size=100_000)
        sorted(tmp_path.glob("*.safetensors"))[-1].unlink()
        with pytest.raises(ValueError, match="cannot be read.*safetensors.*a file is missing"):
            DiTARForTextToSpeech.from_pretrained(tmp_path)

    def test_a_truncated_shard_is_refused(self, make_model, tmp_path):
        make_model().save_pretrained(tmp_path, max_shard_size=100_000)
        path = sorted(tmp_path.glob("*.safetensors"))[-1]
        path.write_bytes(path.read_bytes()[:-100])
        with pytest.raises(ValueError, match="cut off or damaged"):
            DiTARForTextToSpeech.from_pretrained(tmp_path)

    def test_a_tokenizer_of_another_size_is_refused(self, make_model, make_config, tmp_path):
        make_model().vae.save_pretrained(tmp_path)
        config = make_config(vae_config={"decoder_hidden_sizes": [24, 24]}).vae_config
        with pytest.raises(ValueError, match="do not have the shapes that the config of DiTARVAE asks for: decoder"):
            DiTARVAE.from_pretrained(tmp_path, config=config)

    def test_a_repository_that_is_not_there_is_the_hub_s_own_error(self):
        with pytest.raises(OSError, match="find them in the cached files"):
            DiTARForTextToSpeech.from_pretrained("nobody/nothing")

    def test_another_model_s_config_is_refused(self, saved):
        folder, _ = saved
        BertConfig().save_pretrained(folder)
        with pytest.raises(ValueError, match="'bert'"):
            DiTARForTextToSpeech.from_pretrained(folder)

    def test_a_misspelt_key_is_refused(self, saved):
        path = saved[0] / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "num_history_patch": 2}))
        with pytest.raises(ValueError, match="did you mean `num_history_patches`"):
            DiTARForTextToSpeech.from_pretrained(saved[0])

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"num_history_patches": 7}, "`num_history_patches` must be 0, 1 or 2, got 7"),
            ({"condition_dropout": 1.5}, r"`condition_dropout` must lie in \[0, 1\)"),
            ({"patch_size": "four"}, "`patch_size` of DiTARConfig cannot be 'four'"),
        ],
    )
    def test_a_bad_override_is_refused(self, saved, values, message):
        for load in (DiTARForTextToSpeech.from_pretrained, AutoModelForTextToWaveform.from_pretrained):
            with pytest.raises(ValueError, match=message):
                load(saved[0], **values)

    @pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.safetensors"])
    @pytest.mark.parametrize("part", ["model", "vae"])
    def test_a_pickle_is_refused_and_its_code_not_run(self, make_model, tmp_path, part, name):
        model = make_model() if part == "model" else make_model().vae
        model.save_pretrained(tmp_path / "saved")
        (tmp_path / "saved" / "model.safetensors").unlink()
        payload = CreatesAFile(tmp_path / "was-run")
        (tmp_path / "saved" / name).write_bytes(pickle.dumps({"stop_head.weight": payload}))
        with pytest.raises(ValueError, match="Weights are read as safetensors only"):
            type(model).from_pretrained(tmp_path / "saved")
        assert not (tmp_path / "was-run").exists()
        pickle.loads(pickle.dumps(payload))  # which does run it
        assert (tmp_path / "was-run").exists()


class CreatesAFile:
    """Runs code where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")
