"""Telling the errors of torch apart, and finding the layer that they come from."""

from __future__ import annotations

from torch import nn


def out_of_memory(error: Exception) -> bool:
    """Whether memory ran out, which no other route to the same derivative would mend."""
    text = str(error).lower()
    return "out of memory" in text or "can't allocate memory" in text


def layer_of(error: BaseException, module: nn.Module | None) -> str:
    """The innermost layer, or else the place in the code, where an error was raised."""
    names = {} if module is None else {id(part): name for name, part in module.named_modules()}
    found, trace = "", error.__traceback__
    place = "the model"
    while trace is not None:
        owner = trace.tb_frame.f_locals.get("self")
        if id(owner) in names and isinstance(owner, nn.Module):
            found = f"layer {names[id(owner)] or 'itself'!r} ({type(owner).__name__})"
        code = trace.tb_frame.f_code
        if "torch" not in code.co_filename:
            place = f"{code.co_name} (line {trace.tb_lineno} of {code.co_filename})"
        trace = trace.tb_next
    return found or place
