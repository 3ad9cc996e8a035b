"""The server of a review: the page, the state as JSON, pictures, and answers."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from csip.data.folder import Sighting
from csip.errors import CsipError
from csip.review.labels import LabelsFile
from csip.review.questions import Question
from csip.review.review import Review
from pipelines.review_page.guard import Guard
from pipelines.review_page.picture_search import PictureSearch
from pipelines.review_page.pictures import Pictures

_HERE = Path(__file__).parent
_FILES = {
    "page.html": "text/html", "review.css": "text/css", "review.js": "text/javascript", "api.js": "text/javascript",
    "pairs.js": "text/javascript", "people.js": "text/javascript", "find.js": "text/javascript",
    "timeline.js": "text/javascript", "split.js": "text/javascript", "dom.js": "text/javascript",
}  # fmt: skip
_MOST_FOUND = 200


class ReviewServer:
    """Answers the page's requests.

    Parameters
    ----------
    review
        What is reviewed.
    labels
        The file that the people are written to.
    sightings
        Where and when each tracklet was seen.
    pictures
        Of the tracklets.
    search
        Describes pictures that are searched for.
    split
        Writes the split, by share and seed, and returns what the page shows of it.
    """

    def __init__(
        self,
        review: Review,
        labels: LabelsFile,
        sightings: dict[str, Sighting],
        pictures: Pictures,
        search: PictureSearch,
        split: Callable[[float, int], dict[str, Any]],
    ) -> None:
        self.review, self.labels, self.pictures = review, labels, pictures
        self._sightings, self._search, self._split = sightings, search, split
        about = self._about = self._describe()
        self._camera = np.array(about["camera"])
        self._start = np.array([np.nan if value is None else value for value in about["start"]], dtype=float)
        self._actions: dict[str, Callable[[dict[str, Any]], object]] = {
            "compare": lambda asked: review.compare(asked["a"], asked["b"], asked["answer"], asked["key"]),
            "mark": lambda asked: review.mark(asked["names"], asked["as"], asked["key"]),
            "move": lambda asked: review.move(asked["names"], asked["to"], asked["key"]),
            "merge": lambda asked: review.merge(asked["names"], asked["key"]),
            "confirm": lambda asked: review.confirm(asked["name"], asked["key"]),
            "rename": lambda asked: review.rename(asked["name"], asked["title"], asked["key"]),
            "undo": lambda asked: review.undo(asked["key"]),
            "save": lambda asked: labels.save(review),
            "settle": lambda asked: labels.settle(review, asked["name"], asked["keep"], asked["key"]),
        }

    def app(self, token: str, port: int) -> ASGIApp:
        """Return the application, guarded."""
        routes = [
            Route("/", self._file("page.html")),
            *(Route(f"/{name}", self._file(name)) for name in _FILES),
            Route("/report.css", self._file("../report_page/page.css")),
            Route("/tracklets", self._get(lambda asked: self._about)),
            Route("/state", self._get(self.state)),
            Route("/version", self._get(lambda asked: {"version": self.review.version})),
            Route("/questions", self._get(self.questions)),
            Route("/people", self._get(self.people)),
            Route("/near/{row:int}", self._get(self.near)),
            Route("/find", self._post(self.find), methods=["POST"]),
            Route("/split", self._post(self.split), methods=["POST"]),
            Route("/strip/{row:int}.jpg", self.strip),
            Route("/frame/{row:int}/{number:int}.jpg", self.frame),
            Route("/do", self._post(self.do), methods=["POST"]),
        ]
        return Guard(Starlette(routes=routes, exception_handlers={CsipError: refuse}), token, port)

    # ---- what is shown ------------------------------------------------------------------------------------------

    def _describe(self) -> dict[str, Any]:
        """Return what does not change: names, cameras, times."""
        names, seen = self.review.basis.names, self._sightings
        cameras = [seen[name].camera if name in seen else str(number) for name, number in
                   zip(names, self.review.basis.cameras.tolist(), strict=True)]  # fmt: skip
        sources = ["/".join(seen[name].source) if name in seen else camera for name, camera in
                   zip(names, cameras, strict=True)]  # fmt: skip
        numbered, numbered_sources = sorted(set(cameras)), sorted(set(sources))
        of, of_source = ({name: n for n, name in enumerate(known)} for known in (numbered, numbered_sources))
        return {
            "names": names,
            "cameras": numbered,
            "camera": [of[camera] for camera in cameras],
            "sources": numbered_sources,
            "source": [of_source[source] for source in sources],
            "start": [seen[name].start if name in seen else None for name in names],
            "end": [seen[name].end if name in seen else None for name in names],
            "length": [self.pictures.length(row) for row in range(len(names))],
            "frames": [self.pictures.frames_of(row) for row in range(len(names))],
        }

    def state(self, asked: Request) -> dict[str, Any]:
        """Return how far the review is, and what is wrong."""
        review = self.review
        progress = review.progress()
        grouping = review.grouping
        contradictions = []
        for source in grouping.unheld:
            entry = review.journal.entries[source - 1]
            names = [entry["a"], entry["b"]] if entry["do"] == "compare" else entry["names"][:2]
            contradictions.append({
                "answer": entry.get("answer", entry["do"]),
                "compared": entry["do"] == "compare",
                "rows": [review.basis.rows[name] for name in names],
            })  # fmt: skip
        return {
            "version": review.version,
            "progress": vars(progress),
            "contradictions": contradictions,
            "overlaps": review.overlaps(),
            "conflicts": [vars(conflict) for conflict in self.labels.conflicts(review)],
            "saved": self.labels.saved_version == review.version,
            "can_undo": progress.answers > 0,
        }

    def questions(self, asked: Request) -> dict[str, Any]:
        """Return the pairs that matter most."""
        found = self.review.questions(3)
        return {"version": self.review.version, "open": found.count,
                "questions": [self._question(question) for question in found.first[:3]]}  # fmt: skip

    def _question(self, question: Question) -> dict[str, Any]:
        people, groups = self.review.grouping.people, self.review.grouping.groups
        sides = [people[question.a], people[question.b]]
        return {
            "a": question.a, "b": question.b, "kind": question.kind, "stake": round(question.stake, 2),
            "pairs": question.pairs, "same": round(question.same, 3), "distance": round(question.distance, 3),
            "sizes": [len(groups[side]) for side in sides], "together": bool(sides[0] == sides[1]),
            "at_once": question.at_once,
        }  # fmt: skip

    def people(self, asked: Request) -> dict[str, Any]:
        """Return everybody, the doubtful first, and the state of each tracklet."""
        review = self.review
        grouping, titles, states = review.grouping, review.titles(), review.states()
        doubt = np.zeros(len(grouping.groups))
        for question in review.questions(60).first:
            for row in {question.a, question.b}:
                doubt[grouping.people[row]] += question.stake
        order = np.argsort(-doubt, kind="stable").tolist()
        left_out = [row for row, state in enumerate(states) if state in ("junk", "mixed")]
        return {
            "version": review.version,
            "people": [
                {"title": titles[n], "rows": grouping.groups[n].tolist(), "doubt": round(float(doubt[n]), 2)} for n in order
            ],
            "states": [state[0] for state in states],
            "left_out": left_out,
        }  # fmt: skip

    def near(self, asked: Request) -> dict[str, Any]:
        """Return the nearest tracklets of one, filtered, and the frames by which it can be searched for."""
        row = self._row(asked.path_params["row"])
        found = self._nearest(self.review.basis.features[row], asked.query_params, row)
        return {"row": row, "crops": self.pictures.chosen(row), "found": found}

    def find(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Return the tracklets nearest to a picture, a frame of a tracklet or an uploaded one."""
        basis = self.review.basis
        if "picture" in asked:
            return {
                "found": self._nearest(basis.feature_of(self._search.of_upload(picture_in(asked["picture"]))), asked)
            }
        row, number = self._row(asked.get("row")), asked.get("frame")
        if not isinstance(number, int) or not 0 <= number < self.pictures.length(row):
            raise CsipError(f"expected a frame from 0 and below {self.pictures.length(row)}, found {str(number)[:40]}")
        descriptor = self._search.of_crop(self.pictures.tracklet(row), number)
        return {"found": self._nearest(basis.feature_of(descriptor, int(basis.cameras[row])), asked, row)}

    def _nearest(self, feature: np.ndarray, wanted: Mapping[str, Any], row: int | None = None) -> list[dict[str, Any]]:
        """Return the tracklets nearest to a descriptor that the filters leave; `row` is the one that it is of."""
        review = self.review
        kept = np.ones(len(review.basis.names), bool)
        if row is not None:
            kept[row] = False
            if wanted.get("others") == "1":
                kept &= review.grouping.people != review.grouping.people[row]
        if str(wanted.get("camera", "")).isdigit():
            kept &= self._camera == int(wanted["camera"])
        if wanted.get("state") in ("c", "i", "p"):
            kept &= np.array([state[0] for state in review.states()]) == wanted["state"]
        for bound, compare in (("from", np.greater_equal), ("to", np.less_equal)):
            if wanted.get(bound):
                kept &= compare(self._start, number_of(wanted[bound]))
        found = review.nearest_to(feature, min(int(number_of(wanted.get("count", "24"))), _MOST_FOUND), kept)
        return [{"row": other, "distance": round(distance, 3)} for other, distance in found]

    def split(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Save the labels, make train, query and gallery of them, and return the counts."""
        share, seed = number_of(asked.get("share", "0.5")), number_of(asked.get("seed", "0"))
        if seed != int(seed) or seed < 0:
            raise CsipError(f"seed: expected a whole number from 0, found {seed:g}")
        self.labels.save(self.review)
        return self._split(share, int(seed))

    # ---- pictures -----------------------------------------------------------------------------------------------

    async def strip(self, asked: Request) -> Response:
        """Serve a tracklet's strip."""
        row = self._row(asked.path_params["row"])
        return picture(await run_in_threadpool(self.pictures.strip, row))

    async def frame(self, asked: Request) -> Response:
        """Serve a frame of a tracklet."""
        row, number = self._row(asked.path_params["row"]), asked.path_params["number"]
        if number >= self.pictures.length(row):
            raise CsipError(f"expected a frame below {self.pictures.length(row)}, found {number}")
        return picture(await run_in_threadpool(self.pictures.frame, row, number))

    # ---- answers ------------------------------------------------------------------------------------------------

    def do(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Carry out what the page was told."""
        if not (isinstance(asked.get("do"), str) and asked["do"] in self._actions):
            raise CsipError(f"do: expected one of {', '.join(self._actions)}")
        key = asked.setdefault("key", None)
        if key is not None and not (isinstance(key, str) and 0 < len(key) <= 80):
            raise CsipError("key: expected up to 80 characters")
        try:
            self._actions[asked["do"]](asked)
        except KeyError as error:
            raise CsipError(f"{error.args[0]}: missing") from error
        return {"version": self.review.version}

    # ---- inside -------------------------------------------------------------------------------------------------

    def _row(self, row: object) -> int:
        if not isinstance(row, int) or not 0 <= row < len(self.review.basis.names):
            raise CsipError(f"there is no tracklet {str(row)[:40]}")
        return row

    def _post(self, act: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[Request], Any]:
        async def answer(asked: Request) -> Response:
            try:
                body = json.loads(await asked.body())
            except (ValueError, RecursionError):
                body = None
            if not isinstance(body, dict):
                raise CsipError("expected a JSON object")
            return JSONResponse(await run_in_threadpool(act, body))

        return answer

    def _get(self, make: Callable[[Request], dict[str, Any]]) -> Callable[[Request], Any]:
        async def answer(asked: Request) -> Response:
            return JSONResponse(await run_in_threadpool(make, asked))

        return answer

    def _file(self, name: str) -> Callable[[Request], Any]:
        content = (_HERE / name).read_bytes()
        kind = _FILES.get(name, "text/css")

        async def answer(asked: Request) -> Response:
            return Response(content, media_type=kind)

        return answer


async def refuse(asked: Request, error: Exception) -> Response:
    """Say what is wrong with a request."""
    return JSONResponse({"error": str(error)}, 400)


def picture_in(text: object) -> bytes:
    """Decode a picture that came as base64.

    Raises
    ------
    CsipError
        It is something else.
    """
    try:
        return base64.b64decode(str(text), validate=True)
    except (binascii.Error, ValueError) as error:
        raise CsipError("picture: expected base64") from error


def number_of(text: object) -> float:
    """Read a number of a request.

    Raises
    ------
    CsipError
        It is none, or not finite.
    """
    try:
        value = float(str(text)[:40])
    except ValueError:
        value = float("nan")
    if not np.isfinite(value):
        raise CsipError(f"expected a number, found {str(text)[:40]!r}")
    return value


def picture(data: bytes) -> Response:
    """Return a picture that the browser may keep while the page is open."""
    return Response(data, media_type="image/jpeg", headers={"cache-control": "private, max-age=3600"})
