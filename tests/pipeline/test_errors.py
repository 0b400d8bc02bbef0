import pickle

from pipeline.errors import InputError


def test_an_input_error_comes_back_whole_from_another_process() -> None:
    error = InputError("a.txt", expected="one line", found="two\nlines")
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.what, again.expected, again.found) == (str(error), "a.txt", "one line", "two\nlines")
    assert str(again) == "a.txt: expected one line, found two lines"
