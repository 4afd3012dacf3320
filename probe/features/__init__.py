"""Features: run images through backbones once, and store the results.

Read first: `store` (content-keyed rows on disk), then `extract` (the pass). `copies` and `looks`
find repeated images.
"""
