"""LocDiT: what it reads (condition, time, history) and what it writes."""

import pytest
import torch

from ditar_hf.modeling.locdit_ditar import DiTARTimeEmbedding, LocDiT

PATCHES, SIZE, DIM, WIDTH = 5, 4, 8, 32


@pytest.fixture
def make_locdit(make_config):
    """A LocDiT with weights large enough to tell its inputs apart."""

    def make(num_history_patches=1, attention="sdpa") -> LocDiT:
        torch.manual_seed(0)
        config = make_config(num_history_patches=num_history_patches)
        config.locdit_config._attn_implementation = attention
        return LocDiT(config).eval()

    return make


def inputs(num_history_patches=1, num_patches=PATCHES) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "sample": torch.randn(num_patches, SIZE, DIM, generator=generator),
        "timestep": torch.rand(num_patches, generator=generator),
        "condition": torch.randn(num_patches, WIDTH, generator=generator),
        "history": torch.randn(num_patches, num_history_patches * SIZE, DIM, generator=generator),
    }


class TestTimeEmbedding:
    def test_it_tells_times_apart(self):
        embedding = DiTARTimeEmbedding(WIDTH)
        times = torch.linspace(0, 1, 65)
        distances = torch.cdist(embedding(times), embedding(times))
        assert (distances + torch.eye(65)).min() > 1e-3

    def test_it_is_smooth(self):
        embedding, times = DiTARTimeEmbedding(WIDTH), torch.linspace(0, 0.9999, 100)
        assert (embedding(times + 1e-6) - embedding(times)).abs().max() < 1e-3

    def test_half_precision_does_not_reach_the_sinusoids(self):
        # in bfloat16 both times would be 0.75
        embedding = DiTARTimeEmbedding(WIDTH).to(torch.bfloat16)
        near, far = embedding(torch.tensor([0.75, 0.7505])).float()
        assert (near - far).abs().max() > 1e-2


class TestLocDiT:
    @pytest.mark.parametrize("history", [0, 1, 2])
    def test_it_predicts_the_noisy_frames(self, make_locdit, history):
        assert make_locdit(history)(**inputs(history)).shape == (PATCHES, SIZE, DIM)

    @pytest.mark.parametrize("history", [0, 1, 2])
    def test_sequence_is_condition_history_and_patch(self, make_locdit, history):
        locdit, seen = make_locdit(history), []
        locdit.transformer.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        given = inputs(history)
        locdit(**given)
        (tokens,) = seen
        assert tokens.shape == (PATCHES, 1 + (history + 1) * SIZE, WIDTH)
        condition = locdit.condition_proj(given["condition"]) + locdit.time_embedding(given["timestep"])
        torch.testing.assert_close(tokens[:, 0], condition)
        torch.testing.assert_close(tokens[:, -SIZE:], locdit.sample_proj(given["sample"]))
        if history:
            torch.testing.assert_close(tokens[:, 1:-SIZE], locdit.embed_history(given["history"]))

    def test_history_and_sample_have_projections_of_their_own(self, make_locdit):
        locdit, frames = make_locdit(), inputs()["sample"]
        assert (locdit.embed_history(frames) - locdit.sample_proj(frames)).abs().max() > 0.1

    def test_without_history_there_is_no_projection_for_it(self, make_locdit):
        assert not hasattr(make_locdit(0), "history_proj")
        given = inputs(0)
        del given["history"]
        assert make_locdit(0)(**given).shape == (PATCHES, SIZE, DIM)

    @pytest.mark.parametrize("name", ["sample", "timestep", "condition", "history"])
    def test_each_input_matters_to_all_frames(self, make_locdit, name):
        locdit, given = make_locdit(2), inputs(2)
        changed = {**given, name: given[name].flip(0)}
        difference = (locdit(**given) - locdit(**changed))[: PATCHES // 2].abs().amax(-1)
        assert (difference > 1e-4).all()

    def test_every_frame_of_history_matters(self, make_locdit):
        locdit, given = make_locdit(2), inputs(2)
        history = given["history"].requires_grad_()
        (gradient,) = torch.autograd.grad(locdit(**given).square().sum(), history)
        assert (gradient.abs().sum(-1) > 0).all()

    def test_rows_are_independent(self, make_locdit):
        locdit, given = make_locdit(), inputs()
        whole = locdit(**given)
        for row in range(PATCHES):
            alone = locdit(**{name: value[row : row + 1] for name, value in given.items()})
            torch.testing.assert_close(alone[0], whole[row], atol=1e-5, rtol=0)

    def test_dropped_condition_leaves_the_time(self, make_locdit):
        locdit, given = make_locdit(), inputs()
        dropped = locdit(**{**given, "condition": torch.zeros(PATCHES, WIDTH)})
        time = locdit.time_embedding(given["timestep"])
        assert torch.equal(dropped, locdit.denoise(given["sample"], time, given["history"]))

    def test_eager_equals_sdpa(self, make_locdit):
        expected = make_locdit(2, "sdpa")(**inputs(2))
        torch.testing.assert_close(make_locdit(2, "eager")(**inputs(2)), expected, atol=1e-5, rtol=0)
