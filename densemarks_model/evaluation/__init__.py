"""How good an embedding network is, measured on synthetic heads and on real clips; and what its embeddings are good for.

``tools/evaluate_embeddings.py`` puts the measures of this package into one table; ``docs/embeddings.md`` defines them.

    metrics   pure functions from numbers to numbers
    network   one interface to every network, in the precision that the tracker uses
    clips     real faces, cropped; flow: points followed through a clip without any network
    features  raw features of the frozen backbone, the baseline
    synthetic, landmarks, transfer, tracks, speed   one measure each
    report    table, JSON, Markdown
    pictures, stereo   for the query tools
"""
