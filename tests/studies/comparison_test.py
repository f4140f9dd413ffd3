from studies import comparison


def test_a_number_and_its_error():
    assert comparison.number(-0.001, 0.125) == "0.00 (0.12)"
    assert comparison.number(-1.234, float("nan")) == "-1.23"  # Of one seed.
