"""Linear algebra of many small matrices: on one thread inside, as before outside."""

from threaded import threads

from probes.measures.threads import one_thread


def test_inside_all_libraries_have_one_thread_and_outside_what_they_had():
    before = threads()
    for _ in range(2):
        with one_thread():
            assert set(threads()) == {1}
            with one_thread():
                assert set(threads()) == {1}
            assert set(threads()) == {1}
        assert threads() == before
