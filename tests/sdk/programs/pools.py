"""Works in children of the standard library's process pools. Arguments: endpoint, runs, kind of pool, start method."""

from __future__ import annotations

import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor

from dunetrace import Dunetrace
from tests.sdk.programs.work import one_run

dt = Dunetrace(sys.argv[1], flush_interval_ms=60_000)


def task(number: int) -> None:
    one_run(dt, f"child {os.getpid()}")


def main(count: int, kind: str, method: str) -> None:
    one_run(dt, "parent")  # so that a drain thread runs when children are forked
    context = multiprocessing.get_context(method)
    if kind == "executor":
        with ProcessPoolExecutor(2, mp_context=context) as executor:
            list(executor.map(task, range(count)))
    elif kind == "pool":
        pool = context.Pool(2)
        pool.map(task, range(count), chunksize=1)
        pool.close()
        pool.join()
    else:
        children = [context.Process(target=task, args=(number,)) for number in range(count)]
        for child in children:
            child.start()
        for child in children:
            child.join()


if __name__ == "__main__":
    main(int(sys.argv[2]), sys.argv[3], sys.argv[4])
