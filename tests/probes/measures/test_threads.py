"""Linear algebra of many small matrices: on one thread inside, as before outside."""

from threadpoolctl import threadpool_info

from probes.measures.threads import one_thread


def counts():
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


def test_inside_all_libraries_have_one_thread_and_outside_what_they_had():
    before = counts()
    for _ in range(2):
        with one_thread():
            assert set(counts()) == {1}
            with one_thread():
                assert set(counts()) == {1}
            assert set(counts()) == {1}
        assert counts() == before
