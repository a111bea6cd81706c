"""The words after `python -m analysis`: one module each, imported when it is asked for."""
