"""Lists on a terminal: columns that line up, and nothing cut but the column that may be."""

from aigateway.cli.tables import fitted

ROWS = [["01a2-3f", "a long description that says much", "12", "$0.05"], ["01a2-40", "日本", "1,024", "$10.00"]]
COLUMNS = ("id", "description", "calls", "cost")


def test_figures_end_at_the_right_and_wide_characters_count_twice() -> None:
    assert fitted(COLUMNS, ROWS, width=100) == [
        "id       description                        calls    cost",
        "01a2-3f  a long description that says much     12   $0.05",
        "01a2-40  日本                               1,024  $10.00",
    ]


def test_the_named_column_alone_gives_way() -> None:
    lines = fitted(COLUMNS, ROWS, width=50, cut=1)
    assert lines[1] == "01a2-3f  a long description that s…     12   $0.05"
    narrow = fitted(COLUMNS, ROWS, width=10, cut=1)
    assert narrow[1] == "01a2-3f  a long desc…     12   $0.05"  # what is a name or a figure is whole, however narrow
    assert fitted(COLUMNS, [], width=10, cut=1) == ["id  description  calls  cost"]
