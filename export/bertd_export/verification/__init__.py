"""What a bundle is, and whether it still agrees with its checkpoint on this machine.

::

    bertd inspect ──commands──> inspection: manifest, hashes;  graph_summary: operators
    bertd verify  ──commands──> verify: the export's comparison again
"""
