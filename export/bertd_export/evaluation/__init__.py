"""The task's own metrics on labelled examples: fp32 against the bundle's precision.

::

    file ──examples──> lines ──sequence_tasks, token_tasks──> texts, right answers
    graph ──evaluator──> outputs ──scoring──> metrics of each precision ──> Evaluation, or refused

    metrics   pure functions of labels and predictions
"""
