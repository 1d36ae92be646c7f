"""Laws of leaving a process group: nothing of it is left, although wrapped models held on to it."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ditar_hf.training.process_group import leave_process_group

TASKS = Path("/proc/self/task")


def gloo_threads():
    return [path for path in TASKS.glob("*/comm") if "gloo_runloop" in path.read_text()]


@pytest.mark.skipif(not TASKS.exists(), reason="threads are counted in /proc")
def test_its_threads_end_although_a_wrapped_model_held_on_to_it(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    wrapped = DistributedDataParallel(nn.Linear(2, 2))
    wrapped(torch.ones(1, 2)).sum().backward()
    wrapped.circle = [wrapped]  # as trainers do by way of their callbacks
    assert gloo_threads()
    del wrapped
    leave_process_group()
    assert not torch.distributed.is_initialized() and not gloo_threads()


def test_without_a_group_there_is_nothing_to_do():
    leave_process_group()
    assert not torch.distributed.is_initialized()
