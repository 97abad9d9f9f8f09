"""How good an embedding network is, measured on synthetic heads and on real clips; and what its embeddings are good for.

``tools/evaluate_embeddings.py`` puts the measures of this package into one table; ``docs/embeddings.md`` defines them.

    metrics   pure functions from numbers to numbers; bootstrap: their intervals
    network   one interface to every network, in the precision that the tracker uses
    clips     real faces, cropped; flow: points followed through a clip without any network
    matchers  the embedding, and raw backbone features as the baseline, behind one interface
    synthetic, landmarks, transfer, tracks, speed   one measure each
    report    table, JSON, Markdown
    pictures, queries, stereo   for the query tools
"""
