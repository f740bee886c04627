"""Runs a command and writes what it took: `measured_process.py FILE COMMAND..`.

A small process of its own, started with `python -I -S`, because a child's peak memory
counts that of the process it was forked from. FILE gets the wall seconds, the processor
seconds and the peak memory in bytes; the exit status is the command's.
"""

import os
import sys
import time

file, *command = sys.argv[1:]
start = time.perf_counter()
try:
    process = os.posix_spawnp(command[0], command, os.environ)
except OSError as error:
    sys.exit(f"{command[0]}: {error.strerror}")
_, status, used = os.wait4(process, 0)
seconds = time.perf_counter() - start
with open(file, "w") as out:
    # Kilobytes on Linux.
    out.write(f"{seconds} {used.ru_utime + used.ru_stime} {used.ru_maxrss * 1024}")
sys.exit(os.waitstatus_to_exitcode(status) & 0xFF)
