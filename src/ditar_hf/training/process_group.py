"""How processes that trained together part."""

import gc

import torch


def leave_process_group() -> None:
    """
    Ends the process group, if there is one, and its threads; call it when no trainer is in use any more.

    Wrapped models hold on to the group, and a thread of gloo that gives back a tensor while the interpreter ends
    aborts the process ("terminate called without an active exception") though all its work was done.
    """
    gc.collect()
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


__all__ = ["leave_process_group"]
