"""`rpsg bench`: data sets x methods x models x epsilon x seeds, judged alike."""
