"""Which model should serve a request? The automatic router: its facts, tables, ranking, learning and evaluation.

Pure, but for `offline_rows`, which reads files. In the order of a request: `request_facts` (with `words`,
`fingerprint`, `request_types`, `languages`, `difficulty`), then `ranking` over `estimating` over `tables`. Off the hot
path: `learning` and `difficulty_learning` make tables of evidence, `evaluation` (with `curves`, `offline_rows`,
`timing`) says what they are worth.
"""
