"""Clocks and meters of the benchmark."""

import time

import torch
from torch import nn

from ditar_hf.evaluation.benchmark_timing import ModuleClock, PeakMemory, now

CPU = torch.device("cpu")


class Sleeper(nn.Module):
    def forward(self, x):
        time.sleep(0.01)
        return x


def test_a_clock_sees_each_call_of_a_part():
    inner = Sleeper()
    model = nn.Sequential(inner, nn.Identity(), inner)
    begin = now(CPU)
    with ModuleClock(inner, CPU) as clock:
        model(torch.zeros(1))
    wall = now(CPU) - begin
    assert len(clock.intervals) == 2
    assert 0.02 <= clock.seconds <= wall
    model(torch.zeros(1))
    assert len(clock.intervals) == 2  # the hooks are gone


def test_a_meter_sees_what_is_gone_again():
    with PeakMemory(CPU) as memory:
        block = torch.ones(64 * 2**20, dtype=torch.uint8)
        time.sleep(0.05)
        del block
    assert memory.peak_bytes - memory.rest_bytes > 48 * 2**20
