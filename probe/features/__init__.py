"""Features: one pass of images through backbones, and the store that remembers it.

Read first: `store` (content-keyed rows on disk), then `extract` (the pass). `copies` and
`looks` find images that are there more than once.
"""
