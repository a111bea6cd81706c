"""What makes millions of rows fast: loops as machine code, threads, groups and intervals of whole columns."""
