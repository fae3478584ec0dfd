"""The recipes of `thinkdraw train`, `sample` and `score`: one loop a file."""
