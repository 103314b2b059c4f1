"""The report: one HTML page, and pictures beside it, from the committed results.

::

    *.json ──sources──> Results ──plots──> Chart (title, words, table, drawing)
                                             ├─style─> SVG inside the page, in the reader's colours
                                             └─style─> PNG, light and dark, for README
"""
