"""Fine-tuning an embedding network on a user's own clips: ``python -m densemarks_model.adapt CLIPS``.

    clips     which parts of the clips are learned from and which are kept aside, and their preparation
    pictures  synthetic pictures, so that nothing is forgotten
    training  the trainer of ``densemarks_model.train`` at small rates, on both
    rows      how good a network is on what was kept aside, before and after
    session   one command from clips to a network file
"""
