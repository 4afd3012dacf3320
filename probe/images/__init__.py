"""Images: a path becomes an `ImageSource`: a length, content keys, uint8 batches.

Read first: `base` (the contract), then `open` (which reader takes a path), `files` (folder and zip
alike), `encoded` (which formats are read), `decode` (one file to one RGB image, every format's
rule; `depth` has those of more than 8 bits), `audit` (what the encoding alone gives away).
"""
