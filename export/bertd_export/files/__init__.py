"""Files that are read and written whole or not at all.

::

    text file ──lines──> lines        finished folder ──staging──> its place, old one replaced
"""
