"""Generators: turn a checkpoint into a `Generator`, and a generator into an `ImageSource` by seed.

Read first: `base` (the contract), then `open` (resolves `--gen`), `files.formats` (chooses a file's
reader), `files.unpickle` (reads pickles without running them; `files.vocabulary` lists what it
allows, `files.records` what it returns, `files.listing` shows what a pickle refers to),
`checkpoint` (the validated result), `networks.stylegan2` (a network), `sampler` (seeds to images).
"""
