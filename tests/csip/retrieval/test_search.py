"""Ranked lists as a table."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from csip.data.csv_table import parse_table
from csip.retrieval.search import Hit, SearchResult, write_table

NAMES = st.one_of(
    st.sampled_from(["=1+1", "@x", "-1+2", "'=", "a,b", 'say "hi"', " x "]), st.text("=+-@'ab \t\n\r;,", min_size=1)
)


@given(query=NAMES, tracklet=NAMES, camera=NAMES, person=NAMES)
def test_names_in_a_table_are_no_formulas_and_are_read_back(
    query: str, tracklet: str, camera: str, person: str, tmp_path_factory: object
) -> None:
    path: Path = tmp_path_factory.mktemp("search") / "search.csv"  # type: ignore[attr-defined]
    hit = Hit(rank=1, tracklet=tracklet, camera=camera, cosine=-0.25, distance=1.25, identity=person, row=0)
    write_table(path, [SearchResult(query, (hit,))])
    text = path.read_bytes()
    columns = ("query", "rank", "tracklet", "camera", "cosine", "distance", "person")
    ((_, row),) = parse_table(text, path, columns)
    assert tuple(row.values()) == (query, "1", tracklet, camera, "-0.25", "1.25", person)
