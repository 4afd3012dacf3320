"""The model bank: `modelbank.yaml` holds specs, and a spec becomes a `Backbone`.

Read first: `spec` (a bank entry; `errors` reports the line of each mistake), `base` (the interface
of every backbone), then `load` (chooses the source that builds a spec) and `weights` (find, verify
and fetch).
"""
