"""Run folder to stand-alone HTML, from files only: two reports, and runs side by side."""
