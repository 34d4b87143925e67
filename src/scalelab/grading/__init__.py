"""Grade submissions: their answers go into the executed references, and nbval judges them.

`submissions` finds and reads them, `judging` lets nbval judge in a `sandbox`, `grades` says what a grade is,
`grade_store` stores the grades, `outputs` writes feedback and tables, and `batch` does all this for a whole class.
"""
