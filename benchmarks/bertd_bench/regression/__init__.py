"""Has bertd become slower? Its times, as ratios to a kernel of constant work, against a baseline.

::

    now:       kernel | case | case ...  in rounds ──> time / kernel ─┐
    baseline:  the same, of an earlier commit ───────> time / kernel ─┴─> change, with interval
"""
