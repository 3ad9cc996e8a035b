"""Tables as spreadsheets save them, and the mistakes that people make in them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csip.data.csv_table import format_rows, guarded, parse_table
from csip.data.labels import parse_labels, write_labels
from csip.errors import CsipError

EXPECTED = [(2, {"tracklet": "a1", "person": "Zoë, M."}), (3, {"tracklet": "b 2", "person": "bob"})]
PLAIN = 'tracklet,person\na1,"Zoë, M."\nb 2,bob\n'


@pytest.mark.parametrize(
    "text",
    [
        PLAIN,
        "\ufeff" + PLAIN.replace("\n", "\r\n"),
        'tracklet;person\na1;"Zoë, M."\nb 2;bob\n',
        "tracklet;person\na1;Zoë, M.\nb 2;bob",
        "tracklet\tperson\na1\tZoë, M.\nb 2\tbob\n",
        ' Tracklet , PERSON \na1 ,"Zoë, M. "\n b 2, bob\n',
        PLAIN + "\n,\n , \n",
    ],
)
def test_spreadsheets_save_the_same_table_in_many_ways(text: str) -> None:
    assert list(parse_table(text.encode(), Path("labels.csv"), ("tracklet", "person"))) == EXPECTED


def test_short_and_long_lines_and_columns_in_another_order() -> None:
    text = "confidence;person;tracklet\n0,9;ann;a1\n0,1;bob\n;;\n0,2;eve;c1;more\n"
    rows = list(parse_table(text.encode(), Path("labels.csv"), ("tracklet", "person")))
    assert [(line, row["tracklet"], row["person"]) for line, row in rows] == [
        (2, "a1", "ann"), (3, "", "bob"), (5, "c1", "eve")
    ]  # fmt: skip


def test_a_cell_of_several_lines_counts_as_they_do() -> None:
    rows = list(parse_table(b'tracklet,person\na1,"ann\nlee"\nb1,bob\n', Path("labels.csv"), ("tracklet",)))
    assert [line for line, _ in rows] == [2, 4]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", r"labels\.csv: no column tracklet, person; found nothing, expected tracklet, person"),
        (b"\n", "found nothing"),
        (b"tracklet person\na1 ann\n", "no column tracklet, person; found tracklet person"),
        (b"tracklet;who\na1;ann\n", "no column person; found tracklet, who"),
        (b"tracklet,person,Person\na1,ann,bob\n", "2 columns are called person; expected one of each name"),
        (b"tracklet,person\na1,ann\na2,b\0b\n", "line 3 holds a NUL byte"),
        ('tracklet,person\na1,André\n'.encode("latin-1"), r"labels\.csv: not UTF-8 text .* save it as CSV, UTF-8"),
        (PLAIN.encode("utf-16"), "not UTF-8 text"),
        (b'tracklet,person\na1,ann\n"b1,bob\nc1,eve\n', "what begins in line 3 cannot be read .* quotation mark missing"),
        (b"tracklet,person\na1," + b"x" * 200_000, "what begins in line 2 cannot be read"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_named(content: bytes, words: str) -> None:
    with pytest.raises(CsipError, match=words):
        list(parse_table(content, Path("labels.csv"), ("tracklet", "person")))


def test_labels_of_a_spreadsheet() -> None:
    labels = "\ufeffTracklet;Person;Confidence\r\na1;ann;0,912\r\nb1;bob ;0,5\r\n;;\r\n"
    assert parse_labels(labels.encode(), Path("labels.csv"), {"a1", "b1"}) == {"a1": "ann", "b1": "bob"}


# ---- names from outside ----------------------------------------------------------------------------------------------

FORMULAS = ["=1+1", "+1+cmd|' /C calc'!A0", "-2+3", "@SUM(1)", "\t=1", "\r=1", "\n=1", "\uff1d1+1"]
CELLS = st.one_of(
    st.sampled_from(
        [*FORMULAS, "'", "''", "'Bob", "'=1", "''=1", " a", "a ", "' a", "a;b", 'say "hi"', "a\rb", "a\nb", "-1", "+1"]
    ),
    st.text("='+-@ \t\r\n\",;a1", max_size=6),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8),
)


@given(st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=4))
def test_every_name_is_read_back_as_it_was(rows: list[tuple[str, str]]) -> None:
    content = format_rows([("tracklet", "person"), *rows]).encode()
    read = [(row["tracklet"], row["person"]) for _, row in parse_table(content, Path("x.csv"), ("tracklet", "person"))]
    assert read == [row for row in rows if any(row)]


@given(CELLS)
def test_no_cell_is_a_formula(name: str) -> None:
    cell = guarded(name)
    assert not cell.startswith(("=", "@", "\t", "\r"))
    if cell.startswith(("+", "-")):
        float(cell)
    assert cell in (name, f"'{name}")


@pytest.mark.parametrize("name", FORMULAS)
def test_formulas_are_written_as_text(name: str) -> None:
    assert guarded(name) == f"'{name}"


def test_numbers_and_common_names_are_written_as_they_are() -> None:
    for name in ("-1", "+1.5", "-2.5e-3", "Bob", "O'Neil", "'Bob'", "2024-11-25", "a=b", "front/0001"):
        assert guarded(name) == name
    assert format_rows([("a", -1.5, None, 3)]) == "a,-1.5,,3\n"


def test_labels_of_any_name_are_read_back(tmp_path: Path) -> None:
    rows = [(name, f"+{name}", 0.5) for name in FORMULAS]
    write_labels(tmp_path / "labels.csv", rows)
    content = (tmp_path / "labels.csv").read_bytes()
    read = parse_labels(content, Path("labels.csv"), {name for name, _, _ in rows})
    assert read == {name: person for name, person, _ in rows}
    with pytest.raises(CsipError, match="not UTF-8"):
        write_labels(tmp_path / "labels.csv", [("caf\udce9", "x", 1.0)])
