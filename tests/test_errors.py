"""The range checks that every room shares, and their sentences."""
import pytest

from sslkit.errors import InputError, in_unit, not_negative, positive

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("check, good, bad, sentence", [
    (in_unit, (0, 0.5, 1), (-1e-9, 1.001, NAN, INF), "it must lie between 0 and 1"),
    (not_negative, (0, 1e9), (-1e-9, NAN, INF), "it must be a finite number from 0 up"),
    (positive, (1e-9, 1e9), (0, -1, NAN, INF), "it must be a finite number above 0")])
def test_a_value_out_of_range_is_named(check, good, bad, sentence):
    check(**{f"a{k}": value for k, value in enumerate(good)})
    for value in bad:
        with pytest.raises(InputError) as error:
            check(first=good[0], tau=value)
        assert str(error.value) == f"tau is {value:g}, {sentence}"
