"""The model bank: `modelbank.yaml` becomes specs, a spec becomes a `Backbone`.

Read first: `spec` (what an entry says; `mistakes` names the line where it is wrong), `base` (what
every backbone does), then `load` (which source builds a spec) and `weights` (find, verify, fetch).
"""
