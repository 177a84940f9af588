"""llama.cpp behind a pipe: a script for an interpreter that has llama-cpp-python and need not have riallm.

    about                                one line: version, and what the build uses of the processor
    quantise SOURCE TARGET TYPE THREADS  a GGUF file in another type
    serve MODEL THREADS CONTEXT REPACK   one line about the model; then an answer a request, until stdin ends.
                                         REPACK: "repack" as llama.cpp does by itself, or "plain"

Requests and answers are JSON objects, one a line: {"do": "prefill", "ids": [...]} and {"do": "decode", "ids": [...],
"tokens": N} are answered by the seconds that llama_decode took. Choosing a token is not among them. Each answer tells
the processor seconds that this process spent while nobody asked, too, so that threads that spin are seen.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import re
import sys
import time
from typing import Any

BATCH = 512
WARNING, ERROR = 3, 4
"""Of llama.cpp's log."""
BUFFER = re.compile(r"(\S+) model buffer size += +([\d.]+) MiB")


def main(argv: list[str]) -> None:
    """Do one of the three; what goes wrong is a traceback, and an exit code that is not 0."""
    out = answers()
    llama: Any = importlib.import_module("llama_cpp")
    said: list[str] = []

    def hear(level: int, text: bytes, data: Any) -> None:
        said.append(text.decode("utf-8", "replace"))
        if level in (WARNING, ERROR):
            sys.stderr.write(said[-1])

    heard = llama.llama_log_callback(hear)  # held here as long as it may be called
    llama.llama_log_set(heard, None)
    llama.llama_backend_init()
    task, *rest = argv
    if task == "about":
        system = llama.llama_print_system_info().decode()
        tell(out, {"version": llama.__version__, "system": " ".join(re.findall(r"(\w+) = 1\b", system))})
    elif task == "quantise":
        source, target, kind, threads = rest
        params = llama.llama_model_quantize_default_params()
        params.ftype = getattr(llama, f"LLAMA_FTYPE_MOSTLY_{kind.upper()}")
        params.nthread = int(threads)
        code = llama.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(params))
        if code:
            raise SystemExit(f"llama_model_quantize gave {code}")
    elif task == "serve":
        path, threads, context, repack = rest
        served = Served(llama, path, int(threads), int(context), repack=repack == "repack")
        buffers = dict(BUFFER.findall("".join(said)))
        tell(out, {"ready": served.description, "weight_bytes": served.weight_bytes, "buffers_mib": buffers})
        serve(served, out)
    else:
        raise SystemExit(f"no task {task!r}")


def answers() -> Any:
    """What was stdout, for answers alone; whatever libraries print goes to stderr from here on."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return out


def tell(out: Any, told: dict[str, Any]) -> None:
    """One line."""
    out.write(json.dumps(told) + "\n")
    out.flush()


def serve(served: Served, out: Any) -> None:
    """Answer until stdin ends. Waiting for a line is a blocking read: nothing runs meanwhile but threads that spin."""
    rested, since = time.process_time(), time.perf_counter()
    for line in sys.stdin:
        idle = {"idle_cpu_seconds": time.process_time() - rested, "idle_seconds": time.perf_counter() - since}
        asked = json.loads(line)
        if asked["do"] == "prefill":
            seconds = served.prefill(asked["ids"])
        elif asked["do"] == "decode":
            seconds = served.decode(asked["ids"], asked["tokens"])
        else:
            raise SystemExit(f"no request {asked['do']!r}")
        tell(out, {"seconds": seconds, **idle})
        rested, since = time.process_time(), time.perf_counter()


class Served:
    """A model with room for one sequence, as llama.cpp opens it when nobody asks for anything else but threads.
    repack: weights in the order of kernels made for the processor, where there are some; what llama.cpp does itself."""

    def __init__(self, llama: Any, path: str, threads: int, context: int, *, repack: bool) -> None:
        self.llama = llama
        opening = llama.llama_model_default_params()
        opening.use_extra_bufts = repack
        self.model = llama.llama_model_load_from_file(path.encode(), opening)
        if not self.model:
            raise SystemExit(f"llama.cpp cannot open {path}")
        params = llama.llama_context_default_params()
        params.n_ctx = context
        params.n_batch = params.n_ubatch = BATCH
        params.n_threads = params.n_threads_batch = threads
        self.context = llama.llama_init_from_model(self.model, params)
        if not self.context:
            raise SystemExit(f"llama.cpp makes no context of {context} tokens for {path}")
        self.vocab_size = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(self.model))
        self.weight_bytes = llama.llama_model_size(self.model)
        text = ctypes.create_string_buffer(256)
        llama.llama_model_desc(self.model, text, len(text))
        self.description = text.value.decode("utf-8", "replace")

    def prefill(self, ids: list[int]) -> float:
        """Seconds to read a prompt, logits of its last token included."""
        self.llama.llama_memory_clear(self.llama.llama_get_memory(self.context), False)
        return sum(self.step(ids[at : at + BATCH]) for at in range(0, len(ids), BATCH))

    def decode(self, ids: list[int], tokens: int) -> float:
        """Seconds of so many steps of one token behind a prompt, each token the likeliest."""
        self.prefill(ids)
        seconds = 0.0
        for _ in range(tokens):
            seconds += self.step([self.likeliest()])
        return seconds

    def step(self, ids: list[int]) -> float:
        """Seconds of one llama_decode."""
        tokens = (ctypes.c_int32 * len(ids))(*ids)  # the batch points to them
        batch = self.llama.llama_batch_get_one(tokens, len(ids))
        began = time.perf_counter()
        code = self.llama.llama_decode(self.context, batch)
        self.llama.llama_synchronize(self.context)
        seconds = time.perf_counter() - began
        if code:
            raise SystemExit(f"llama_decode gave {code} for {len(ids)} tokens")
        return seconds

    def likeliest(self) -> int:
        """The token with the highest logit."""
        numpy: Any = importlib.import_module("numpy")
        logits = self.llama.llama_get_logits_ith(self.context, -1)
        return int(numpy.ctypeslib.as_array(logits, shape=(self.vocab_size,)).argmax())


if __name__ == "__main__":
    # The folder of a script is searched first, and beside this one lies a llama_cpp.py that is not the one we want.
    del sys.path[0]
    main(sys.argv[1:])
