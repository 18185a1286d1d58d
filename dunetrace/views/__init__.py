"""What detectors ask of a run beyond its facts, one view a file.

Fed by the fold of `runs.RunState`, one call at a time, and read by detectors. A view knows no threshold: it keeps what
any threshold within its bounds could ask for, so nothing is scanned twice and what happened at the start of a
million-event run is still known at its end.
"""
