"""What the fit minimises, one file a cue: values and derivatives. Residuals know no files and no solving.

:mod:`tracker.residuals.cues` says what a cue is and how to add one.
"""
