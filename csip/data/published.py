"""The sizes of published data sets, which a copy on a disk is compared with."""

# As published, whole training tracklets; where two numbers are given, with and without the queries in the gallery.
PUBLISHED: dict[str, dict[str, int | tuple[int, int]]] = {
    "mars": {
        "training identities": 625,
        "training tracklets": 8298,
        "queries": 1980,
        "gallery tracklets": (11310, 9330),
        "queries with a match": (1980, 1840),
        "cameras": 6,
    },
    "lsvid": {
        "training identities": 842,
        "training tracklets": 2831,
        "queries": 3504,
        "gallery tracklets": (11333, 7829),
        "cameras": 15,
    },
    "ilidsvid": {
        "training identities": 150,
        "training tracklets": 300,
        "queries": 150,
        "gallery tracklets": 150,
        "queries with a match": 150,
        "cameras": 2,
    },
    "prid2011": {
        "training identities": 89,
        "training tracklets": 178,
        "queries": 89,
        "gallery tracklets": 89,
        "queries with a match": 89,
        "cameras": 2,
    },
    "kgbd": {"people": 164, "sequences": 822, "skeletons": 491_747},
}
