"""The page of `csip review` and the server behind it."""
