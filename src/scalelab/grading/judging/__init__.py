"""Judge answers: nbval drives a trusted kernel that runs the checks, and each answer runs in a sandboxed process.

`fork_server` starts the answers' processes in `boxes`, `trusted` is what the kernel imports, `assemble` makes the
notebook that nbval runs, `nbval_run` runs pytest with nbval and `nbval_plugin`, `judge` turns what they report into
`results`.
"""

PREFIX = "scalelab: "
"""The beginning of each line that `nbval_plugin` prints for `nbval_run`; only one of them needs pytest."""
RECORDS = "SCALELAB_VERDICTS"
"""The environment variable with the path of the kernel's file for verdicts, a line of JSON each."""
CPU_S = "SCALELAB_CPU_S"
"""The environment variable with an answer's processor time per check, in seconds."""
OWN_PROCESS = "SCALELAB_OWN_PROCESS"
"""The environment variable that is set if the kernel only runs checks, so that the system may limit or end it."""
