"""Features: one pass of images through backbones, and the store that remembers it.

Read first: `store` (content-keyed rows on disk), then `extract` (the pass).
"""
