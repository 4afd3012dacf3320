"""Images: a path becomes an `ImageSource`: a length, content keys and uint8 batches.

Read first: `base` (the contract), then `open` (chooses a path's reader), `files` (shared by all
readers of encoded images), `blob` (bytes by offset, here or at a URL), `encoded` (supported
formats), `decode` (one file to one RGB image, with every format's rules; `depth` covers more than 8
bits), `audit` (what the encoding alone gives away).
"""
