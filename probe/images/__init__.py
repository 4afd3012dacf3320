"""Images: a path becomes an `ImageSource`: a length, content keys, uint8 batches.

Read first: `base` (the contract), then `open` (which reader takes a path), `decode` (one file to
one RGB image, every format's rule), `files` (folder and zip alike), `audit` (what the encoding
alone gives away).
"""
