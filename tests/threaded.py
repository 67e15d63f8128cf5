"""On how many threads linear algebra runs just now."""

from __future__ import annotations

from threadpoolctl import threadpool_info


def threads() -> list[int]:
    """Return those of each library that NumPy and SciPy compute by.

    faiss has one of its own, where another test has imported it, with a limit for each thread.
    """
    blas = [library for library in threadpool_info() if library["user_api"] == "blas"]
    return [library["num_threads"] for library in blas if "faiss" not in library["filepath"]]
