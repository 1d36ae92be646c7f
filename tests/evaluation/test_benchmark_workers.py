"""Systems in processes of their own: what they answer, and how they fail."""

import multiprocessing
import os
import signal

import pytest
import torch

from ditar_hf.evaluation import benchmark_workers
from ditar_hf.evaluation.benchmark_systems import SystemSpec, Workload
from ditar_hf.evaluation.benchmark_workers import LocalWorker, ProcessWorker, SystemFailure


@pytest.fixture
def spec(make_config):
    return SystemSpec("DiTAR tiny", "ditar", make_config(), Workload(0.2, 0.0, None, 1))


def test_a_process_speaks_until_it_is_killed(spec):
    worker = ProcessWorker(spec, threads=1)
    try:
        memory = worker.warm_up(1)
        assert 50e6 < memory.rest_bytes <= memory.peak_bytes
        run = worker.speak(2)
        assert run.speech_seconds == pytest.approx(0.2) and run.seconds > 0
        os.kill(worker._process.pid, signal.SIGKILL)
        with pytest.raises(SystemFailure, match="its process ended with -9 .killed, as systems do that run out of"):
            worker.speak(1)
        with pytest.raises(SystemFailure, match="its process ended"):
            worker.speak(1)
    finally:
        worker.close()
    assert not worker._process.is_alive()


@pytest.fixture
def ask(monkeypatch, spec):
    """What a process would answer to requests, without one."""
    monkeypatch.setattr(benchmark_workers.signal, "signal", lambda *arguments: None)

    def talk(*requests, spec=spec):
        ours, theirs = multiprocessing.Pipe()
        for request in (*requests, None):
            ours.send(request)
        benchmark_workers._serve(theirs, spec, None)
        answers = []
        while ours.poll():
            answers.append(ours.recv())
        return answers

    return talk


def test_answers_of_a_process(ask):
    ready, memory, run = ask(("warm_up", 1), ("speak", 1))
    assert ready == ("answer", None)
    assert memory[0] == "answer" and memory[1].peak_bytes >= memory[1].rest_bytes > 0
    assert run[0] == "answer" and run[1].speech_seconds == pytest.approx(0.2)


def test_a_model_that_cannot_be_loaded_is_a_refusal(ask, spec, make_model, tmp_path):
    make_model().save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    ((kind, message),) = ask(spec=SystemSpec("x", "ditar", spec.config, spec.workload, folder=str(tmp_path)))
    assert kind == "refusal" and "damaged" in message


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried"), "failure"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "failure"),
        (MemoryError(), "failure"),
        (RuntimeError("sizes do not match"), "error"),
    ],
)
def test_lack_of_memory_is_a_failure_and_others_are_errors(ask, monkeypatch, error, kind):
    def speak(self, batch_size):
        raise error

    monkeypatch.setattr("ditar_hf.evaluation.benchmark_systems.DiTARSystem.speak", speak)
    answer = ask(("speak", 1))[-1]
    assert answer[0] == kind
    if kind == "failure":
        assert answer[1].startswith("out of memory: ")
    else:
        assert "Traceback" in answer[1] and "sizes do not match" in answer[1]


def test_in_this_process_memory_is_not_known(spec):
    worker = LocalWorker(spec)
    assert worker.warm_up(1) is None
    assert worker.speak(1).speech_seconds == pytest.approx(0.2)
    worker.close()
    assert worker.system is None
