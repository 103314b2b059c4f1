"""The report: one HTML page, and pictures beside it, from the committed results.

::

    *.json ──sources──> Results ──comparison, load─────> Chart (title, words, table, drawing)
                                    ├─drawing, page──> SVG inside the page, in the reader's colours
                                    └─drawing────────> PNG, light and dark, for README (document)
"""
