"""Generators: turn a checkpoint into a `Generator`, and a generator into an `ImageSource` by seed.

Read first: `base` (the contract), then `open` (resolves `--gen`), `formats` (chooses a file's
reader), `unpickle` (reads pickles without running them; `vocabulary` lists what it allows,
`records` what it returns, `listing` shows what a pickle refers to), `checkpoint` (the validated
result), `stylegan2` (the network), `sampler` (seeds to images).
"""
