"""What an answer tells in its headers."""

from api.call_headers import _listed


def test_a_list_of_names_fits_a_header() -> None:
    assert _listed(("seed", "logit_bias")) == "seed, logit_bias"
    told = _listed(tuple(f"key{number}" for number in range(10_000)))
    assert len(told) < 1100 and told.endswith(" ... (10000 in all)") and told.startswith("key0, key1, ")
    assert len(_listed(("x" * 100_000,))) < 1100
