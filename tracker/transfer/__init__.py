"""From one head model to another: which points of two heads correspond, and a track of one re-expressed on the other."""
