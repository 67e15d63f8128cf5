"""How it is shown; of a table, never of how it came about.

`plots` is what a comparison draws of itself: curves in `figures`, maps in `heatmaps`, losses by
language in `ranking`, what these share in `drawing`; `report` makes a page, and `said` of it
sentences token by token. `explorer` is the widget and `panels` its parts alone; `page` and
`picture` are what stays of it without a kernel. Behind it, `scene` is what is shown, `described`
what the front is told of it, `asks` what the front asks and how that is answered, `numbers`, `maps`
and `speakers` what is computed for it, and `assets` the script and style that lie in `front`.
"""
