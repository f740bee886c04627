"""Compiles CUDA sources by the real NVRTC for given architectures, on all cores; no card, driver or toolkit is needed.

    python3 tools/played-card/nvrtc.py LIBNVRTC --architectures 75,120 --include FOLDER SOURCE.cu..

LIBNVRTC comes with pip (nvidia-cuda-nvrtc). FOLDER holds a cuda_runtime.h; the kernels need nothing of NVIDIA's. With
--most-registers a kernel may take no more for any of the architectures, and --without refuses an instruction in its PTX. Exit
status 1 where a source fails, with the compiler's log or what is wrong.
"""

import argparse
import ctypes
import os
import struct
import sys
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path


def registers(cubin: bytes) -> int:
    """The most registers of a thread of the kernels in a CUBIN, which is an ELF file: attribute REGCOUNT of its section .nv.info."""
    start, size, count, names = struct.unpack_from("<Q", cubin, 40)[0], *struct.unpack_from("<3H", cubin, 58)
    # Name, offset and size of each section.
    sections = [struct.unpack_from("<I20xQQ", cubin, start + i * size) for i in range(count)]
    found = []
    for name, offset, length in sections:
        name += sections[names][1]
        if cubin[name : cubin.index(0, name)] != b".nv.info":
            continue
        at = offset
        while at < offset + length:
            kind, attribute, value = struct.unpack_from("<BBH", cubin, at)
            at += 4
            has_payload, regcount = 4, 0x2F
            if kind == has_payload:
                if attribute == regcount:
                    found.append(struct.unpack_from("<I", cubin, at + 4)[0])
                at += value
    return max(found)


def made(nvrtc: ctypes.CDLL, program: ctypes.c_void_p, what: str) -> bytes:
    """What NVRTC made of a program: "CUBIN" or "PTX"."""
    size = ctypes.c_size_t()
    nvrtc[f"nvrtcGet{what}Size"](program, ctypes.byref(size))
    code = ctypes.create_string_buffer(size.value)
    nvrtc[f"nvrtcGet{what}"](program, code)
    return code.raw


def fault(task: tuple[str, str, str, str, int | None, str | None]) -> tuple[str, str, str | None]:
    """What is wrong with a source for an architecture."""
    library, include, architecture, path, most, without = task
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
        wrong = None
        if most is not None and (taken := registers(made(nvrtc, program, "CUBIN"))) > most:
            wrong = f"{taken} registers, more than {most}"
        if without is not None and without.encode() in made(nvrtc, program, "PTX"):
            wrong = f"{without} in its PTX"
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
        return path, architecture, wrong
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
    parser.add_argument("--include", required=True, help="folder of cuda_runtime.h")
    parser.add_argument("--most-registers", type=int, help="that a thread may take")
    parser.add_argument("--without", help="an instruction that must not be there")
    parser.add_argument("sources", nargs="+", help="CUDA sources")
    options = parser.parse_args()
    architectures = options.architectures.split(",")
    tasks = [
        (options.library, options.include, architecture, path, options.most_registers, options.without)
        for path, architecture in product(options.sources, architectures)
    ]
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        failed = [found for found in pool.map(fault, tasks, chunksize=1) if found[2] is not None]
    for path, architecture, log in failed:
        print(f"{path} for sm_{architecture}:\n{log}\n", file=sys.stderr)
    print(f"{len(options.sources)} kernels for sm_{' and sm_'.join(architectures)}: {len(failed)} of {len(tasks)} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
