"""How processes that trained together part."""

import gc

import torch


def leave_process_group() -> None:
    """
    Ends the process group, if there is one, and its threads; call it when no trainer is in use any more.

    Wrapped models hold on to the group, and gloo's threads with it. Left to the end of the interpreter, such processes
    sometimes aborted ("terminate called without an active exception") though all their work was done.
    """
    gc.collect()
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


__all__ = ["leave_process_group"]
