"""Judge answers: nbval drives a trusted kernel that runs the checks, and each answer runs in a sandboxed process.

`fork_server` starts the answers' processes, `trusted` is what the kernel imports, `notebook` assembles what nbval runs,
`session` runs pytest with nbval and `plugin`, `judge` turns what they report into `results`.
"""

PREFIX = "scalelab: "
"""What begins each line that `plugin` prints for `session`; here, because only one of them needs pytest."""
