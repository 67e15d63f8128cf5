"""How it is shown: figures, report and explorer of a table of results."""
