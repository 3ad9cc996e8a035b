"""Videos become tracklets: decoding, person detection, tracking, and the rules that a tracklet has to meet."""
