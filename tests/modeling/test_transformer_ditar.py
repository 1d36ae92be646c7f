"""The lean transformer: what its norm, rotation and attention compute, and that its implementations agree."""

import pytest
import torch
from torch.nn import functional as F

from ditar_hf import DiTARTransformerConfig
from ditar_hf.modeling.transformer_ditar import DiTARRMSNorm, DiTARRotaryEmbedding, DiTARTransformer, rotate

LENGTH = 6


def make_config(**overrides) -> DiTARTransformerConfig:
    sizes = {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 48}
    return DiTARTransformerConfig(**{**sizes, **overrides})


def make_transformer(attention: str = "sdpa", num_positions: int = LENGTH) -> DiTARTransformer:
    torch.manual_seed(0)
    return DiTARTransformer(make_config(attn_implementation=attention), num_positions).eval()


class TestNorm:
    def test_it_divides_by_the_root_mean_square(self):
        norm, states = DiTARRMSNorm(8, 1e-5), 5 * torch.randn(3, 4, 8)
        torch.testing.assert_close(norm(states).square().mean(-1), torch.ones(3, 4), atol=1e-4, rtol=0)
        torch.testing.assert_close(norm(10 * states), norm(states), atol=1e-4, rtol=1e-4)
        norm.weight.data.fill_(3.0)
        torch.testing.assert_close(norm(states), 3 * F.normalize(states, dim=-1) * 8**0.5, atol=1e-4, rtol=1e-4)

    def test_it_keeps_the_precision_of_its_input(self):
        assert DiTARRMSNorm(8, 1e-5)(torch.randn(2, 8, dtype=torch.bfloat16)).dtype == torch.bfloat16


class TestRotation:
    def table(self, num_positions=12, theta=10000.0):
        return DiTARRotaryEmbedding(make_config(rope_theta=theta), num_positions).table

    def test_it_keeps_lengths_and_leaves_the_first_position(self):
        states = torch.randn(2, 4, 12, 8)
        turned = rotate(states, self.table())
        torch.testing.assert_close(turned.norm(dim=-1), states.norm(dim=-1))
        assert torch.equal(turned[:, :, 0], states[:, :, 0])

    def test_scores_depend_on_distance_alone(self):
        query, key = torch.randn(8), torch.randn(8)
        rows = torch.ones(1, 1, 12, 1)
        turned_query, turned_key = (rotate(rows * x, self.table())[0, 0] for x in (query, key))
        scores = turned_query @ turned_key.T  # (12, 12)
        for distance in range(-11, 12):
            diagonal = scores.diagonal(distance)
            torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), atol=1e-5, rtol=0)
        assert scores.diagonal(1)[0] != scores.diagonal(-1)[0]

    def test_pairs_turn_at_geometric_speeds(self):
        table = self.table(theta=100.0)
        angle = torch.atan2(table[1], table[0])[1]  # of position 1; negated for the first of a pair
        torch.testing.assert_close(angle[4:], 100.0 ** -torch.tensor([0, 0.25, 0.5, 0.75]))
        assert torch.equal(angle[:4], -angle[4:])

    def test_table_is_fp32_and_no_weight(self):
        module = DiTARRotaryEmbedding(make_config(), 5)
        assert not module.state_dict() and module.table.dtype == torch.float32
        assert module(torch.zeros(1, 3, 32, dtype=torch.bfloat16)).shape == (2, 3, 8)


class TestTransformer:
    def test_eager_equals_sdpa(self):
        states = torch.randn(3, LENGTH, 32)
        expected = make_transformer("sdpa")(states)
        torch.testing.assert_close(make_transformer("eager")(states), expected, atol=1e-5, rtol=0)

    def test_eager_is_softmax_of_scaled_products(self):
        attention, states = make_transformer("eager").layers[0].attention, torch.randn(2, LENGTH, 32)
        flat = torch.stack((torch.ones(LENGTH, 8), torch.zeros(LENGTH, 8)))  # no rotation
        query, key, value = attention.qkv_proj(states).chunk(3, dim=-1)
        heads = []
        for head in range(4):
            part = slice(8 * head, 8 * head + 8)
            scores = query[..., part] @ key[..., part].transpose(1, 2) / 8**0.5
            heads.append(scores.softmax(-1) @ value[..., part])
        expected = attention.o_proj(torch.cat(heads, dim=-1))
        torch.testing.assert_close(attention(states, flat), expected, atol=1e-5, rtol=0)

    @pytest.mark.parametrize("attention", ["sdpa", "eager"])
    def test_each_position_hears_all_others(self, attention):
        states = torch.randn(1, LENGTH, 32, requires_grad=True)
        for position in range(LENGTH):
            (gradient,) = torch.autograd.grad(make_transformer(attention)(states)[0, position].sum(), states)
            assert (gradient[0].abs().sum(-1) > 0).all()

    def test_order_matters(self):
        transformer, states = make_transformer(), torch.randn(1, LENGTH, 32)
        backwards = transformer(states.flip(1)).flip(1)
        assert (transformer(states) - backwards).abs().max() > 1e-3

    def test_rows_are_independent(self):
        transformer, states = make_transformer(), torch.randn(4, LENGTH, 32)
        for row in range(4):
            torch.testing.assert_close(transformer(states)[row], transformer(states[row : row + 1])[0])

    def test_a_longer_table_changes_nothing(self):
        states = torch.randn(2, LENGTH, 32)
        torch.testing.assert_close(make_transformer(num_positions=40)(states), make_transformer()(states))

    def test_output_is_normalised(self):
        output = make_transformer()(torch.randn(2, LENGTH, 32))
        torch.testing.assert_close(output.square().mean(-1), torch.ones(2, LENGTH), atol=1e-3, rtol=0)
