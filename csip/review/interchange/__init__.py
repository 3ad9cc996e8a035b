"""Labels in the formats of other tools: out of a data set, and back into it."""
