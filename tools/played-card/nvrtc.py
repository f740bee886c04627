"""Compiles CUDA sources by the real NVRTC for given architectures, on all cores; no card, driver or toolkit is needed.

    python3 tools/played-card/nvrtc.py LIBNVRTC --architectures 75,120 --include FOLDER SOURCE.cu..

LIBNVRTC comes with pip (nvidia-cuda-nvrtc). FOLDER holds an empty cuda_runtime.h: the kernels need nothing of it. Exit
status 1 where a source does not compile, with the compiler's log.
"""

import argparse
import ctypes
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path


def compiled(task: tuple[str, str, str, str]) -> tuple[str, str, str | None]:
    """The log of a source that does not compile for an architecture."""
    library, include, architecture, path = task
    # NVRTC opens these by name, from wherever they are loaded already.
    for builtins in Path(library).parent.glob("libnvrtc-builtins.so*"):
        ctypes.CDLL(str(builtins))
    nvrtc = ctypes.CDLL(library)
    program = ctypes.c_void_p()
    source = Path(path).read_bytes()
    status = nvrtc.nvrtcCreateProgram(ctypes.byref(program), source, Path(path).name.encode(), 0, None, None)
    if status:
        return path, architecture, f"nvrtcCreateProgram: status {status}"
    given = [f"--gpu-architecture=sm_{architecture}", f"--include-path={include}"]
    options = (ctypes.c_char_p * len(given))(*(option.encode() for option in given))
    status = nvrtc.nvrtcCompileProgram(program, len(given), options)
    if not status:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
        return path, architecture, None
    size = ctypes.c_size_t()
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetProgramLog(program, log)
    return path, architecture, log.value.decode(errors="replace").strip() or f"status {status}"


def main() -> None:
    """Compiles all, and says what did not."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("library", help="libnvrtc.so")
    parser.add_argument("--architectures", default="75,120", help="compute capabilities without the dot (75,120)")
    parser.add_argument("--include", required=True, help="folder of an empty cuda_runtime.h")
    parser.add_argument("sources", nargs="+", help="CUDA sources")
    options = parser.parse_args()
    architectures = options.architectures.split(",")
    tasks = [
        (options.library, options.include, architecture, path)
        for path, architecture in product(options.sources, architectures)
    ]
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        failed = [found for found in pool.map(compiled, tasks, chunksize=1) if found[2] is not None]
    for path, architecture, log in failed:
        print(f"{path} does not compile for sm_{architecture}:\n{log}\n", file=sys.stderr)
    print(f"{len(options.sources)} kernels for sm_{' and sm_'.join(architectures)}: {len(failed)} of {len(tasks)} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
