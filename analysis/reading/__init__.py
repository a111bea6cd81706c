"""From a file to tables: `source` opens it, `export` and `pages` read rows, `tables`, `trace` name them."""
