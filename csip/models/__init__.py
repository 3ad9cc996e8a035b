"""The networks: image encoder, skeleton encoder, prototypes, temporal modelling, and the whole of them."""
