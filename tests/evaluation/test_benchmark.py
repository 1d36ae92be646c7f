"""The benchmark's loop: turns, pairs, and systems that fall out."""

import json
from dataclasses import replace

import pytest
import torch

from ditar_hf.evaluation import benchmark
from ditar_hf.evaluation.benchmark import Benchmark, Measurement, check_growth, run_benchmark
from ditar_hf.evaluation.benchmark_plan import plan_systems, skeleton
from ditar_hf.evaluation.benchmark_systems import Workload
from ditar_hf.evaluation.benchmark_timing import Run
from ditar_hf.evaluation.benchmark_workers import Memory, SystemFailure
from ditar_hf.modeling.transformer_ditar import DiTARTransformer

CPU = torch.device("cpu")
NAMES = ["DiTAR tiny", "NAR tiny", "MAR tiny"]


@pytest.fixture
def specs():
    return plan_systems(Workload(0.2), ["tiny"], others=["nar", "mar"], transformer_class=DiTARTransformer)


@pytest.fixture
def calls(monkeypatch):
    """Systems that only note their calls; `calls.fail` is asked before each."""

    class Calls(list):
        fail = staticmethod(lambda name, action, batch_size: None)

    calls = Calls()

    class Worker:
        def __init__(self, spec, threads=None):
            self.name = spec.name
            self.act("build", 0)

        def act(self, action, batch_size):
            calls.append((action, batch_size, self.name))
            if (reason := calls.fail(self.name, action, batch_size)) is not None:
                raise SystemFailure(reason)

        def warm_up(self, batch_size):
            self.act("warm_up", batch_size)
            return Memory(100, 100 + batch_size)

        def speak(self, batch_size):
            self.act("speak", batch_size)
            return Run(1.0 * len(calls), 0.1, 0.1, 0.01, 0.2)

        def close(self):
            calls.append(("close", 0, self.name))

    monkeypatch.setattr(benchmark, "ProcessWorker", Worker)
    monkeypatch.setattr(benchmark, "LocalWorker", Worker)
    return calls


def test_systems_take_turns(specs, calls):
    result = run_benchmark(specs, [4, 1], repeats=3)
    assert [entry for entry in calls if entry[0] == "build"] == [("build", 0, name) for name in NAMES]
    expected = []
    for batch_size in (1, 4):
        # a call without a clock for each, before the first round
        expected += [("warm_up", batch_size, name) for name in NAMES]
        expected += [("speak", batch_size, name) for _ in range(3) for name in NAMES]
    assert calls[3:-3] == expected
    assert {entry[0] for entry in calls[-3:]} == {"close"}
    assert result.order == [(batch, index, name) for batch in (1, 4) for index in range(3) for name in NAMES]
    assert all(len(system.measurements[batch].runs) == 3 for system in result.systems for batch in (1, 4))


def test_a_system_that_does_not_fit_is_left_out(specs, calls):
    calls.fail = lambda name, action, size: "too large" if (name, action) == ("NAR tiny", "build") else None
    result = run_benchmark(specs, [1], repeats=2)
    assert result.systems[1].failure == "too large" and not result.systems[1].measurements
    assert [name for _, _, name in result.order] == ["DiTAR tiny", "MAR tiny"] * 2


@pytest.mark.parametrize("action", ["warm_up", "speak"])
def test_a_system_that_fails_at_a_batch_is_left_out_from_there(specs, calls, action):
    calls.fail = lambda name, what, size: "no memory" if (name, what, size) == ("NAR tiny", action, 4) else None
    result = run_benchmark(specs, [1, 4, 8], repeats=2)
    one, four, eight = (result.systems[1].measurements[size] for size in (1, 4, 8))
    assert len(one.runs) == 2 and one.failure is None
    assert not four.runs and four.failure == "no memory"
    assert not eight.runs and eight.failure == "it failed at batch 4 already"
    # the others have all their rounds
    for system in (result.systems[0], result.systems[2]):
        assert [len(system.measurements[size].runs) for size in (1, 4, 8)] == [2, 2, 2]


def test_processes_end_also_after_an_error(specs, calls):
    def fail(name, action, size):
        if (name, action) == ("MAR tiny", "speak"):
            raise KeyboardInterrupt

    calls.fail = fail
    with pytest.raises(KeyboardInterrupt):
        run_benchmark(specs, [1])
    assert sorted(entry[2] for entry in calls if entry[0] == "close") == sorted(NAMES)


def test_there_must_be_room_for_the_weights(specs, calls, monkeypatch):
    largest = max(skeleton(spec).num_bytes for spec in specs)
    monkeypatch.setattr(benchmark, "free_bytes", lambda device: benchmark.OVERHEAD_BYTES + largest)
    result = run_benchmark(specs, [1], repeats=1)
    assert [system.failure for system in result.systems] == [None, None, None]
    # weights are made in float32 first
    result = run_benchmark([replace(spec, dtype="bfloat16") for spec in specs], [1], repeats=1)
    assert any("GiB are free" in (system.failure or "") for system in result.systems)
    monkeypatch.setattr(benchmark, "free_bytes", lambda device: benchmark.OVERHEAD_BYTES)
    result = run_benchmark(specs, [1], repeats=1)
    assert all("GiB are free beside the systems before it" in system.failure for system in result.systems)
    assert not result.order


def test_there_must_be_room_to_grow(monkeypatch):
    small = {1: Measurement(memory=Memory(0, 1000))}
    monkeypatch.setattr(benchmark, "free_bytes", lambda device: 500_000)
    check_growth({}, 500, CPU)
    check_growth(small, 500, CPU)
    with pytest.raises(SystemFailure, match="going by batch 1"):
        check_growth(small, 501, CPU)
    check_growth({1: Measurement()}, 501, CPU)  # memory is not known
    monkeypatch.setattr(benchmark, "free_bytes", lambda device: None)
    check_growth(small, 501, CPU)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"batch_sizes": []}, "`batch_sizes`"),
        ({"batch_sizes": [0]}, "`batch_sizes`"),
        ({"batch_sizes": [2, 2]}, "`batch_sizes` must be different"),
        ({"repeats": 0}, "`repeats`"),
        ({"threads": 0}, "`threads`"),
    ],
)
def test_nonsense_is_refused_before_anything_is_built(specs, calls, numbers, message):
    with pytest.raises(ValueError, match=message):
        run_benchmark(specs, **numbers)
    assert not calls


def test_what_was_measured_survives_json(specs, calls):
    calls.fail = lambda name, action, size: "no memory" if (name, size) == ("NAR tiny", 2) else None
    result = run_benchmark(specs, [1, 2], repeats=2)
    assert Benchmark.from_dict(json.loads(json.dumps(result.to_dict()))) == result


def test_in_this_process_threads_are_as_before(specs, calls):
    before, seen = torch.get_num_threads(), []

    def note(words):
        seen.append(torch.get_num_threads())

    run_benchmark(specs, [1], 1, threads=before + 1, isolate=False, on_call=note)
    assert set(seen) == {before + 1} and torch.get_num_threads() == before


def test_real_systems_in_this_process(specs, caplog):
    caplog.set_level("ERROR", "ditar_hf")
    result = run_benchmark(specs, [1], 1, isolate=False)
    for system in result.systems:
        assert system.measurements[1].memory is None
        assert system.measurements[1].runs[0].speech_seconds == pytest.approx(0.2)
