"""The alignment head: a pointer over text alone, and the symbol that is pointed at."""

import math

import pytest
import torch

from ditar_hf.modeling.alignment_ditar import DiTARAlignmentHead

PAD, BOS, PATCH, IGNORE = 0, 2, 3, -100
# two rows, left-padded: three and two tokens of text, two patches each
INPUT_IDS = torch.tensor([[7, 8, 9, BOS, PATCH, PATCH], [PAD, 8, 9, BOS, PATCH, PATCH]])
LABELS = torch.tensor([[IGNORE, IGNORE, IGNORE, 0, 2, IGNORE], [IGNORE, IGNORE, IGNORE, 1, IGNORE, IGNORE]])


@pytest.fixture
def head(make_config) -> DiTARAlignmentHead:
    return DiTARAlignmentHead(make_config(alignment_loss_weight=1.0))


def states(rows=2, length=6) -> torch.Tensor:
    return torch.randn(rows, length, 32, generator=torch.Generator().manual_seed(3))


def test_it_is_the_sum_of_two_cross_entropies(head):
    hidden_states, terms = states(), []
    keys, queries = head.key_proj(hidden_states), head.query_proj(hidden_states)
    for row, position in ((0, 3), (0, 4), (1, 3)):
        text = [place for place, token in enumerate(INPUT_IDS[row].tolist()) if token not in (PAD, BOS, PATCH)]
        scores = keys[row, text] @ queries[row, position] / math.sqrt(head.pointer_size)
        target = LABELS[row, position].item()
        pointer = -scores.log_softmax(0)[text.index(target)]
        symbol = -head.symbol_proj(hidden_states[row, position]).log_softmax(0)[INPUT_IDS[row, target]]
        terms.append(pointer + symbol)
    torch.testing.assert_close(head(hidden_states, INPUT_IDS, LABELS), sum(terms) / 3)


def test_special_tokens_are_never_pointed_at(head):
    hidden_states = states()
    loss = head(hidden_states, INPUT_IDS, LABELS)
    # keys of padding, audio_bos and the last patch, whose states ask nothing
    hidden_states[1, 0] += 100
    hidden_states[:, 5] += 100
    torch.testing.assert_close(head(hidden_states, INPUT_IDS, LABELS), loss)


def test_left_padding_changes_nothing(head):
    hidden_states = states()
    loss = head(hidden_states, INPUT_IDS, LABELS)
    ids = torch.nn.functional.pad(INPUT_IDS, (3, 0), value=PAD)
    labels = torch.nn.functional.pad(LABELS, (3, 0), value=IGNORE)
    labels = torch.where(labels == IGNORE, IGNORE, labels + 3)
    padded = torch.cat((torch.randn(2, 3, 32), hidden_states), dim=1)
    torch.testing.assert_close(head(padded, ids, labels), loss)


def test_rows_without_labels_change_nothing(head):
    hidden_states = states()
    alone = head(hidden_states[:1], INPUT_IDS[:1], LABELS[:1])
    labels = LABELS.clone()
    labels[1] = IGNORE
    torch.testing.assert_close(head(hidden_states, INPUT_IDS, labels), alone)


def test_without_labels_it_is_zero(head):
    assert head(states(), INPUT_IDS, torch.full_like(LABELS, IGNORE)) == 0


def test_it_can_be_learnt(head):
    hidden_states = states()
    optimizer = torch.optim.Adam(head.parameters(), lr=0.02)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        losses.append(head(hidden_states, INPUT_IDS, LABELS))
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.1 * losses[0]
