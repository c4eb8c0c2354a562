"""The benchmark of gru_c: `python -m bench`, options in `__main__.py`.

    shapes.py     which sizes                     peers/       the other libraries
    roofline.py   the limits of the machine       ours.py      gru_c behind the same interface
    timing.py     interleaved rounds              worker.py    one process: build, check, time
    plan.py       what a run consists of          runner.py    starts workers, takes their events
    results.py    the file: merge, compare        summary.py   ratios, means
    targets.py    what to reach; where we lose    report.py    tables, text, the page for docs/
    plots.py      ratio by shape, roofline        footprint.py memory, sizes, import time
    machine.py    environment and versions        processor.py its name, a folder of results
    ratios.py     gru_c over itself: ragged over padded, two directions over one
    step.py       one step of a stream, from each language; step_ways.py, step_*: its loops
    quantized.py  int8 and bfloat16, time and error; peers/quantized.py: those of others

Imports nothing heavy: limits are set in the environment of a worker before it imports anything.
"""
